//! Usage limits: each holds over all edges, says when to retry, and affects no other client.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    identity::{SECRET, handshake, token},
    support::{
        Edge, Stage, WAIT_MAX,
        client::{Client, Session},
        frames::{answer_text, code, kind},
        gateway::{Gate, Reply},
        http::{call, send},
        tools::{Provider, Tool},
    },
};

/// Checks that an answer refuses and says when to retry.
fn expect_limited(answer: &Value) {
    assert_eq!(code(answer), "RATE_LIMITED", "{answer:#}");
    assert!(answer["data"]["details"]["retryAfterSeconds"].as_u64() > Some(0), "{answer:#}");
}

async fn of_org(edge: &Edge, org: &str) -> Client {
    let token = token(json!({"sub": "somebody", "org": org}));
    Client::try_connect(handshake(edge, &format!("?token={token}"), None)).await.unwrap()
}

#[tokio::test]
async fn messages_of_a_connection_are_limited_per_minute() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_LIMIT_CONNECTION_MESSAGES", "2")]);
    let (edge, _worker) = tokio::join!(edge, stage.worker());
    let (mut client, mut other) = tokio::join!(Client::connect(&edge), Client::connect(&edge));
    let session = client.open_session().await;
    client.ask(&session, "r1", "one").await;
    client.ask(&session, "r2", "two").await;
    expect_limited(&client.say(&session, "r3", "three").await);
    assert_eq!(answer_text(&client.ask(&session, "r2", "two").await), "ok", "a repeated message is not counted");
    assert_eq!(client.history(&session).await, ["one", "ok", "two", "ok"]);
    assert_eq!(answer_text(&other.ask(&session, "r3", "three").await), "ok");
}

#[tokio::test]
async fn messages_of_a_conversation_are_limited_per_minute_on_all_edges() {
    let stage = Stage::start().await;
    let limit = [("SMOOTH_AGENT_LIMIT_SESSION_MESSAGES", "3")];
    let (a, b, _worker) = tokio::join!(stage.edge_with(&limit), stage.edge_with(&limit), stage.worker());
    let (mut here, mut there) = tokio::join!(Client::connect(&a), Client::connect(&b));
    let session = here.open_session().await;
    here.ask(&session, "r1", "one").await;
    there.ask(&session, "r2", "two").await;
    here.ask(&session, "r3", "three").await;
    for client in [&mut here, &mut there] {
        expect_limited(&client.say(&session, "r4", "four").await);
    }
    let another = there.open_session().await;
    assert_eq!(answer_text(&there.ask(&another, "r5", "five").await), "ok");
}

#[tokio::test]
async fn messages_of_an_organisation_are_limited_per_minute_on_all_edges() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ORG_MESSAGES", "3,large=1000"), ("AUTH_JWT_HS256_SECRET", SECRET)];
    let (a, b, _worker) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits), stage.worker());
    let (mut here, mut there) = tokio::join!(of_org(&a, "small"), of_org(&b, "small"));
    let sessions = [here.open_session().await, there.open_session().await];
    let mut sent = 0;
    // The minute may end once meanwhile, not twice.
    let refused = loop {
        let (client, session) = if sent % 2 == 0 { (&mut here, &sessions[0]) } else { (&mut there, &sessions[1]) };
        let id = format!("r{sent}");
        let answer = client.say(session, &id, "hello").await;
        if answer["status"] != 202 {
            break answer;
        }
        client.turn(&id).await;
        sent += 1;
        assert!(sent <= 6, "no limit is enforced");
    };
    expect_limited(&refused);
    assert!(sent >= 3);
    let mut large = of_org(&a, "large").await;
    let session = large.open_session().await;
    for n in 0..8 {
        assert_eq!(answer_text(&large.ask(&session, &format!("r{n}"), "hello").await), "ok");
    }
}

