//! Two organisations on one deployment: keys, agents and documents of one never serve the other.

use serde_json::{Value, json};
use turnstream::subjects::encode_token;

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage,
        client::{Client, Session},
        frames::{answer_text, code, kind},
    },
};

const WITH_TOKENS: [(&str, &str); 1] = [("AUTH_JWT_HS256_SECRET", SECRET)];
const ACME: &str = "acme";
const GLOBEX: &str = "globex";

async fn member(edge: &Edge, org: &str) -> Client {
    let claims = json!({ "sub": format!("user-of-{org}"), "org": org, "email": format!("user@{org}.example") });
    Client::try_connect(handshake(edge, &format!("?token={}", token(claims)), None)).await.unwrap()
}

async fn session(client: &mut Client) -> (Session, String) {
    let created = client.request(json!({ "action": "create_conversation_session", "agentId": "support" })).await;
    let text = |name: &str| created["data"][name].as_str().unwrap_or_else(|| panic!("{created:#}")).to_owned();
    (Session { id: text("sessionId"), conversation: text("conversationId") }, text("agentName"))
}

fn secret(folder: &tempfile::TempDir, org: &str, name: &str, value: &str) {
    let folder = folder.path().join(encode_token(org));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), value).unwrap();
}

#[tokio::test]
async fn keys_agents_and_documents_stay_with_their_organisation() {
    let stage = Stage::start().await;
    let secrets = tempfile::tempdir().unwrap();
    secret(&secrets, ACME, "gateway", "key-of-acme");
    secret(&secrets, GLOBEX, "gateway", "key-of-globex");
    secret(&secrets, GLOBEX, "special", "key-of-globex-2");
    for org in [ACME, GLOBEX] {
        let config = json!({ "name": org, "persona": format!("You work for {org}."), "gatewayKey": "gateway" });
        stage.agent(org, "support", &config).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pay.md"), format!("The salary at {org} is secret-of-{org}.")).unwrap();
        let path = folder.path().to_str().unwrap();
        let mut ingest = stage.run("ingest", &["ingest", "--org", org, "--source", "hr", path], &[]);
        assert!(ingest.ended().await.success(), "{}", ingest.output());
    }
    let folder = [("SMOOTH_AGENT_SECRETS_DIR", secrets.path().to_str().unwrap())];
    let (edge, worker) = tokio::join!(stage.edge_with(&WITH_TOKENS), stage.worker_with(&folder));
    let (mut acme, mut globex) = tokio::join!(member(&edge, ACME), member(&edge, GLOBEX));
    let ((of_acme, acme_name), (of_globex, globex_name)) = tokio::join!(session(&mut acme), session(&mut globex));
    assert_eq!((acme_name.as_str(), globex_name.as_str()), (ACME, GLOBEX));
    acme.ask(&of_acme, "r1", "what is the salary?").await;
    globex.ask(&of_globex, "r1", "what is the salary?").await;
    let requests = stage.gateway.requests();
    for (request, own, other) in [(&requests[0], ACME, GLOBEX), (&requests[1], GLOBEX, ACME)] {
        assert_eq!(request["authorization"], format!("Bearer key-of-{own}"));
        let text = request.to_string();
        assert!(text.contains(&format!("secret-of-{own}")) && text.contains(&format!("You work for {own}.")), "{text}");
        assert!(!text.contains(other), "{text}");
    }

    // A reference to another organisation's secret resolves to no key, and does not fall back to another one.
    let stolen = json!({ "gatewayKey": "special", "name": "thief" });
    stage.agent(ACME, "support", &stolen).await;
    let started = std::time::Instant::now();
    while session(&mut acme).await.1 != "thief" {
        assert!(started.elapsed() < crate::support::WAIT_MAX);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    acme.begin(&of_acme, "r2", "and now?").await;
    let refused = acme.turn("r2").await;
    assert_eq!(code(refused.last().unwrap()), "AGENT_ERROR");
    assert_eq!(stage.gateway.requests().len(), 2, "no gateway was called");

    // A session, a conversation, a message of the other organisation count as missing.
    for action in [
        json!({ "action": "get_session", "sessionId": of_globex.id }),
        json!({ "action": "get_conversation_messages", "sessionId": of_globex.id }),
        json!({ "action": "send_message", "requestId": "x", "sessionId": of_globex.id, "message": "hi" }),
    ] {
        assert_eq!(code(&acme.request(action).await), "SESSION_NOT_FOUND");
    }
    let taken = acme.resume(&of_globex.conversation).await;
    assert_ne!(taken.conversation, of_globex.conversation);
    for place in [worker.output(), edge.process.output()] {
        assert!(!place.contains("key-of-"), "a key is in the log");
    }
}

#[tokio::test]
async fn a_worker_serves_only_organisations_with_a_key() {
    let stage = Stage::start().await;
    let secrets = tempfile::tempdir().unwrap();
    secret(&secrets, ACME, "gateway", "key-of-acme");
    stage.agent(ACME, "support", &json!({ "gatewayKey": "gateway" })).await;
    let url = stage.gateway.base_url();
    let folder = secrets.path().to_str().unwrap();
    let variables = [("SMOOAI_GATEWAY_URL", url.as_str()), ("SMOOTH_AGENT_SECRETS_DIR", folder)];
    let mut worker = stage.run("worker", &["worker"], &variables);
    worker.line(|line| line.starts_with("working for pool")).await;
    let edge = stage.edge_with(&WITH_TOKENS).await;
    let (mut acme, mut globex) = tokio::join!(member(&edge, ACME), member(&edge, GLOBEX));
    let ((of_acme, _), (of_globex, _)) = tokio::join!(session(&mut acme), session(&mut globex));
    assert_eq!(answer_text(&acme.ask(&of_acme, "r1", "hello").await), "ok");
    let mut refused: Value = globex.say(&of_globex, "r1", "hello").await;
    // The worker's advertisement may be under way.
    for n in 2..100 {
        if kind(&refused) == "error" {
            break;
        }
        globex.turn(&format!("r{}", n - 1)).await;
        refused = globex.say(&of_globex, &format!("r{n}"), "hello").await;
    }
    assert_eq!(code(&refused), "LLM_UNAVAILABLE");
    assert_eq!(stage.gateway.requests().len(), 1);
}

#[tokio::test]
async fn one_organisations_usage_does_not_limit_another() {
    let stage = Stage::start().await;
    let limits = [WITH_TOKENS[0], ("SMOOTH_AGENT_LIMIT_ORG_MESSAGES", "100,acme=2")];
    let (one, two, _worker) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits), stage.worker());
    let (mut acme, mut other) = tokio::join!(member(&one, ACME), member(&two, ACME));
    let mut globex = member(&one, GLOBEX).await;
    let ((first, _), (second, _)) = (session(&mut acme).await, session(&mut other).await);
    // The minute may end between the messages; then the limit is full again, and the next messages reach it.
    let mut refused = false;
    for n in 0..6 {
        let (client, session) = if n % 2 == 0 { (&mut acme, &first) } else { (&mut other, &second) };
        let id = format!("r{n}");
        let answer = client.say(session, &id, "hello").await;
        if code(&answer) == "RATE_LIMITED" {
            refused = true;
            break;
        }
        client.turn(&id).await;
    }
    assert!(refused, "both edges count together");
    let (of_globex, _) = session(&mut globex).await;
    for n in 0..5 {
        assert_eq!(answer_text(&globex.ask(&of_globex, &format!("r{n}"), "hello").await), "ok");
    }
}
