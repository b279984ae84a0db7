//! Pages, policies and signed contexts of hosts, on a mild edge and on a strict one.

use serde_json::{Value, json};

use crate::{
    support::{Edge, client::Client},
    widgets::{context, on_page},
};

use super::{Battery, World, ask, outcome, tokens};

const OK: &str = "200";
const ORIGIN: &str = "ORIGIN_NOT_ALLOWED";
const AGENT: &str = "AGENT_NOT_AUTHORIZED";
const CONTEXT: &str = "AUTH_CONTEXT_INVALID";
const SHOP: &str = "https://shop.example";

/// Returns agent, page, and the outcomes on a mild and on a strict edge.
fn pages() -> Vec<(Value, Option<&'static str>, &'static str, &'static str)> {
    let mut all = Vec::new();
    for (origin, outcome) in [
        (Some(SHOP), OK),
        (Some("https://SHOP.example"), OK),
        (Some("https://shop.example:443"), OK),
        (Some("https://www.shop.example"), OK),
        (Some("https://a.b.shop.example"), OK),
        (Some("http://shop.example"), ORIGIN),
        (Some("https://shop.example:8443"), ORIGIN),
        (Some("https://shop.example.evil.example"), ORIGIN),
        (Some("https://evilshop.example"), ORIGIN),
        (Some("https://evil.example/.shop.example"), ORIGIN),
        (Some("https://evil.example#.shop.example"), ORIGIN),
        (Some("https://evil.example?.shop.example"), ORIGIN),
        (Some("https://shop.example@evil.example"), ORIGIN),
        (Some("https://evil.example\\.shop.example"), ORIGIN),
        (Some("ftp://shop.example"), ORIGIN),
        (Some("shop.example"), ORIGIN),
        (Some("null"), ORIGIN),
        (Some("*"), ORIGIN),
        (Some(""), ORIGIN),
        (None, ORIGIN),
    ] {
        all.push((json!("shop"), origin, outcome, outcome));
    }
    for origin in [Some(SHOP), Some("https://evil.example"), Some("null"), Some("nonsense"), None] {
        all.push((json!("open"), origin, OK, OK));
        all.push((json!("closed"), origin, ORIGIN, ORIGIN));
        all.push((json!("other"), origin, OK, AGENT));
        all.push((Value::Null, origin, OK, AGENT));
    }
    for wrong in [json!(""), json!(" "), json!(7), json!(["shop"])] {
        all.push((wrong, Some(SHOP), "VALIDATION_ERROR", "VALIDATION_ERROR"));
    }
    all
}

async fn on(edge: &Edge, origin: Option<&str>) -> Client {
    // A strict edge admits no client without a token.
    let guest = tokens::signed(json!({"sub": "guest", "org": "globex", "email": "guest@globex.example"}));
    on_page(edge, origin, &format!("?token={guest}")).await
}

async fn opened(client: &mut Client, agent: &Value, context: Option<&Value>) -> Vec<Value> {
    let mut action = json!({"action": "create_conversation_session", "agentId": agent});
    if let Some(context) = context {
        action["authContext"] = context.clone();
    }
    ask(client, action).await
}

pub(super) async fn run(world: &World, battery: &mut Battery) {
    for (agent, origin, mild, strict) in pages() {
        for (edge, wanted) in [(&world.mild, mild), (&world.strict, strict)] {
            let answers = opened(&mut on(edge, origin).await, &agent, None).await;
            battery.expect("pages", format!("{agent} from {origin:?}"), &outcome(&answers), wanted);
            battery.heard("a page", &json!(answers));
        }
    }
    let (mut here, mut there) = (on(&world.mild, Some(SHOP)).await, on(&world.strict, Some(SHOP)).await);
    let (good, other, mut forged) = (context("ada", 1), context("bo", 59), context("ada", 2));
    forged["userId"] = json!("eve");
    let mut capitals = good.clone();
    capitals["signature"] = json!(good["signature"].as_str().unwrap().to_uppercase());
    let mut cut = context("ada", 3);
    cut["signature"] = json!(&cut["signature"].as_str().unwrap()[..62]);
    let mut words = context("ada", 4);
    words["timestamp"] = json!(words["timestamp"].to_string());
    let shop = json!("shop");
    for (name, agent, context, on_first, on_second) in [
        ("good, then again elsewhere", &shop, good, OK, CONTEXT),
        ("the same in capitals", &shop, capitals, CONTEXT, CONTEXT),
        ("old but good", &shop, other, OK, CONTEXT),
        ("late", &shop, context("ada", 90), CONTEXT, CONTEXT),
        ("of the future", &shop, context("ada", -90), CONTEXT, CONTEXT),
        ("for somebody else", &shop, forged, CONTEXT, CONTEXT),
        ("cut", &shop, cut, CONTEXT, CONTEXT),
        ("a time in words", &shop, words, CONTEXT, CONTEXT),
        ("null", &shop, Value::Null, CONTEXT, CONTEXT),
        ("empty", &shop, json!({}), CONTEXT, CONTEXT),
        ("a text", &shop, json!("ada"), CONTEXT, CONTEXT),
        ("where there is no key", &json!("open"), context("ada", 5), CONTEXT, CONTEXT),
        ("where there is no policy", &json!("other"), context("ada", 6), OK, AGENT),
    ] {
        for (client, wanted) in [(&mut here, on_first), (&mut there, on_second)] {
            let answers = opened(client, agent, Some(&context)).await;
            battery.expect("hosts' words", name, &outcome(&answers), wanted);
        }
    }
}
