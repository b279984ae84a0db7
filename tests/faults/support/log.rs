//! The final contents of the log: the truth that frames are compared with.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    time::{Duration, Instant},
};

use async_nats::{
    Client,
    jetstream::{
        self,
        consumer::{Consumer, DeliverPolicy, pull::OrderedConfig},
    },
};
use futures_util::StreamExt;
use turnstream::{
    domain::{Event, RecordedEvent, event::Prompt},
    log::StoredEvent,
    nats::jetstream::RawMessage,
};
use uuid::Uuid;

use super::{WAIT_MAX, encrypted};

/// All events of a region, in their order.
pub struct Log {
    pub events: Vec<StoredEvent>,
}

/// The events of one turn, in their order.
pub struct TurnLog<'a> {
    pub events: Vec<&'a RecordedEvent>,
}

impl Log {
    /// Reads the stream from its first event to its current last one.
    pub async fn read(client: &Client) -> Self {
        let (log, consumer) = (encrypted::log(client.clone()), consumer_of_all(client).await);
        let pending = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.unwrap();
        let mut events = Vec::new();
        for _ in 0..pending {
            let message = messages.next().await.unwrap().unwrap();
            let info = message.info().unwrap();
            let seq = info.stream_sequence;
            let stored_at = chrono::DateTime::from_timestamp_nanos(info.published.timestamp_nanos_opt().unwrap());
            events.push(log.decode(RawMessage::delivered(&message.message, seq, stored_at)).await.unwrap());
        }
        Self { events }
    }

    /// Returns the violations of the log as such: duplicate ids, broken chains.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let (mut ids, mut tails) = (HashSet::new(), HashMap::new());
        for StoredEvent { envelope, recorded, .. } in &self.events {
            if !ids.insert(&envelope.id) {
                violations.push(format!("event id {} is there twice", envelope.id));
            }
            let tail = tails.insert(envelope.conversation, recorded.seq).unwrap_or(0);
            if envelope.prev != tail {
                violations.push(format!("event {} follows {} but says {}", recorded.seq, tail, envelope.prev));
            }
        }
        violations
    }

    /// Returns the ids of the calls whose intents are in the log, in the form that tools get.
    pub fn intents(&self) -> HashSet<String> {
        let intents = self.events.iter().filter_map(|stored| match &stored.recorded.event {
            Event::TurnToolCalled(e) => Some(format!("{}-{}", e.turn.simple(), e.call)),
            _ => None,
        });
        intents.collect()
    }

    /// Returns the events of a call's conversation, one per line: the story behind a violation.
    pub fn story(&self, call_id: &str) -> String {
        let turn: Option<Uuid> = call_id.get(..32).and_then(|turn| turn.parse().ok());
        let requested =
            |stored: &&StoredEvent| matches!(&stored.recorded.event, Event::TurnRequested(e) if Some(e.turn) == turn);
        let conversation = self.events.iter().find(requested).map(|stored| stored.envelope.conversation);
        let of_conversation = self.events.iter().filter(|stored| Some(stored.envelope.conversation) == conversation);
        let lines = of_conversation.map(|StoredEvent { envelope, recorded, .. }| {
            let (seq, prev, at) = (recorded.seq, envelope.prev, recorded.time.format("%T%.3f"));
            let stored_at = recorded.stored_at.format("%T%.3f");
            format!("  {seq} after {prev}, made {at}, stored {stored_at}, {}: {:?}", envelope.source, recorded.event)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the number of events of this name.
    pub fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|stored| stored.recorded.event.kind() == kind).count()
    }

    /// Returns the turn that a request asked for, if it was stored.
    pub fn turn(&self, session: &str, request_id: &str) -> Option<TurnLog<'_>> {
        let session: Uuid = session.parse().expect("a session is a UUID");
        let turn = self.events.iter().find_map(|stored| match &stored.recorded.event {
            Event::TurnRequested(e) if e.session == session && e.request_id == request_id => Some(e.turn),
            _ => None,
        })?;
        let of_turn = |stored: &&StoredEvent| stored.recorded.event.turn() == Some(turn);
        Some(TurnLog { events: self.events.iter().filter(of_turn).map(|stored| &stored.recorded).collect() })
    }
}

/// Creates a reader of the whole log.
///
/// A cluster whose server has just died gives no answer at all while it chooses its leaders, so the request is
/// repeated.
async fn consumer_of_all(client: &Client) -> Consumer<OrderedConfig> {
    let context = jetstream::new(client.clone());
    let begun = Instant::now();
    loop {
        let created = async {
            let config = OrderedConfig {
                filter_subject: "chat.local.>".into(),
                deliver_policy: DeliverPolicy::All,
                ..Default::default()
            };
            context.get_stream("CHAT_local").await?.create_consumer(config).await.map_err(Box::<dyn Error>::from)
        };
        match created.await {
            Ok(consumer) => return consumer,
            Err(error) if begun.elapsed() > WAIT_MAX => panic!("the log can't be read: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

impl TurnLog<'_> {
    /// Returns the violations of the turn: not exactly one terminal event, or an event after it.
    ///
    /// After a cancel, the worker may still record the text that was shown before it.
    pub fn violations(&self) -> Vec<String> {
        let terminals = self.events.iter().filter(|recorded| is_terminal(&recorded.event)).count();
        let last_words = match &self.events[..] {
            [.., end, last] if matches!(end.event, Event::TurnCancelled(_)) => {
                usize::from(matches!(last.event, Event::TurnReleased(_)))
            }
            _ => 0,
        };
        let events = &self.events[..self.events.len() - last_words];
        let mut violations = Vec::new();
        if terminals != 1 {
            violations.push(format!("{terminals} terminal events"));
        }
        if terminals > 0 && !events.last().is_some_and(|last| is_terminal(&last.event)) {
            violations.push("an event after the terminal one".into());
        }
        violations
    }

    /// Returns the tool activity that a client should have seen, in the words of `frames::tool_activity`.
    pub fn activity(&self) -> Vec<String> {
        let mut gated = HashSet::new();
        let activity = self.events.iter().filter_map(|recorded| match &recorded.event {
            Event::TurnModelReplied(e) => {
                gated.extend(e.calls.iter().filter(|call| call.waits()).map(|call| &call.id));
                None
            }
            // A gated call is shown when its person is asked.
            Event::TurnToolCalled(e) => (!gated.contains(&e.call)).then(|| format!("call {}", e.name)),
            Event::TurnParked(e) => match &e.prompt {
                Prompt::Approval { tool, .. } | Prompt::Interaction { tool, .. } => Some(format!("call {tool}")),
                Prompt::Elicitation { .. } | Prompt::Task { .. } => None,
            },
            Event::TurnToolReturned(e) if e.is_error => Some(format!("error {}", e.result)),
            Event::TurnToolReturned(e) => Some(format!("result {}", e.result)),
            _ => None,
        });
        activity.collect()
    }

    /// Returns the non-empty texts of the turn's model calls, in their order.
    pub fn texts(&self) -> Vec<String> {
        let texts = self.events.iter().filter_map(|recorded| match &recorded.event {
            Event::TurnModelReplied(e) => Some(e.text.trim_end().to_owned()),
            Event::TurnCompleted(e) if e.call.is_some() => Some(e.response.text()),
            _ => None,
        });
        texts.filter(|text| !text.is_empty()).collect()
    }
}

fn is_terminal(event: &Event) -> bool {
    matches!(event, Event::TurnCompleted(_) | Event::TurnFailed(_) | Event::TurnCancelled(_))
}
