//! Visitors without tokens: pages of every kind against every action, with ids of another visitor.

use serde_json::{Value, json};
use turnstream::ids;

use super::{Battery, PLANTED, ask, outcome, plain, strangers::of_session};
use crate::{
    support::{Edge, Stage, client::Client, client::Session, frames::answer_text},
    widgets::on_page,
};

const SHOP: &str = "https://shop.example";

/// Pages, and whether the policy of the agent `shop` admits them.
const PAGES: [(&str, Option<&str>, bool); 5] = [
    ("a page of the policy", Some(SHOP), true),
    ("another page", Some("https://evil.example"), false),
    ("a page that looks like it", Some("https://shop.example.evil.example"), false),
    ("a sandbox", Some("null"), false),
    ("no page", None, false),
];

pub(super) async fn run(stage: &Stage, policies: &str, battery: &mut Battery) {
    let file = ("WIDGET_AUTH_FILE", policies);
    let edges = [
        ("strict policies", vec![file, ("WIDGET_AUTH_STRICT", "1")]),
        ("policies", vec![file]),
        ("policies, other machines", vec![file, ("SMOOTH_AGENT_BIND", "0.0.0.0")]),
    ];
    for (name, variables) in edges {
        let edge = stage.edge_with(&variables).await;
        let edge = Edge { address: edge.address.replace("0.0.0.0", "127.0.0.1"), ..edge };
        let mut victim = on_page(&edge, Some(SHOP), "").await;
        let hers = open(&mut victim).await;
        assert_eq!(answer_text(&victim.ask(&hers, "r1", "a planted question").await), "ok");
        for (who, origin, is_admitted) in PAGES {
            let who = format!("{name}: {who}");
            let mut page = on_page(&edge, origin, "").await;
            conversations(battery, &who, &mut page, &hers).await;
            if is_admitted {
                // A session of the page's own opens no other conversation.
                open(&mut page).await;
                conversations(battery, &format!("{who} with a session"), &mut page, &hers).await;
            } else {
                sessions(battery, &who, &mut page, &hers).await;
            }
        }
        let texts = victim.history(&hers).await;
        battery.expect("origins", format!("{name}: history"), &texts.join(", "), "a planted question, ok");
    }
}

async fn open(client: &mut Client) -> Session {
    let opened = client.request(json!({"action": "create_conversation_session", "agentId": "shop"})).await;
    let text = |name: &str| opened["data"][name].as_str().unwrap_or_else(|| panic!("{opened:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

/// Checks that actions that name a conversation are answered as for a missing one.
async fn conversations(battery: &mut Battery, who: &str, page: &mut Client, hers: &Session) {
    for query in [json!(null), json!(PLANTED), json!("")] {
        let answers = ask(page, json!({"action": "list_conversations", "query": query, "limit": 200})).await;
        battery.expect("origins", who, &outcome(&answers), "200");
        let listed = answers[0]["data"]["conversations"].to_string();
        battery.expect("origins", who, &listed, "[]");
    }
    let nobodys = ids::new_homed(0).to_string();
    let mut said: Vec<Value> = Vec::new();
    for id in [&nobodys, &hers.conversation, &hers.id] {
        let rename = json!({"action": "rename_conversation", "conversationId": id, "title": "mine"});
        let answers = ask(page, rename).await;
        battery.expect("origins", format!("{who}: rename"), &outcome(&answers), "CONVERSATION_NOT_FOUND");
        said.push(plain(&answers));
        let join = json!({"action": "create_conversation_session", "agentId": "shop", "conversationId": id});
        let answers = ask(page, join).await;
        battery.heard(who, &json!(answers));
        let joined = answers[0]["data"]["conversationId"] == hers.conversation.as_str();
        battery.expect("origins", format!("{who}: join"), if joined { "hers" } else { "none" }, "none");
    }
    said.iter().for_each(|answer| battery.same(who, answer, &said[0]));
}

/// Checks that actions that name a session, from a page that may not use the agent, are answered as for a missing one.
async fn sessions(battery: &mut Battery, who: &str, page: &mut Client, hers: &Session) {
    for (mut action, wanted) in of_session() {
        let mut of_nobody = None;
        for id in [ids::new_homed(0).to_string(), hers.id.clone()] {
            action["sessionId"] = json!(id);
            let answers = ask(page, action.clone()).await;
            // The connection did not request the resume extension.
            let wanted = if action["action"] == "resume_session" { "UNSUPPORTED_ACTION" } else { wanted };
            battery.expect("origins", format!("{who}: {action}"), &outcome(&answers), wanted);
            battery.heard(who, &json!(answers));
            let answers = plain(&answers);
            battery.same(format!("{who}: {action}"), &answers, of_nobody.get_or_insert_with(|| answers.clone()));
        }
    }
}
