//! A person's action while the log does not answer, and erased payloads that processes still cache.
//!
//! An action counts if the log stored it in time, and else never. No process reads an erased payload, cached or not.

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use turnstream::{
    domain::{
        Command, Event,
        event::{TurnStarted, kind},
    },
    encryption::KeyClass,
    log::{
        EventLog,
        conversations::{Conversations, EventAuthor, ExecuteError, Freshness},
    },
    subjects::{self, PrivacySubject},
};

use crate::{
    load::{append, author},
    support::{samples::*, server::Server, spy::Spy},
};

const ANY: Freshness = Freshness::AtLeast(0);
const PARK: u64 = 50;

/// Returns a decider for a person who waits `millis` for the answer.
fn person(millis: i64) -> EventAuthor {
    EventAuthor { not_after: Some(Utc::now() + TimeDelta::milliseconds(millis)), ..author() }
}

/// Makes a conversation with turn 10 parked for an approval.
async fn parked(log: &impl EventLog) -> turnstream::subjects::ConversationKey {
    let key = new_key("acme");
    append(log, &key, opened()).await;
    let item = append(log, &key, requested(10)).await;
    let epoch = append(log, &key, Event::TurnStarted(TurnStarted { turn: id(10), worker: id(7), item })).await;
    append(log, &key, replied(10, epoch, vec![gated("pay")])).await;
    append(log, &key, crate::support::samples::parked(10, epoch, "pay", PARK)).await;
    key
}

fn acts() -> Vec<Command> {
    vec![
        Command::Open(session()),
        Command::Rename { title: "A name".into(), by: Some(id(3)) },
        Command::Confirm { park: id(PARK), approved: true, by: id(3) },
        Command::Cancel { turn: id(10), by: id(3) },
        Command::Supersede { park: id(PARK), by: id(4) },
    ]
}

#[tokio::test]
async fn events_stored_after_the_client_got_an_error_are_void() {
    for act in acts() {
        let spy = Spy::default();
        let key = parked(&spy).await;
        let conversations = Conversations::new(spy.clone());
        let state = conversations.load(&key, ANY).await.unwrap();
        // The log stores the action long after the deadline, and the ack is lost.
        spy.events_are_stored_at(Utc::now() + TimeDelta::seconds(60));
        spy.answers_to_appends_are_lost();
        let told = conversations.execute(&key, state.clone(), &act, &person(50)).await;
        assert!(matches!(told, Err(ExecuteError::TooLate)), "{act:?}");
        let after = Conversations::new(spy).load(&key, ANY).await.unwrap();
        assert_eq!(
            (&after.turn, &after.title, &after.sessions),
            (&state.turn, &state.title, &state.sessions),
            "{act:?}"
        );
    }
}

#[tokio::test]
async fn events_stored_in_time_count_without_an_ack() {
    for act in acts() {
        let spy = Spy::default();
        let key = parked(&spy).await;
        let conversations = Conversations::new(spy.clone());
        let state = conversations.load(&key, ANY).await.unwrap();
        spy.answers_to_appends_are_lost();
        let executed = conversations.execute(&key, state, &act, &person(50)).await.unwrap();
        assert_eq!(*executed.state, *Conversations::new(spy).load(&key, ANY).await.unwrap(), "{act:?}");
    }
}

#[tokio::test]
async fn erased_payloads_are_unreadable_in_every_process() {
    let server = Server::start().await;
    let log = server.encrypting_log();
    for class in [KeyClass::Said, KeyClass::Tools] {
        let key = parked(&log).await;
        let (knows, new) =
            (Conversations::over_nats(server.encrypting_log()), Conversations::over_nats(server.encrypting_log()));
        assert!(knows.load(&key, ANY).await.unwrap().exists());
        // Processes get no message about the destroyed key; they check at intervals that their keys exist.
        server.encrypting_log().destroy_key(key.conversation, class).await.unwrap();
        let read = async |conversations: &Conversations<_>| {
            let state = conversations.load(&key, ANY).await.unwrap();
            (
                state.erased,
                state.turn.as_ref().is_some_and(|turn| turn.replies.iter().any(|reply| !reply.calls.is_empty())),
            )
        };
        let erased = (class == KeyClass::Said, false);
        assert_eq!(read(&new).await, erased);
        let mut tries = 0;
        while read(&knows).await != erased {
            tries += 1;
            assert!(tries < 600, "erased payloads are still readable");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_missed_erasure_message_is_learnt_from_the_ledger() {
    let server = Server::start().await;
    let (log, conversation) = (server.encrypting_log(), id(77));
    let (forgotten, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let following = log.clone();
    let task = tokio::spawn(async move {
        following.forget_erased(REGION, |conversation| forgotten.send(conversation).unwrap_or_default()).await;
    });
    let entry = |deed: serde_json::Value| {
        let mut entry = serde_json::json!({ "at": Utc::now(), "by": "test", "erasure": id(1) });
        entry.as_object_mut().unwrap().extend(deed.as_object().unwrap().clone());
        entry.to_string()
    };
    let put = async |what, id: &str, payload: String| {
        log.put(&subjects::audit_privacy(REGION, what), id, &[], payload.into()).await.unwrap();
    };
    // An entry written before the process reached the end of the ledger may count as an old one: write until one is heard.
    let mut n = 0;
    let first = loop {
        let requested = serde_json::json!({
            "deed": "erase_requested", "conversations": [conversation], "extent": "all", "reason": "asked",
        });
        put(PrivacySubject::EraseRequested, &format!("requested-{n}"), entry(requested)).await;
        put(PrivacySubject::HoldLifted, &format!("stray-{n}"), "not an entry".into()).await;
        n += 1;
        match tokio::time::timeout(std::time::Duration::from_secs(3), heard.recv()).await {
            Ok(first) => break first,
            Err(_) => assert!(n < 10, "the ledger's erasures are not learnt"),
        }
    };
    assert_eq!(first, Some(conversation));
    let completed = serde_json::json!({ "deed": "erase_completed", "keysDestroyed": 1, "clearEvents": 0 });
    put(PrivacySubject::EraseCompleted, "completed", entry(completed)).await;
    let again = tokio::time::timeout(std::time::Duration::from_secs(30), heard.recv()).await;
    assert_eq!(again.expect("the end of an erasure is learnt"), Some(conversation));
    task.abort();
}

#[tokio::test]
async fn an_erased_conversation_keeps_only_its_event_kinds() {
    let server = Server::start().await;
    let log = server.encrypting_log();
    let key = parked(&log).await;
    log.destroy_key(key.conversation, KeyClass::Tools).await.unwrap();
    let fresh = server.encrypting_log();
    let last = fresh.last(&key, turnstream::nats::ReadFrom::Leader).await.unwrap().unwrap();
    assert_eq!(last.recorded.event, Event::Erased(kind::TURN_PARKED));
    // The erased park still ends the turn's wait at its deadline.
    let conversations = Conversations::over_nats(fresh);
    let state: Arc<_> = conversations.load(&key, ANY).await.unwrap();
    let resumed = conversations.execute(&key, state, &Command::Expire { park: id(PARK) }, &author()).await.unwrap();
    assert!(resumed.state.turn.as_ref().unwrap().park.is_none());
    assert_eq!(*Conversations::over_nats(server.encrypting_log()).load(&key, ANY).await.unwrap(), *resumed.state);
}
