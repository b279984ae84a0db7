//! Events in words, one line each.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::{
    domain::{
        Event,
        event::{CancelReason, Ending, Prompt, ReplyEnd, Resolution},
    },
    log::StoredEvent,
};

/// Longest excerpt of a text in a line.
const EXCERPT_CHARS: usize = 160;

/// Formats events as lines.
#[derive(Default)]
pub struct Timeline {
    /// The time of each conversation's first event.
    begun: HashMap<Uuid, DateTime<Utc>>,
    names_conversations: bool,
}

impl Timeline {
    /// Creates a timeline over several conversations, with lines that name theirs.
    pub fn of_several() -> Self {
        Self { names_conversations: true, ..Self::default() }
    }

    /// Formats the next event: its time, the time since the first event, its writer, and a description.
    pub fn line(&mut self, stored: &StoredEvent) -> String {
        let recorded = &stored.recorded;
        let conversation = stored.envelope.conversation;
        let since = recorded.time - *self.begun.entry(conversation).or_insert(recorded.time);
        let at = recorded.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        let seconds = since.num_milliseconds() as f64 / 1_000.0;
        let writer = stored.envelope.source.split('/').nth(2).unwrap_or(&stored.envelope.source);
        let named = if self.names_conversations { format!("{conversation}  ") } else { String::new() };
        format!("{at}  +{seconds:>9.3} s  #{:<8} {named}{writer:<7} {}", recorded.seq, words(&recorded.event))
    }
}

/// Describes an event in one line.
pub fn words(event: &Event) -> String {
    match event {
        Event::SessionOpened(e) => format!("{} opens session {} with {}", e.user.name, e.session, e.agent.name),
        Event::SessionIdentified(e) => format!("the visitor of session {} proved their identity", e.session),
        Event::ConversationRenamed(e) => format!("the conversation is called {}", quoted(&e.title)),
        Event::TurnRequested(e) => {
            let config = e.agent_config.as_ref().map(|c| format!(", agent {} revision {}", c.agent, c.revision));
            let skill = e.skill.as_ref().map(|skill| format!(", skill {}", skill.name));
            let asker = e.asker.as_ref().map(|asker| format!(" (user {})", asker.user));
            let more = [config, skill].into_iter().flatten().collect::<String>();
            format!("{}{} asks {}{more}", e.user.name, asker.unwrap_or_default(), quoted(&e.message))
        }
        Event::TurnStarted(e) => format!("worker {} takes the turn", e.worker),
        Event::TurnReleased(e) => match e.shown.as_ref().map(|shown| shown.rest.as_str()) {
            Some(text) if !text.is_empty() => format!("the worker lets go of the turn, having shown {}", quoted(text)),
            _ => "the worker lets go of the turn".into(),
        },
        Event::TurnModelReplied(e) => {
            let calls: Vec<String> = e.calls.iter().map(|c| format!("{}({})", c.name, excerpt(&c.arguments))).collect();
            let model = e.model.as_deref().unwrap_or("the model");
            let ended = ended(e.ended.as_ref());
            format!("{model} says {} and calls {}{ended}", quoted(&e.text), calls.join(", "))
        }
        Event::TurnToolCalled(e) => format!("{} is called", e.name),
        Event::TurnToolReturned(e) => {
            let verb = if e.is_error { "fails" } else { "returns" };
            format!("{} {verb}: {}", e.name, quoted(&e.result))
        }
        Event::TurnParked(e) => match &e.prompt {
            Prompt::Approval { description, .. } => format!("waits for approval of {}", quoted(description)),
            Prompt::Interaction { form, reason, .. } | Prompt::Elicitation { form, reason, .. } => {
                format!("asks the visitor ({}): {}", form.kind(), quoted(reason))
            }
            Prompt::Task { tool, .. } => format!("waits for a task of {tool}"),
        },
        Event::TurnResumed(e) => {
            let by = e.by.map_or_else(|| "the deadline".to_string(), |session| format!("session {session}"));
            let what = match e.resolution {
                Resolution::Approved => "approved",
                Resolution::Submitted => "answered",
                Resolution::Declined => "declined",
                Resolution::Expired => "expired",
            };
            format!("{what} by {by}")
        }
        Event::TurnCompleted(e) => {
            let sources: Vec<&str> = e.citations.iter().map(|citation| citation.title.as_str()).collect();
            let sources = if sources.is_empty() { String::new() } else { format!(", from {}", sources.join(", ")) };
            let cost = e.usage.and_then(|usage| usage.cost_usd).map(|cost| format!(", {cost} USD"));
            let (answer, ended) = (quoted(&e.response.text()), ended(e.ended.as_ref()));
            format!("{} answers {answer}{ended}{sources}{}", e.agent.name, cost.unwrap_or_default())
        }
        Event::TurnFailed(e) => format!("the turn fails ({:?}): {}", e.reason, excerpt(&e.detail)),
        Event::TurnCancelled(e) => match e.reason {
            None | Some(CancelReason::Other) => format!("session {} cancels the turn", e.by),
            Some(CancelReason::Superseded) => format!("session {} sends a new message instead of an answer", e.by),
            Some(CancelReason::NoWorker) => "the turn ends: no worker was available".into(),
            Some(CancelReason::Operator) => "an operator ends the turn".into(),
        },
        Event::Erased(kind) => format!("{kind}, content erased"),
        Event::Unreadable(e) => format!("{} can't be decoded and is skipped: {}", quoted(&e.name), excerpt(&e.detail)),
    }
}

/// Describes the ending of a reply that was not whole.
fn ended(ended: Option<&ReplyEnd>) -> String {
    match ended.map(|ended| ended.ending) {
        None | Some(Ending::Whole) => String::new(),
        Some(ending) => format!(" [{}]", ending.words()),
    }
}

fn quoted(text: &str) -> String {
    format!("“{}”", excerpt(text))
}

/// Returns the beginning of a text on one line, without control characters that could move a terminal's cursor.
fn excerpt(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut plain: String = plain.take(EXCERPT_CHARS + 1).collect();
    if plain.chars().count() > EXCERPT_CHARS {
        plain.pop();
        plain.push('…');
    }
    plain
}
