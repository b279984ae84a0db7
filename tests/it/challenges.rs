//! Attacks on one-time passwords: a password sent to one's own mailbox must not prove another address.
//!
//! Each way to request a password is tried, with a host's service that keeps one password per session.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, kind, kinds, request_id, tool_activity},
        gateway::Reply,
        http::call,
        otp::OldOtpService,
        processes::Process,
        tools::{Provider, Tool},
    },
};

const VICTIM: &str = "victim@example.org";
const OWN: &str = "attacker@example.org";

/// A deployment with an agent that demands proof for one tool, and an attacker's session.
struct World {
    stage: Stage,
    otp: OldOtpService,
    provider: Provider,
    edge: Edge,
    _worker: Process,
    client: Client,
    session: Session,
    turns: usize,
}

impl World {
    async fn start() -> Self {
        let stage = Stage::start().await;
        let provider = Provider::start(&stage.nats, vec![Tool::answers("change_address", "changed")]).await;
        let config = json!({ "tools": [{ "name": "change_address", "authLevel": "end_user" }, { "name": "*" }] });
        stage.agent("reference-org", "default", &config).await;
        let otp = OldOtpService::start(&stage.nats, "reference-org").await;
        let gated = [("SMOOTH_AGENT_AUTH_TOOLS", "change_address")];
        let tokens = [("AUTH_JWT_HS256_SECRET", SECRET)];
        let (edge, worker) = tokio::join!(stage.edge_with(&tokens), stage.worker_with(&gated));
        let mut client = Client::connect(&edge).await;
        let opened = client.request(json!({"action": "create_conversation_session", "userEmail": OWN})).await;
        let text = |name: &str| opened["data"][name].as_str().unwrap().to_owned();
        let session = Session { id: text("sessionId"), conversation: text("conversationId") };
        Self { stage, otp, provider, edge, _worker: worker, client, session, turns: 0 }
    }

    /// Calls the gated tool, which has a password sent to the session's contact.
    async fn by_tool(&mut self) -> Vec<Value> {
        self.turns += 1;
        self.stage.gateway.script(Reply::tool_call("change_address", "{}"));
        self.client.ask(&self.session, &format!("t{}", self.turns), "change my address").await
    }

    async fn page(&self, path: &str, fields: Value) -> (u16, Value) {
        let mut body = json!({"agentId": "shop", "sessionId": self.session.id});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        call(&self.edge, "POST", &format!("/internal/identity/{path}"), None, Some(&body)).await
    }

    async fn by_page(&self, email: &str) -> u16 {
        self.page("request-otp", json!({"email": email})).await.0
    }

    /// Returns true if a password proves the victim's address to the page, or opens the victim's data.
    async fn proves_victim(&self, password: &str) -> bool {
        let (_, said) = self.page("verify-otp", json!({"email": VICTIM, "code": password})).await;
        let (_, resolved) = self.page("resolve", json!({"email": VICTIM})).await;
        said["event"] == "otp_verified" || resolved["resolved"] == true
    }

    async fn enters(&mut self, password: &str) -> Value {
        self.turns += 1;
        let id = format!("v{}", self.turns);
        let enter = json!({"action": "verify_otp", "requestId": id, "sessionId": self.session.id, "code": password});
        self.client.send(&enter).await;
        loop {
            let frame = self.client.next().await;
            if request_id(&frame) == Some(&id) {
                return frame;
            }
        }
    }
}

#[tokio::test]
async fn a_password_of_one_purpose_proves_nothing_for_the_other() {
    let mut world = World::start().await;
    assert_eq!(world.by_page(VICTIM).await, 200);
    let turn = world.by_tool().await;
    assert!(kinds(&turn).contains(&"otp_sent"), "{turn:#?}");
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert!(!world.proves_victim(&own).await, "sent by the tool, entered on the page");

    let mut world = World::start().await;
    world.by_tool().await;
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert_eq!(world.by_page(VICTIM).await, 200);
    assert!(!world.proves_victim(&own).await, "the other way round");
    assert_ne!(kind(&world.enters(&own).await), "otp_verified", "the tool's challenge was replaced");
    let theirs = world.otp.codes_to(VICTIM).pop().unwrap();
    assert_ne!(kind(&world.enters(&theirs).await), "otp_verified", "the page's password is for the page");
    assert!(world.provider.calls().is_empty());
}

