//! Messages on a conversation's subjects that are no events, or come from a newer program: each is skipped alone.

use std::collections::BTreeMap;

use turnstream::{
    domain::{
        Command, Conversation, Event, Refusal,
        event::{TurnStarted, UnreadableCause},
    },
    log::{
        EventLog,
        conversations::{Conversations, ExecuteError, Freshness},
        jetstream_log::NatsLog,
    },
    nats::ReadFrom,
    subjects::ConversationKey,
    wire::stored::{self, EventEnvelope, MSG_ID},
};

use crate::{
    load::{append, append_turns, author},
    support::{samples::*, server::Server},
};

const ANY: Freshness = Freshness::AtLeast(0);

/// A message from a program that breaks the rules: a valid event except for the changes here.
#[derive(Clone, Default)]
struct Stray {
    /// Headers to change; `None` removes one.
    headers: BTreeMap<&'static str, Option<String>>,
    payload: Option<String>,
    kind: Option<&'static str>,
}

fn with(name: &'static str, value: &str) -> Stray {
    Stray { headers: BTreeMap::from([(name, Some(value.into()))]), ..Stray::default() }
}

fn without(name: &'static str) -> Stray {
    Stray { headers: BTreeMap::from([(name, None)]), ..Stray::default() }
}

fn of_payload(payload: &str) -> Stray {
    Stray { payload: Some(payload.into()), ..Stray::default() }
}

fn of_kind(kind: &'static str, version: &str) -> Stray {
    let headers = [("ce-type", format!("turnstream.{kind}")), ("ce-schemaversion", version.into())];
    let headers = headers.map(|(name, value)| (name, Some(value)));
    Stray { headers: headers.into(), kind: Some(kind), ..Stray::default() }
}

/// Publishes a stray after the last event of a conversation.
async fn put(log: &NatsLog, key: &ConversationKey, stray: Stray) -> u64 {
    let last = log.last(key, ReadFrom::Leader).await.unwrap().unwrap().recorded;
    let id = turnstream::ids::new_random().to_string();
    let envelope = EventEnvelope {
        id: id.clone(),
        source: "/stray".into(),
        time: second(1),
        conversation: key.conversation,
        prev: last.seq,
        prev_digest: Some(last.digest),
    };
    let (headers, payload) = stored::encode(&envelope, &Event::TurnStarted(started(10, last.seq)));
    let mut headers: BTreeMap<&str, Option<String>> =
        headers.into_iter().map(|(name, value)| (name, Some(value))).collect();
    headers.extend(stray.headers);
    headers.remove(MSG_ID);
    let headers: Vec<(&str, &str)> = headers.iter().filter_map(|(name, v)| Some((*name, v.as_deref()?))).collect();
    let payload = stray.payload.map_or(payload, Into::into);
    log.put(&key.event(stray.kind.unwrap_or("turn.started")), &id, &headers, payload).await.unwrap();
    log.last(key, ReadFrom::Leader).await.unwrap().unwrap().recorded.seq
}

fn started(turn: u64, item: u64) -> TurnStarted {
    TurnStarted { turn: id(turn), worker: id(7), item }
}

