//! The permissions of each role on NATS: the users of `ops/nats` on a real server, refused on every other role's subjects.
//!
//! The other tests run edges, workers and commands under these users; this one shows that they may do nothing else.

use serde_json::json;

use crate::support::{
    Stage,
    client::Client,
    frames::{answer_text, tool_activity},
    gateway::{FakeGateway, Reply},
    nats::{NatsServer, ROLES, with_passwords},
    tools::{Provider, Tool, client_as},
};

async fn check(stage: &Stage, role: &str, user: &str) -> (bool, String) {
    let variables = [("NATS_USER", user), ("NATS_PASSWORD", user)];
    let mut check = stage.run("nats check", &["nats", "check", role], &variables);
    (check.ended().await.success(), check.output())
}

#[tokio::test]
async fn each_role_has_exactly_its_permissions() {
    let stage = Stage::start().await;
    for role in ROLES {
        let (passed, said) = check(&stage, role, role).await;
        assert!(passed && said.contains("has exactly the permissions it needs"), "{said}");
    }
}

#[tokio::test]
async fn a_user_with_wrong_permissions_is_detected() {
    let stage = Stage::start().await;
    let (passed, said) = check(&stage, "auditor", "test").await;
    assert!(!passed && said.contains("may publish on every subject"), "{said}");
    assert!(said.contains("publish to \"chat.local.x.x.turn.requested.x\" is not refused"), "{said}");
    assert!(said.contains("subscription to \"live.local.x\" is not refused"), "{said}");
    let (passed, said) = check(&stage, "worker", "edge").await;
    assert!(!passed && said.contains("Permissions Violation for Subscription"), "{said}");
    let (passed, said) = check(&stage, "nobody", "edge").await;
    assert!(!passed && said.contains("there is no role `nobody`"), "{said}");
    let (passed, said) = check(&stage, "auditor", "test").await;
    assert!(!passed && said.contains("reaches `consumer on CHAT_local`"), "{said}");
    // The probes left nothing behind.
    let mut diff = stage.run("streams diff", &["streams", "diff"], &[]);
    assert!(diff.ended().await.success(), "{}", diff.output());
}

#[tokio::test]
async fn roles_are_checked_for_their_reach() {
    let stage = Stage::without_streams().await;
    let mut now = stage.run("nats reach", &["nats", "reach"], &[]);
    assert!(now.ended().await.success(), "{}", now.output());
    assert!(now.output().contains("edge: reaches `replies`") && now.output().contains("Accepted"), "{}", now.output());
    let before = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/permissions.before.json");
    let mut before = stage.run("nats reach", &["nats", "reach", before], &[]);
    assert!(!before.ended().await.success());
    let said = before.output();
    for found in [
        "auditor: OPEN: reaches `delete consumer CHAT_local > default`",
        "auditor: OPEN: reaches `take CHAT_local > default`",
        "auditor: OPEN: reaches `consumer on CHAT_local`: a push consumer delivers the stream's messages to any literal subject",
        "provider: OPEN: reaches `replies`",
        "edge: OPEN: reaches `purge OBJ_ATTACHMENTS`",
    ] {
        assert!(said.contains(found), "{found} is not in {said}");
    }
}

/// The whole product works with its users in separate accounts, and no message that the server sends counts as a call.
#[tokio::test]
async fn accounts_close_paths_that_permissions_leave_open() {
    let users = with_passwords(include_str!("../../ops/nats/accounts.conf"), "    users: [\n");
    let (nats, gateway) =
        tokio::join!(NatsServer::start_in(tempfile::tempdir().unwrap(), &users), FakeGateway::start());
    let stage = Stage { nats, gateway };
    let mut applied = stage.run("streams apply", &["streams", "apply"], &[]);
    assert!(applied.ended().await.success(), "{}", applied.output());
    let provider = Provider::start(&stage.nats, vec![Tool::reads_files("look_up").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    stage.gateway.script(Reply::tool_call("look_up", json!({"id": "7"})));
    let files = json!([{"name": "a.txt", "url": "data:text/plain;base64,YQ=="}]);
    let mut frame = crate::support::client::message_frame(&session, "r1", "look it up");
    frame["files"] = files;
    client.send(&frame).await;
    client.turn_until("r1", "write_confirmation_required").await;
    client.confirm(&session, true).await;
    let turn = client.turn("r1").await;
    assert!(tool_activity(&turn)[1].starts_with("result "), "{turn:?}");
    assert_eq!(answer_text(&turn), "ok");
    assert_eq!(client.history(&session).await, ["look it up", "ok"]);
    let mut verify = stage.run("audit verify", &["audit", "verify"], &[]);
    assert!(verify.ended().await.success(), "{}", verify.output());
    let mut hold = stage.run("hold list", &["hold", "list"], &[]);
    assert!(hold.ended().await.success(), "{}", hold.output());

    // The server may deliver an answer to any subject of its account, and no tool listens in this one.
    for role in ["edge", "auditor", "eraser"] {
        let attacker = client_as(&stage.nats, role).await;
        let query = json!({"seq": 1}).to_string();
        let get = "$JS.API.DIRECT.GET.CHAT_local";
        attacker.publish_with_reply(get, "tool.test.look_up", query.clone().into()).await.unwrap();
        // The server handles a connection's messages in order: with this answer the first one is handled, too.
        attacker.request(get, query.into()).await.unwrap();
    }
    assert_eq!(provider.calls().len(), 1);
}