#[tokio::test]
async fn an_earlier_password_proves_no_other_address() {
    let world = World::start().await;
    assert_eq!(world.by_page(OWN).await, 200);
    let own = world.otp.codes_to(OWN).pop().unwrap();
    world.otp.delivers.store(false, Ordering::SeqCst);
    assert_eq!(world.by_page(VICTIM).await, 502);
    assert!(!world.proves_victim(&own).await);
    world.otp.delivers.store(true, Ordering::SeqCst);
    assert_eq!(world.by_page(OWN).await, 200);
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert_eq!(world.page("verify-otp", json!({"email": OWN, "code": own})).await.1["event"], "otp_verified");
    assert!(!world.proves_victim(&own).await, "a password is used once");
}

#[tokio::test]
async fn while_a_password_is_being_sent_no_password_is_accepted() {
    let world = World::start().await;
    assert_eq!(world.by_page(OWN).await, 200);
    let own = world.otp.codes_to(OWN).pop().unwrap();
    world.otp.sends.forget_permits(Semaphore::MAX_PERMITS);
    let race = async {
        world.otp.asked(2).await;
        let early = world.proves_victim(&own).await;
        let another = world.by_page(OWN).await;
        world.otp.sends.add_permits(10);
        (early, another)
    };
    let (status, (early, another)) = tokio::join!(world.by_page(VICTIM), race);
    assert_eq!((status, early, another), (200, false, 429), "one at a time");
    assert!(!world.proves_victim(&own).await);
    let questions = world.otp.asked(2).await;
    let challenge = |n: usize| questions[n]["challenge"].as_str().unwrap().to_owned();
    assert_ne!(challenge(0), challenge(1));
    assert_eq!((&questions[1]["purpose"], &questions[1]["flow"]), (&json!("restore"), &json!("http")));
}

/// The proof covers the address that the password went to, not an address that the visitor only stated.
#[tokio::test]
async fn a_proved_number_proves_no_address() {
    let mut world = World::start().await;
    let opened = world.client.request(json!({"action": "create_conversation_session", "userEmail": OWN})).await;
    let text = |name: &str| opened["data"][name].as_str().unwrap().to_owned();
    world.session = Session { id: text("sessionId"), conversation: text("conversationId") };
    world.by_tool().await;
    // The contact changes after the password was sent.
    let asked = Reply::tool_call("request_identity_intake", json!({ "fields": ["email"] }));
    world.stage.gateway.script(asked);
    world.client.ask(&world.session, "ask", "who are you?").await;
    let told = json!({ "values": { "email": VICTIM } }).to_string();
    world.stage.gateway.script(Reply::tool_calls(vec![("submit_interaction".to_owned(), told)]));
    world.client.ask(&world.session, "tell", VICTIM).await;
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert_ne!(kind(&world.enters(&own).await), "otp_verified");
    world.stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = world.client.ask(&world.session, "again", "now change it").await;
    assert!(tool_activity(&turn)[1].starts_with("error Not done"), "{turn:#?}");
    assert!(world.provider.calls().is_empty());
}

/// Both ways share one count, by session, by asker and by organisation; a wrong guess counts, too.
#[tokio::test]
async fn passwords_are_counted_across_both_purposes() {
    let mut world = World::start().await;
    let mut by_page = 0;
    for n in 0..10 {
        if n % 2 == 0 {
            world.by_tool().await;
        } else if world.by_page(OWN).await == 200 {
            by_page += 1;
        }
    }
    assert!(world.otp.count() <= 5 && by_page > 0, "{} of one session", world.otp.count());

    // One asker opens many sessions, each with another number.
    let mut sent = world.otp.count();
    for n in 0..40 {
        let opened = world
            .client
            .request(json!({"action": "create_conversation_session", "userEmail": format!("v{n}@example.org")}))
            .await;
        let text = |name: &str| opened["data"][name].as_str().unwrap().to_owned();
        world.session = Session { id: text("sessionId"), conversation: text("conversationId") };
        world.by_tool().await;
        if world.otp.count() == sent {
            break;
        }
        sent = world.otp.count();
    }
    assert!((20..=30).contains(&sent), "{sent} on behalf of one asker");
}

#[tokio::test]
async fn concurrent_requests_are_counted_one_by_one() {
    let world = World::start().await;
    let requests = (0..25).map(|_| world.by_page(VICTIM));
    let answered = futures_util::future::join_all(requests).await;
    let sent = answered.iter().filter(|status| **status == 200).count();
    assert!((1..=5).contains(&sent) && world.otp.count() == sent, "{answered:?}");
}

