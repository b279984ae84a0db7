//! The table of routes.

use warp::http::Method;

use crate::auth::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
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
    pub task: Task,
}

const fn route(method: Method, path: &'static str, role: Option<Role>, task: Task) -> Route {
    Route { method, path, role, task }
}

pub static ROUTES: [Route; 18] = [
    route(Method::GET, "health", None, Task::Health),
    route(Method::GET, "me", Some(Role::Basic), Task::Me),
    route(Method::GET, "conversations", Some(Role::Basic), Task::Conversations),
    route(Method::GET, "conversations/{id}/messages", Some(Role::Basic), Task::Messages),
    route(Method::GET, "audit/conversations/{id}/events", Some(Role::Curator), Task::Events),
    route(Method::GET, "audit/conversations/{id}/states", Some(Role::Curator), Task::States),
    route(Method::GET, "audit/conversations/{id}/verification", Some(Role::Curator), Task::Verification),
    route(Method::GET, "audit/conversations/{id}/report", Some(Role::Curator), Task::Report),
    route(Method::GET, "indexing/runs", Some(Role::Curator), Task::Runs),
    route(Method::GET, "document-sets", Some(Role::Curator), Task::DocumentSets),
    route(Method::GET, "connectors", Some(Role::Curator), Task::Connectors),
    route(Method::POST, "connectors", Some(Role::Admin), Task::CreateConnector),
    route(Method::PUT, "connectors/{id}", Some(Role::Admin), Task::ReplaceConnector),
    route(Method::DELETE, "connectors/{id}", Some(Role::Admin), Task::DeleteConnector),
    route(Method::POST, "connectors/{id}/index", Some(Role::Curator), Task::IndexConnector),
    route(Method::GET, "settings", Some(Role::Curator), Task::Settings),
    route(Method::PUT, "settings", Some(Role::Admin), Task::ReplaceSettings),
    route(Method::POST, "publish", Some(Role::Admin), Task::Publish),
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
        assert_eq!(task(Method::GET, "me"), Some((Task::Me, "")));
        assert_eq!(task(Method::GET, "me/"), Some((Task::Me, "")));
        assert_eq!(task(Method::GET, "conversations/7/messages"), Some((Task::Messages, "7")));
        assert_eq!(task(Method::POST, "connectors/7/index"), Some((Task::IndexConnector, "7")));
        for (method, path) in
            [(Method::POST, "me"), (Method::GET, "conversations/7"), (Method::GET, "me/too"), (Method::GET, "")]
        {
            assert_eq!(task(method, path), None, "{path}");
        }
    }
}