#[tokio::test]
async fn turns_of_an_organisation_are_limited_on_all_edges() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("pay", "paid").with("confirm", "true")]).await;
    let limits = [("SMOOTH_AGENT_LIMIT_ORG_TURNS", "2"), ("AUTH_JWT_HS256_SECRET", SECRET)];
    let (a, b, _worker) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits), stage.worker());
    let (mut here, mut there, mut third) = tokio::join!(of_org(&a, "acme"), of_org(&b, "acme"), of_org(&b, "acme"));
    let gates = [Gate::new(), Gate::new()];
    for gate in &gates {
        stage.gateway.script(Reply::gated(vec!["done".into()], gate));
    }
    let (one, two, three) = (here.open_session().await, there.open_session().await, third.open_session().await);
    here.begin(&one, "r1", "first").await;
    stage.gateway.wait_for_requests(1).await;
    there.begin(&two, "r1", "second").await;
    for n in 0..3 {
        expect_limited(&third.say(&three, &format!("r{n}"), "third").await);
    }
    // A conversation with an active turn is refused for that reason, and counts once.
    assert_eq!(code(&here.say(&one, "r2", "again").await), "TURN_IN_PROGRESS");
    let mut elsewhere = of_org(&a, "globex").await;
    let other: Session = elsewhere.open_session().await;
    assert_eq!(answer_text(&elsewhere.ask(&other, "r1", "hello").await), "ok");

    gates[0].open();
    here.turn("r1").await;
    stage.gateway.script(Reply::tool_call("pay", json!({})));
    third.begin(&three, "r9", "pay").await;
    third.turn_until("r9", "write_confirmation_required").await;
    // Parked turns do not count.
    assert_eq!(answer_text(&here.ask(&one, "r3", "and now?").await), "ok");
    gates[1].open();
    there.turn("r1").await;
}

#[tokio::test]
async fn tokens_of_an_organisation_are_limited_per_day() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ORG_TOKENS", "small=1,large=1000000"), ("AUTH_JWT_HS256_SECRET", SECRET)];
    let (edge, _worker) = tokio::join!(stage.edge_with(&limits), stage.worker_with(&limits[..1]));
    let mut small = of_org(&edge, "small").await;
    let session = small.open_session().await;
    assert_eq!(answer_text(&small.ask(&session, "r1", "hello").await), "ok");
    let (began, mut n) = (Instant::now(), 1);
    let refused = loop {
        n += 1;
        let answer = small.say(&session, &format!("r{n}"), "hello").await;
        if answer["status"] != 202 {
            break answer;
        }
        small.turn(&format!("r{n}")).await;
        assert!(began.elapsed() < WAIT_MAX, "no limit is enforced");
    };
    expect_limited(&refused);
    let mut large = of_org(&edge, "large").await;
    let session = large.open_session().await;
    assert_eq!(answer_text(&large.ask(&session, "r1", "hello").await), "ok");
}

/// Connects from the stated address; the error is the status of the refusal.
async fn from(edge: &Edge, address: &str) -> Result<Client, u16> {
    let mut handshake = handshake(edge, "", None);
    handshake.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
    Client::try_connect(handshake).await
}

/// Connects as soon as the limit allows.
async fn as_soon_as_may_be(edge: &Edge, address: &str) -> Client {
    let began = Instant::now();
    loop {
        match from(edge, address).await {
            Ok(client) => return client,
            Err(status) => assert!(status == 429 && began.elapsed() < WAIT_MAX, "{status}"),
        }
    }
}