#[tokio::test]
async fn a_password_allows_five_guesses() {
    let mut world = World::start().await;
    world.by_tool().await;
    for _ in 0..5 {
        assert_eq!(world.enters("000000").await["data"]["data"]["error"], "INVALID_CODE");
    }
    let right = world.otp.codes_to(OWN).pop().unwrap();
    assert_eq!(world.enters(&right).await["data"]["data"]["error"], "MAX_ATTEMPTS");
}

/// Strangers who request passwords for an address do not use up its owner's quota.
#[tokio::test]
async fn strangers_do_not_use_up_an_owners_passwords() {
    let stage = Stage::start().await;
    let otp = OldOtpService::start(&stage.nats, "reference-org").await;
    let edge = stage.edge_with(&[("AUTH_JWT_HS256_SECRET", SECRET), ("SMOOTH_AGENT_PROXIES", "1")]).await;
    let mut client = Client::try_connect(handshake(&edge, "", None)).await.unwrap();
    let ask = async |client: &mut Client, from: &str| {
        let session = client.open_session().await;
        let body = json!({"agentId": "shop", "sessionId": session.id, "email": VICTIM});
        let headers = [("x-forwarded-for", from)];
        let path = "/internal/identity/request-otp";
        let response = crate::support::http::send(&edge, "POST", path, &headers, Some(&body)).await;
        response.status().as_u16()
    };
    let mut sent = 0;
    for _ in 0..20 {
        sent += usize::from(ask(&mut client, "203.0.113.7").await == 200);
    }
    assert_eq!(sent, 5, "of one asker to one mailbox");
    assert_eq!(ask(&mut client, "198.51.100.77").await, 200, "its owner, from elsewhere");
    assert_eq!(otp.codes_to(VICTIM).len(), 6);
}

/// A visitor who proves an address owns the conversation, and reaches it by the session that proved the address.
#[tokio::test]
async fn a_proved_address_owns_the_conversation_and_its_session_goes_on() {
    let mut world = World::start().await;
    world.by_tool().await;
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert_eq!(kind(&world.enters(&own).await), "otp_verified");
    world.stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = world.client.ask(&world.session, "done", "change it").await;
    assert_eq!(tool_activity(&turn), ["call change_address", "result changed"]);
    let mut back = Client::connect(&world.edge).await;
    assert_eq!(answer_text(&back.ask(&world.session, "back", "me again").await), "ok", "by the session's id");
    let joined = back.resume(&world.session.conversation).await;
    assert_eq!(joined.conversation, world.session.conversation, "the page has shown its session");
    let mut stranger = Client::connect(&world.edge).await;
    let fresh = stranger.resume(&world.session.conversation).await;
    assert_ne!(fresh.conversation, world.session.conversation, "the conversation's id is not enough any more");
    let owner = token(json!({"sub": "a", "org": "reference-org", "email": OWN}));
    let mut owner = Client::try_connect(handshake(&world.edge, &format!("?token={owner}"), None)).await.unwrap();
    assert_eq!(owner.resume(&world.session.conversation).await.conversation, world.session.conversation);
}

/// A session joined from one that has proved the owner's address goes on as the owner, without further proof.
#[tokio::test]
async fn a_session_joined_from_a_proved_one_goes_on() {
    let mut world = World::start().await;
    world.by_tool().await;
    let own = world.otp.codes_to(OWN).pop().unwrap();
    assert_eq!(kind(&world.enters(&own).await), "otp_verified");
    let mut page = Client::connect(&world.edge).await;
    let fields = json!({
        "action": "create_conversation_session",
        "conversationId": world.session.conversation,
        "sessionId": world.session.id,
    });
    let joined = page.request(fields).await;
    let text = |name: &str| joined["data"][name].as_str().unwrap_or_else(|| panic!("{joined:#}")).to_owned();
    let second = Session { id: text("sessionId"), conversation: text("conversationId") };
    assert_eq!(second.conversation, world.session.conversation);
    drop(page);
    let mut later = Client::connect(&world.edge).await;
    assert_eq!(answer_text(&later.ask(&second, "r", "it is me").await), "ok");
    // The joined session has not proved the address itself, so gated tools stay refused.
    world.stage.gateway.script(Reply::tool_call("change_address", "{}"));
    let turn = later.ask(&second, "t", "change my address").await;
    assert!(tool_activity(&turn)[1].starts_with("error Not done"), "{turn:#?}");
}
