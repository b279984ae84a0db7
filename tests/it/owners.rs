//! Ownership of conversations: only a proved address owns, and an arriving owner removes all others.

use serde_json::{Value, json};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::{Client, Session},
        frames::{answer_text, code, kind, request_id},
        gateway::{Gate, Reply},
    },
};

const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];
const VICTIM: &str = "victim@example.org";

async fn victim(edge: &Edge) -> Client {
    let token = token(json!({"sub": "v", "org": "reference-org", "email": VICTIM}));
    Client::try_connect(handshake(edge, &format!("?token={token}"), None)).await.unwrap()
}

async fn open(client: &mut Client, fields: Value) -> Session {
    let mut action = json!({"action": "create_conversation_session"});
    action.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let created = client.request(action).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    Session { id: text("sessionId"), conversation: text("conversationId") }
}

async fn listed(client: &mut Client) -> Vec<String> {
    let page = client.request(json!({"action": "list_conversations"})).await;
    let conversations = page["data"]["conversations"].as_array().unwrap_or_else(|| panic!("{page:#}"));
    conversations.iter().map(|entry| entry["conversationId"].as_str().unwrap().to_owned()).collect()
}

/// Checks that every action on the session is answered as for a missing one.
async fn expect_gone(client: &mut Client, session: &Session) {
    for (action, expected) in [
        (json!({"action": "get_session"}), "SESSION_NOT_FOUND"),
        (json!({"action": "get_conversation_messages"}), "SESSION_NOT_FOUND"),
        (json!({"action": "send_message", "message": "let me in"}), "SESSION_NOT_FOUND"),
        (json!({"action": "confirm_tool_action", "approved": true}), "NO_PENDING_CONFIRMATION"),
        (json!({"action": "verify_otp", "code": "1"}), "SESSION_NOT_FOUND"),
    ] {
        let mut action = action;
        action["sessionId"] = json!(session.id);
        let answer = client.request(action.clone()).await;
        assert_eq!(code(&answer), expected, "{action}");
    }
    let rename = json!({"action": "rename_conversation", "conversationId": session.conversation, "title": "mine"});
    assert_eq!(code(&client.request(rename).await), "CONVERSATION_NOT_FOUND");
    assert_ne!(client.resume(&session.conversation).await.conversation, session.conversation);
}

#[tokio::test]
async fn a_stated_address_owns_nothing() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker());
    let mut attacker = Client::connect(&edge).await;
    let first = open(&mut attacker, json!({})).await;
    assert_eq!(answer_text(&attacker.ask(&first, "r1", "a trap").await), "ok");
    for fields in [
        json!({"conversationId": first.conversation, "userEmail": VICTIM}),
        json!({"userEmail": VICTIM}),
        json!({"userEmail": VICTIM, "authContext": {"userId": VICTIM, "timestamp": 1, "signature": "00"}}),
    ] {
        let planted = open(&mut attacker, fields).await;
        attacker.ask(&planted, &format!("r-{}", planted.id), "another").await;
    }
    // A token without an address proves none, no matter the frame's `userEmail`.
    let nameless = token(json!({"sub": "n", "org": "reference-org", "email": null}));
    let mut nameless = Client::try_connect(handshake(&edge, &format!("?token={nameless}"), None)).await.unwrap();
    let planted = open(&mut nameless, json!({"userEmail": VICTIM})).await;
    nameless.ask(&planted, "r1", "one more").await;

    let mut owner = victim(&edge).await;
    let own = open(&mut owner, json!({})).await;
    owner.ask(&own, "r1", "mine").await;
    let began = std::time::Instant::now();
    loop {
        let listed = listed(&mut owner).await;
        assert!(listed.iter().all(|conversation| *conversation == own.conversation), "{listed:?}");
        if !listed.is_empty() {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX);
    }
}

