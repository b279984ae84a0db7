//! Every route of the administrators' API, for every role, and for another organisation's administrators.

use serde_json::{Value, json};

use crate::{
    admin::operations,
    support::{frames::code, http::call},
};

use super::{Battery, World, plain, tokens};

fn of_role(role: &str, org: &str) -> String {
    tokens::signed(json!({"sub": role, "email": format!("{role}@{org}.example"), "role": role, "org": org}))
}

/// Returns a body that the route accepts.
fn body(method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("POST", "/admin/connectors") => Some(json!({"kind": "web", "url": "https://acme.example/", "name": "mine"})),
        ("PUT", "/admin/settings") => Some(json!({"persona": "a planted persona"})),
        ("PUT", _) => Some(json!({"kind": "file", "path": "mine"})),
        ("POST", "/admin/publish") => {
            let event = json!({"type": "keepalive", "requestId": "h", "timestamp": 1, "data": {"requestId": "h"}});
            Some(json!({"target": {"type": "user", "id": "nobody"}, "event": event}))
        }
        _ => None,
    }
}

pub(super) async fn run(world: &World, battery: &mut Battery) {
    roles(world, battery).await;
    ids(world, battery).await;
    elsewhere(world, battery).await;
}

async fn roles(world: &World, battery: &mut Battery) {
    const ROLES: [&str; 3] = ["basic", "curator", "admin"];
    let rank = |role: &str| ROLES.iter().position(|known| *known == role).unwrap();
    for (method, path, needed) in operations() {
        let body = body(&method, &path);
        // The ids in the paths do not exist.
        let served = match (path.split('/').count() > 4 || ["PUT", "DELETE"].contains(&method.as_str()), path.as_str())
        {
            (_, "/admin/settings") => "200",
            (true, _) => "404",
            (false, "/admin/connectors") if method == "POST" => "201",
            (false, _) => "200",
        };
        let callers = [("nobody", None), ("a false token", Some(tokens::signed(json!({"exp": 1}))))];
        for (who, token) in callers {
            let (status, answer) = call(&world.mild, &method, &path, token.as_deref(), body.as_ref()).await;
            let wanted = if needed.is_some() { "401" } else { "200" };
            battery.expect("routes by role", format!("{method} {path} {who}"), &status.to_string(), wanted);
            battery.heard(who, &answer);
        }
        for role in ROLES {
            let allowed = needed.as_deref().is_none_or(|needed| rank(role) >= rank(needed));
            let (status, answer) =
                call(&world.strict, &method, &path, Some(&of_role(role, "acme")), body.as_ref()).await;
            let wanted = if allowed { served } else { "403" };
            battery.expect("routes by role", format!("{method} {path} {role}"), &status.to_string(), wanted);
            if !allowed {
                battery.heard(role, &answer);
            }
        }
    }
}