#[tokio::test]
async fn connections_of_an_address_are_limited_on_all_edges() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS", "2"), ("SMOOTH_AGENT_PROXIES", "1")];
    let (mut a, b) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits));
    let (one, two) = (from(&a, "203.0.113.7").await.unwrap(), from(&b, "198.51.100.1, 203.0.113.7").await.unwrap());
    for edge in [&a, &b] {
        assert_eq!(from(edge, "203.0.113.7").await.err(), Some(429));
    }
    let mut other = from(&b, "203.0.113.7, 203.0.113.8").await.unwrap();
    other.ping().await;
    drop(two);
    let mut again = as_soon_as_may_be(&b, "203.0.113.7").await;
    again.ping().await;
    assert_eq!(from(&a, "203.0.113.7").await.err(), Some(429));
    // Counts of an edge go with it.
    a.process.kill().await;
    drop(one);
    as_soon_as_may_be(&b, "203.0.113.7").await.ping().await;

    // IPv6 is counted by network; without a stated address the socket's counts, and a malformed one is refused.
    let (_x, _y) = (from(&b, "2001:db8:1:2::1").await.unwrap(), from(&b, "2001:db8:1:2:3::4").await.unwrap());
    assert_eq!(from(&b, "2001:db8:1:2:ffff::9").await.err(), Some(429));
    from(&b, "2001:db8:1:3::1").await.unwrap();
    let (_v, _w) = (from(&b, "").await.unwrap(), Client::connect(&b).await);
    assert_eq!(from(&b, "").await.err(), Some(429));
    for nonsense in ["nonsense", "203.0.113.9, unknown", "203.0.113.9:port", "203.0.113"] {
        assert_eq!(from(&b, nonsense).await.err(), Some(400), "{nonsense}");
    }
}

/// The proxy's address is a header line of its own or a part of one, with a port or without.
#[tokio::test]
async fn the_proxys_forwarded_address_is_used_in_every_form() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS", "1"), ("SMOOTH_AGENT_PROXIES", "1")];
    let edge = stage.edge_with(&limits).await;
    let lines = async |lines: &[&str]| {
        let mut handshake = handshake(&edge, "", None);
        for line in lines {
            handshake.headers_mut().append("x-forwarded-for", line.parse().unwrap());
        }
        Client::try_connect(handshake).await
    };
    let _one = lines(&["198.51.100.1", "203.0.113.7"]).await.unwrap();
    for same in [
        &["203.0.113.7"][..],
        &["198.51.100.9", "203.0.113.7:4711"],
        &["198.51.100.9, 198.51.100.8", "198.51.100.7, 203.0.113.7"],
        &["203.0.113.8", "\"203.0.113.7:1\""],
    ] {
        assert_eq!(lines(same).await.err(), Some(429), "{same:?}");
    }
    let _two = lines(&["203.0.113.7", "[2001:db8::7]:80"]).await.unwrap();
    assert_eq!(lines(&["2001:db8::8"]).await.err(), Some(429));
}

/// Permanent records are counted without any setting, and a flood is stopped on every connection of its address.
#[tokio::test]
async fn sessions_names_and_page_requests_are_limited() {
    let stage = Stage::start().await;
    let edge = stage.edge_with(&[("SMOOTH_AGENT_LIMIT_ADDRESS_WRITES", "900")]).await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let rename = json!({"action": "rename_conversation", "conversationId": session.conversation, "title": "x"});
    let mut named = 0;
    let refused = loop {
        let answer = client.request(rename.clone()).await;
        if answer["status"] != 200 {
            break answer;
        }
        named += 1;
        assert!(named < 3_000, "no limit is enforced");
    };
    expect_limited(&refused);
    assert!(named >= 500, "an ordinary client is far below the limit: {named}");
    // The address's other connections share the rest of the address's own limit.
    let mut written = 0;
    let mut others = Vec::new();
    while written < 3_000 {
        let mut other = Client::connect(&edge).await;
        let opened = other.request(json!({"action": "create_conversation_session"})).await;
        if opened["status"] != 200 {
            expect_limited(&opened);
            break;
        }
        written += 1;
        others.push(other);
    }
    assert!((1..1_000).contains(&written), "{written}");
    let probe = json!({"agentId": "shop", "browserFingerprint": "f"});
    let (status, _) = call(&edge, "POST", "/internal/resume-by-fingerprint", None, Some(&probe)).await;
    assert_eq!(status, 429);
}

#[tokio::test]
async fn connections_of_an_organisation_are_limited_with_a_retry_time() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ORG_CONNECTIONS", "1,large=3"), ("AUTH_JWT_HS256_SECRET", SECRET)];
    let (a, b) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits));
    let _one = of_org(&a, "small").await;
    let small = token(json!({"sub": "x", "org": "small"}));
    assert_eq!(Client::try_connect(handshake(&b, &format!("?token={small}"), None)).await.err(), Some(429));
    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = send(&b, "GET", &format!("/ws?token={small}"), &headers, None).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let (_x, _y, _z) = tokio::join!(of_org(&a, "large"), of_org(&b, "large"), of_org(&a, "large"));
    let large = token(json!({"sub": "x", "org": "large"}));
    assert_eq!(Client::try_connect(handshake(&a, &format!("?token={large}"), None)).await.err(), Some(429));
}

