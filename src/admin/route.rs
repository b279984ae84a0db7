//! The table of routes.

use warp::http::Method;

use crate::auth::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTask {
    Health,
    Me,
    Conversations,
    Messages,
    Events,
    States,
    Verification,
    Report,
    Runs,
    DocumentSets,
    Connectors,
    CreateConnector,
    ReplaceConnector,
    DeleteConnector,
    IndexConnector,
    Settings,
    ReplaceSettings,
    Publish,
}

/// A method and a path below `/admin`, the role that they need, and their task.
pub struct Route {
    pub method: Method,
    /// `{id}` stands for any one segment.
    pub path: &'static str,
    /// `None`: no token is needed.
    pub role: Option<Role>,
    pub task: RouteTask,
}

const fn route(method: Method, path: &'static str, role: Option<Role>, task: RouteTask) -> Route {
    Route { method, path, role, task }
}

pub static ROUTES: [Route; 18] = [
    route(Method::GET, "health", None, RouteTask::Health),
    route(Method::GET, "me", Some(Role::Basic), RouteTask::Me),
    route(Method::GET, "conversations", Some(Role::Basic), RouteTask::Conversations),
    route(Method::GET, "conversations/{id}/messages", Some(Role::Basic), RouteTask::Messages),
    route(Method::GET, "audit/conversations/{id}/events", Some(Role::Curator), RouteTask::Events),
    route(Method::GET, "audit/conversations/{id}/states", Some(Role::Curator), RouteTask::States),
    route(Method::GET, "audit/conversations/{id}/verification", Some(Role::Curator), RouteTask::Verification),
    route(Method::GET, "audit/conversations/{id}/report", Some(Role::Curator), RouteTask::Report),
    route(Method::GET, "indexing/runs", Some(Role::Curator), RouteTask::Runs),
    route(Method::GET, "document-sets", Some(Role::Curator), RouteTask::DocumentSets),
    route(Method::GET, "connectors", Some(Role::Curator), RouteTask::Connectors),
    route(Method::POST, "connectors", Some(Role::Admin), RouteTask::CreateConnector),
    route(Method::PUT, "connectors/{id}", Some(Role::Admin), RouteTask::ReplaceConnector),
    route(Method::DELETE, "connectors/{id}", Some(Role::Admin), RouteTask::DeleteConnector),
    route(Method::POST, "connectors/{id}/index", Some(Role::Curator), RouteTask::IndexConnector),
    route(Method::GET, "settings", Some(Role::Curator), RouteTask::Settings),
    route(Method::PUT, "settings", Some(Role::Admin), RouteTask::ReplaceSettings),
    route(Method::POST, "publish", Some(Role::Admin), RouteTask::Publish),
];

/// Returns the route of a request, with the segment in the place of `{id}`.
pub fn find<'a>(method: &Method, path: &'a str) -> Option<(&'static Route, &'a str)> {
    ROUTES.iter().filter(|route| route.method == *method).find_map(|route| Some((route, fits(route.path, path)?)))
}

fn fits<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let (mut wanted, mut id) = (pattern.split('/'), "");
    for segment in path.trim_end_matches('/').split('/') {
        match wanted.next()? {
            "{id}" => id = segment,
            fixed if fixed == segment => {}
            _ => return None,
        }
    }
    wanted.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route() {
        let task = |method, path| find(&method, path).map(|(route, id)| (route.task, id));
        assert_eq!(task(Method::GET, "me"), Some((RouteTask::Me, "")));
        assert_eq!(task(Method::GET, "me/"), Some((RouteTask::Me, "")));
        assert_eq!(task(Method::GET, "conversations/7/messages"), Some((RouteTask::Messages, "7")));
        assert_eq!(task(Method::POST, "connectors/7/index"), Some((RouteTask::IndexConnector, "7")));
        for (method, path) in
            [(Method::POST, "me"), (Method::GET, "conversations/7"), (Method::GET, "me/too"), (Method::GET, "")]
        {
            assert_eq!(task(method, path), None, "{path}");
        }
    }
}