async fn ids(world: &World, battery: &mut Battery) {
    let (nobodys, ada) = (uuid::Uuid::new_v4().to_string(), tokens::ada());
    let acme = |role: &str| of_role(role, "acme");
    let globex = |role: &str| of_role(role, "globex");
    for (method, before, hers, after, token, wanted) in [
        ("GET", "conversations", &world.approval.conversation, "/messages", ada, ["200", "404", "404"]),
        ("GET", "conversations", &world.approval.conversation, "/messages", acme("basic"), ["404", "404", "404"]),
        ("GET", "conversations", &world.approval.conversation, "/messages", acme("curator"), ["200", "404", "404"]),
        ("GET", "conversations", &world.approval.conversation, "/messages", globex("basic"), ["404"; 3]),
        ("GET", "conversations", &world.approval.conversation, "/messages", globex("curator"), ["404"; 3]),
        ("GET", "conversations", &world.form.conversation, "/messages", globex("admin"), ["404"; 3]),
        ("GET", "conversations", &world.approval.id, "/messages", globex("admin"), ["404"; 3]),
        ("GET", "audit/conversations", &world.approval.conversation, "/events", acme("basic"), ["403"; 3]),
        ("GET", "audit/conversations", &world.approval.conversation, "/events", acme("curator"), ["200", "404", "404"]),
        ("GET", "audit/conversations", &world.approval.conversation, "/events", globex("admin"), ["404"; 3]),
        ("GET", "audit/conversations", &world.approval.conversation, "/states", globex("admin"), ["404"; 3]),
        ("GET", "audit/conversations", &world.form.conversation, "/verification", globex("curator"), ["404"; 3]),
        ("GET", "audit/conversations", &world.form.conversation, "/report", globex("admin"), ["404"; 3]),
        ("PUT", "connectors", &world.connector, "", acme("curator"), ["403"; 3]),
        ("PUT", "connectors", &world.connector, "", globex("admin"), ["404"; 3]),
        ("DELETE", "connectors", &world.connector, "", acme("curator"), ["403"; 3]),
        ("DELETE", "connectors", &world.connector, "", globex("admin"), ["404"; 3]),
        ("POST", "connectors", &world.connector, "/index", acme("basic"), ["403"; 3]),
        ("POST", "connectors", &world.connector, "/index", globex("curator"), ["404"; 3]),
    ] {
        let mut of_nobody = None;
        for (id, wanted) in [hers.as_str(), &nobodys, "no-id"].into_iter().zip(wanted).rev() {
            let path = format!("/admin/{before}/{id}{after}");
            let (status, answer) = call(&world.mild, method, &path, Some(&token), body(method, &path).as_ref()).await;
            battery.expect("routes by id", format!("{method} {path}"), &status.to_string(), wanted);
            if wanted == "404" {
                battery.heard(&path, &answer);
                let answer = plain(&[answer]);
                battery.same(&path, &answer, of_nobody.get_or_insert_with(|| answer.clone()));
            }
        }
    }
    let (_, kept) = call(&world.mild, "GET", "/admin/connectors", Some(&acme("curator")), None).await;
    let kept =
        kept["connectors"].as_array().unwrap().iter().any(|connector| connector["id"] == world.connector.as_str());
    battery.expect("routes by id", "the connector", if kept { "kept" } else { "gone" }, "kept");
}

/// Checks that members of another organisation neither see nor reach acme's data.
async fn elsewhere(world: &World, battery: &mut Battery) {
    for role in ["basic", "curator", "admin"] {
        let token = of_role(role, "globex");
        for path in ["me", "conversations", "indexing/runs", "document-sets", "connectors", "settings"] {
            let (status, answer) = call(&world.mild, "GET", &format!("/admin/{path}"), Some(&token), None).await;
            let wanted = if role == "basic" && !["me", "conversations"].contains(&path) { "403" } else { "200" };
            battery.expect("another organisation", format!("{path} {role}"), &status.to_string(), wanted);
            battery.heard("globex", &answer);
        }
    }
    let token = of_role("admin", "globex");
    let nobodys = uuid::Uuid::new_v4().to_string();
    for (kind, id, wanted) in [
        ("session", world.approval.id.as_str(), "0"),
        ("session", &nobodys, "0"),
        ("connection", &nobodys, "0"),
        ("user", "ada", "0"),
        ("user", "nobody", "0"),
        ("agent", "support", "0"),
        ("agent", "nothing", "0"),
        ("org", "acme", "NOT_FOUND"),
        ("org", "nowhere", "NOT_FOUND"),
        ("world", "x", "VALIDATION_ERROR"),
    ] {
        let mut body = body("POST", "/admin/publish").unwrap();
        body["target"] = json!({"type": kind, "id": id});
        let (_, answer) = call(&world.mild, "POST", "/admin/publish", Some(&token), Some(&body)).await;
        let got = answer["delivered"].as_u64().map_or_else(|| code(&answer).to_owned(), |count| count.to_string());
        battery.expect("events of another organisation", format!("{kind} {id}"), &got, wanted);
    }
}