#[tokio::test]
async fn a_new_owner_ends_other_visitors_access() {
    let stage = Stage::start().await;
    let (a, b, _worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.edge_with(&WITH_TOKENS), stage.worker());
    let mut attacker = Client::connect(&a).await;
    let session = open(&mut attacker, json!({})).await;
    assert_eq!(answer_text(&attacker.ask(&session, "r1", "a trap").await), "ok");
    // One client watches the whole conversation, the other has an active turn.
    let mut watcher = Client::connect(&a).await;
    watcher.resume(&session.conversation).await;
    let gate = Gate::new();
    let words = ["first ", "second ", "third ", "fourth"].map(str::to_owned).to_vec();
    stage.gateway.script(Reply::gated(words, &gate));
    attacker.begin(&session, "r2", "wait for it").await;
    gate.release(1);
    attacker.turn_until("r2", "stream_token").await;

    let mut owner = victim(&b).await;
    let own = owner.resume(&session.conversation).await;
    assert_eq!(own.conversation, session.conversation, "an ownerless conversation goes to a visitor with proof");
    let last = loop {
        let frame = attacker.next().await;
        if request_id(&frame) == Some("r2") && kind(&frame) == "error" {
            break frame;
        }
    };
    assert_eq!(code(&last), "SESSION_NOT_FOUND");
    gate.open();
    owner.turn_until("r2", "eventual_response").await;

    assert_eq!(answer_text(&owner.ask(&own, "secret", "my secret").await), "ok");
    watcher.ping().await;
    attacker.ping().await;
    // Neither client gets the rest of the active answer, nor any of the owner's messages.
    for client in [&watcher, &attacker] {
        let text = json!(client.seen).to_string();
        assert!(!text.contains("secret") && !text.contains("third") && !text.contains("fourth"), "{:#?}", client.seen);
    }
    expect_gone(&mut attacker, &session).await;
    let mut elsewhere = Client::connect(&b).await;
    expect_gone(&mut elsewhere, &session).await;
    assert_eq!(owner.history(&own).await.last().unwrap(), "ok");
}

/// The host's signed statement about its user is proof, if the user's id is an address.
#[tokio::test]
async fn a_signed_assertion_owns_the_conversation_and_its_session_goes_on() {
    let stage = Stage::start().await;
    let (_folder, path) = crate::widgets::policies();
    let variables = [("WIDGET_AUTH_FILE", path.as_str()), WITH_TOKENS[0]];
    let (edge, _worker) = tokio::join!(stage.edge_with(&variables), stage.worker());
    let mut page = crate::widgets::on_page(&edge, Some("https://shop.example"), "").await;
    let context = crate::widgets::context("ada@example.org", 1);
    let own = open(&mut page, json!({"agentId": "shop", "authContext": context})).await;
    assert_eq!(answer_text(&page.ask(&own, "r1", "hello").await), "ok");
    let mut again = crate::widgets::on_page(&edge, Some("https://shop.example"), "").await;
    assert_eq!(answer_text(&again.ask(&own, "r2", "me again").await), "ok", "by the session's id");
    let mut stranger = crate::widgets::on_page(&edge, Some("https://shop.example"), "").await;
    let joined = open(&mut stranger, json!({"agentId": "shop", "conversationId": own.conversation})).await;
    assert_ne!(joined.conversation, own.conversation);
}

/// A statement by one organisation's host proves nothing in another organisation.
#[tokio::test]
async fn a_proof_of_one_organisation_owns_nothing_in_another() {
    let stage = Stage::start().await;
    let (_folder, path) = crate::widgets::policies();
    let variables = [("WIDGET_AUTH_FILE", path.as_str()), WITH_TOKENS[0]];
    let (edge, _worker) = tokio::join!(stage.edge_with(&variables), stage.worker());
    // A conversation of reference-org, and a statement of the organisation `shop`'s host about the victim.
    let mut page = crate::widgets::on_page(&edge, Some("https://shop.example"), "").await;
    let own = open(&mut page, json!({"agentId": "other"})).await;
    assert_eq!(answer_text(&page.ask(&own, "r1", "a trap").await), "ok");
    let forged = json!({
        "agentId": "shop", "authContext": crate::widgets::context(VICTIM, 1),
        "conversationId": own.conversation, "sessionId": own.id,
    });
    let joined = open(&mut page, forged).await;
    let listed = listed(&mut victim(&edge).await).await;
    assert!(!listed.contains(&own.conversation), "{listed:?}");
    // The conversation has no owner, so the visitor who began it goes on.
    let mut back = crate::widgets::on_page(&edge, Some("https://shop.example"), "").await;
    assert_eq!(answer_text(&back.ask(&own, "r2", "still mine").await), "ok");
    assert!(!joined.id.is_empty());
}