#[tokio::test]
async fn sessions_of_an_address_are_limited_per_minute() {
    let stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ADDRESS_SESSIONS", "5"), ("SMOOTH_AGENT_PROXIES", "1")];
    let (a, b) = tokio::join!(stage.edge_with(&limits), stage.edge_with(&limits));
    let mut clients = [from(&a, "203.0.113.7").await.unwrap(), from(&b, "203.0.113.7").await.unwrap()];
    let mut opened = 0;
    let refused = loop {
        let answer = clients[opened % 2].request(json!({"action": "create_conversation_session"})).await;
        if kind(&answer) == "error" {
            break answer;
        }
        opened += 1;
        assert!(opened <= 10, "no limit is enforced");
    };
    expect_limited(&refused);
    assert!(opened >= 5);
    from(&a, "203.0.113.8").await.unwrap().open_session().await;
}

#[tokio::test]
async fn notes_of_ended_turns_block_no_message_and_are_removed() {
    const NOTES: usize = 1_200;
    let stage = Stage::start().await;
    let limit = [("SMOOTH_AGENT_LIMIT_ORG_TURNS", "2")];
    let (edge, _worker) = tokio::join!(stage.edge_with(&limit), stage.worker_with(&limit));
    let nats = stage.nats.client().await;
    let key = |conversation| turnstream::subjects::turn_note_key(turnstream::auth::REFERENCE_ORG, Some(conversation));
    for _ in 0..NOTES {
        let (conversation, turn) = (turnstream::ids::new_homed(0), turnstream::ids::new_random().to_string());
        nats.publish(turnstream::subjects::kv("TURNS", &key(conversation)), turn.into()).await.unwrap();
    }
    nats.flush().await.unwrap();
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    let (began, mut n) = (Instant::now(), 0);
    // Fresh notes may belong to turns with requests under way, so they count for the time that such a request may take.
    loop {
        n += 1;
        let answer = client.say(&session, &format!("r{n}"), "hello").await;
        if answer["status"] == 202 {
            break;
        }
        expect_limited(&answer);
        assert!(began.elapsed() < WAIT_MAX, "notes of ended turns block the organisation");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_eq!(answer_text(&client.turn(&format!("r{n}")).await), "ok");
    // The stale notes are removed meanwhile, and so is the note of the finished turn.
    let streams = async_nats::jetstream::new(nats);
    let began = Instant::now();
    while streams.get_stream("KV_TURNS").await.unwrap().cached_info().state.messages > 0 {
        assert!(began.elapsed() < WAIT_MAX, "notes stay");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn handshakes_that_fail_without_nats_are_not_counted() {
    let mut stage = Stage::start().await;
    let limits = [("SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS", "3"), ("SMOOTH_AGENT_PROXIES", "1")];
    let edge = stage.edge_with(&limits).await;
    let _one = from(&edge, "203.0.113.7").await.unwrap();
    stage.nats.kill().await;
    let refused = futures_util::future::join_all((0..5).map(|_| from(&edge, "203.0.113.7"))).await;
    assert!(refused.into_iter().all(|refused| refused.err() == Some(503)));
    stage.nats.restart().await;
    let _two = retried(&edge, "203.0.113.7").await;
    let _three = retried(&edge, "203.0.113.7").await;
    assert_eq!(from(&edge, "203.0.113.7").await.err(), Some(429));
}

/// Connects as soon as the edge is connected to NATS again.
async fn retried(edge: &Edge, address: &str) -> Client {
    let began = Instant::now();
    loop {
        match from(edge, address).await {
            Ok(client) => return client,
            Err(status) => assert!(status == 503 && began.elapsed() < WAIT_MAX, "{status}"),
        }
    }
}
