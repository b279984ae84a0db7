//! What each role may do on NATS: the users of `ops/nats` on a real server, and every other role's subjects refused.
//!
//! The other tests run edges, workers and commands under these users; this one shows that they may do nothing else.

use crate::support::{Stage, nats::ROLES};

async fn check(stage: &Stage, role: &str, user: &str) -> (bool, String) {
    let variables = [("NATS_USER", user), ("NATS_PASSWORD", user)];
    let mut check = stage.run("nats check", &["nats", "check", role], &variables);
    (check.ended().await.success(), check.output())
}

#[tokio::test]
async fn each_role_may_do_what_it_needs_and_is_refused_everything_that_others_may() {
    let stage = Stage::start().await;
    for role in ROLES {
        let (passed, said) = check(&stage, role, role).await;
        assert!(passed && said.contains("and nothing else"), "{said}");
    }
}

#[tokio::test]
async fn a_user_that_may_too_much_or_too_little_is_found_out() {
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
async fn roles_are_held_to_what_they_reach() {
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
        "auditor: OPEN: reaches `consumer on CHAT_local`: a push consumer has the stream's messages delivered to any literal",
        "provider: OPEN: reaches `replies`",
        "edge: OPEN: reaches `purge OBJ_ATTACHMENTS`",
    ] {
        assert!(said.contains(found), "{found} is not in {said}");
    }
}