fn strays() -> Vec<(&'static str, Stray)> {
    let turn = id(10);
    vec![
        ("a missing field", of_payload(&format!(r#"{{"turn":"{turn}"}}"#))),
        ("a text for a number", of_payload(&format!(r#"{{"turn":"{turn}","worker":"{turn}","item":"six"}}"#))),
        ("no JSON", of_payload("not json")),
        ("nothing", of_payload("")),
        ("a number", of_payload("7")),
        ("an unknown kind", of_kind("turn.imagined", "1")),
        ("a kind of another entity", of_kind("weather.changed", "1")),
        ("a foreign type", with("ce-type", "org.example.started")),
        ("a newer schema", with("ce-schemaversion", "2")),
        ("no schema", without("ce-schemaversion")),
        ("no id", without("ce-id")),
        ("no time", without("ce-time")),
        ("a time that is none", with("ce-time", "yesterday")),
        ("another conversation", with("ce-subject", &id(99).to_string())),
        ("another event's subject", with("ce-type", "turnstream.turn.released")),
        ("no event before", without("ce-prev")),
        ("itself before", with("ce-prev", "99999")),
        ("the first before", with("ce-prev", "0")),
        ("an older one before", with("ce-prev", "1")),
        ("a digest that is none", with("ce-prevdigest", "zeros")),
        ("no digest", without("ce-prevdigest")),
        ("an encrypted payload", of_payload("\u{1}\u{1}0123456789abcdef0123456789abcdef0123456789abcdef")),
    ]
}

/// Returns the parts of a fold that a stray must not change.
fn told(state: &Conversation) -> impl PartialEq + std::fmt::Debug + use<> {
    let texts: Vec<String> = state.messages.iter().map(|message| message.text()).collect();
    (texts, state.finished.len(), state.turn.is_some(), state.owner.clone(), state.read_only)
}

#[tokio::test]
async fn a_stray_event_does_not_affect_its_conversation() {
    let server = Server::start().await;
    let log = server.log();
    for (name, stray) in strays() {
        let key = new_key("acme");
        append(&log, &key, opened()).await;
        append_turns(&log, &key, 10..12).await;
        let known = Conversations::over_nats(log.clone());
        let before = known.load(&key, ANY).await.unwrap();
        let seq = put(&log, &key, stray).await;
        for (process, conversations) in
            [("one that knew it", &known), ("a new one", &Conversations::over_nats(log.clone()))]
        {
            for freshness in [ANY, Freshness::Leader] {
                let state = conversations.load(&key, freshness).await.unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!((told(&state), state.last_seq), (told(&before), seq), "{name}, {process}");
            }
        }
        // The conversation goes on, also for readers of the whole log.
        let state = known.load(&key, ANY).await.unwrap();
        known.execute(&key, state, &Command::Request(request(30)), &author()).await.unwrap();
        let fresh = Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap();
        assert_eq!(*fresh, *known.load(&key, ANY).await.unwrap(), "{name}");
        assert_eq!((fresh.messages.len(), fresh.turn.is_some()), (5, true), "{name}");
    }
}

#[tokio::test]
async fn several_stray_events_in_a_row_have_no_effect() {
    let server = Server::start().await;
    let (log, key) = (server.log(), new_key("acme"));
    append(&log, &key, opened()).await;
    append_turns(&log, &key, 10..11).await;
    let before = Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap();
    for (_, stray) in strays() {
        put(&log, &key, stray).await;
    }
    append_turns(&log, &key, 11..12).await;
    for (_, stray) in strays() {
        put(&log, &key, stray).await;
    }
    let state = Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap();
    assert_eq!((before.messages.len(), state.messages.len(), state.finished.len()), (2, 4, 2));
}

#[tokio::test]
async fn a_stray_before_the_first_event_opens_no_conversation() {
    let server = Server::start().await;
    let (log, key) = (server.log(), new_key("acme"));
    log.put(&key.event("session.opened"), "stray", &[], "{}".into()).await.unwrap();
    let conversations = Conversations::over_nats(log.clone());
    let state = conversations.load(&key, ANY).await.unwrap();
    assert!(!state.exists());
    let opened = conversations.execute(&key, state, &Command::Open(session()), &author()).await.unwrap();
    assert!(opened.state.exists());
    assert_eq!(*Conversations::over_nats(log).load(&key, ANY).await.unwrap(), *opened.state);
}

#[tokio::test]
async fn an_unknown_critical_event_makes_a_conversation_read_only() {
    let server = Server::start().await;
    let log = server.log();
    for stray in [of_kind("turn.imagined", "1!"), with("ce-schemaversion", "2!")] {
        let key = new_key("acme");
        append(&log, &key, opened()).await;
        append_turns(&log, &key, 10..11).await;
        put(&log, &key, stray).await;
        let last = log.last(&key, ReadFrom::Leader).await.unwrap().unwrap().recorded.event;
        assert!(matches!(last, Event::Unreadable(e) if e.cause == UnreadableCause::Critical));
        let conversations = Conversations::over_nats(log.clone());
        let state = conversations.load(&key, ANY).await.unwrap();
        assert_eq!((state.read_only, state.messages.len()), (true, 2));
        for command in [Command::Request(request(30)), Command::Open(session())] {
            let refused = conversations.execute(&key, state.clone(), &command, &author()).await;
            assert!(matches!(refused, Err(ExecuteError::Refused(Refusal::ReadOnly))));
        }
    }
    // A critical mark does not matter on a known version and kind.
    let key = new_key("acme");
    append(&log, &key, opened()).await;
    put(&log, &key, with("ce-schemaversion", "1!")).await;
    assert!(!Conversations::over_nats(log).load(&key, ANY).await.unwrap().read_only);
}

#[tokio::test]
async fn a_lost_tail_of_the_log_is_not_shown() {
    let (lost, restored) = (Server::start().await, Server::start().await);
    let key = new_key("acme");
    for server in [&lost, &restored] {
        append(&server.log(), &key, opened()).await;
        append_turns(&server.log(), &key, 10..11).await;
    }
    // Both logs go on to the same sequence, with different events.
    append_turns(&lost.log(), &key, 11..12).await;
    append_turns(&restored.log(), &key, 21..22).await;
    let of_lost = Conversations::over_nats(lost.log()).load(&key, ANY).await.unwrap();
    let log = restored.log();
    let form = serde_json::json!({ "version": turnstream::log::conversations::FOLD_VERSION, "state": &*of_lost });
    let subject = turnstream::subjects::kv("CONVERSATIONS", &turnstream::subjects::fold_key(&key));
    log.put(&subject, "fold", &[], form.to_string().into()).await.unwrap();
    let state = Conversations::over_nats(log.clone()).load(&key, ANY).await.unwrap();
    assert_eq!(state.last_seq, of_lost.last_seq);
    assert!(state.finished_turn(id(21)).is_some() && state.finished_turn(id(11)).is_none());
    // A later event joins the restored chain.
    append_turns(&log, &key, 22..23).await;
    let state = Conversations::over_nats(log).load(&key, ANY).await.unwrap();
    assert_eq!(state.finished.iter().map(|turn| turn.id).collect::<Vec<_>>(), [id(10), id(21), id(22)]);
}
