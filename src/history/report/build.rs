//! Builds the report from a conversation's events.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    ConversationReport, ReportConfiguration, ReportEvent, ReportSession, ReportStepKind, ReportTotals, ReportTurn,
    turns::{self, FoldedEvent},
};
use crate::{
    agents::AgentConfig,
    domain::{
        Conversation, Event as Happened,
        event::{AgentVersion, Usage},
    },
    history::{
        message_view::MessageView,
        view::{ChainVerification, EventView},
    },
    subjects::ConversationKey,
    wire::stored,
};

/// Configuration versions; `None` = the version was not found.
pub type Configurations = Vec<(AgentVersion, Option<AgentConfig>)>;

/// The input of a report.
pub struct ReportMaterial<'a> {
    pub key: &'a ConversationKey,
    /// All events of the conversation, in order.
    pub events: &'a [MessageView],
    pub chain: ChainVerification,
    pub configurations: Configurations,
    pub made_at: DateTime<Utc>,
}

/// Returns the versions of agents' configurations that the turns of a conversation name.
pub fn versions(events: &[MessageView]) -> Vec<AgentVersion> {
    let named = events.iter().filter_map(|seen| match &seen.event.as_ref().ok()?.recorded.event {
        Happened::TurnRequested(e) => e.agent_config.clone(),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    named.filter(|version| seen.insert((version.agent.clone(), version.revision))).collect()
}

pub fn build(material: ReportMaterial<'_>) -> ConversationReport {
    let ReportMaterial { key, events, chain, configurations, made_at } = material;
    let (state, told) = fold(events);
    let sessions = sessions(&told);
    let names: HashMap<Uuid, String> = sessions.iter().map(|known| (known.session, known.user.clone())).collect();
    let turns = turns::turns(&told, &names);
    let time = |seen: &MessageView| seen.event.as_ref().map_or(seen.raw.stored_at, |stored| stored.recorded.time);
    ConversationReport {
        conversation: key.conversation,
        region: key.region.clone(),
        organisation: key.org.clone(),
        title: state.shown_title().to_string(),
        owner: state.owner.clone(),
        is_erased: state.erased,
        agent_id: state.agent_id.clone(),
        begun_at: events.first().map_or(made_at, time),
        last_at: events.last().map_or(made_at, time),
        made_at,
        totals: totals(&turns),
        chain,
        sessions,
        configurations: configurations
            .into_iter()
            .map(|(version, config)| ReportConfiguration { version, config })
            .collect(),
        turns,
        events: events.iter().map(line).collect(),
    }
}

/// Folds the events, and marks those that changed the state.
fn fold(events: &[MessageView]) -> (Conversation, Vec<FoldedEvent<'_>>) {
    let (mut state, mut told) = (Conversation::default(), Vec::new());
    for stored in events.iter().filter_map(|seen| seen.event.as_ref().ok()) {
        let mut next = state.clone();
        next.evolve(&stored.recorded);
        state.last_seq = next.last_seq;
        state.last_digest = next.last_digest;
        told.push(FoldedEvent { recorded: &stored.recorded, had_effect: state != next });
        state = next;
    }
    (state, told)
}

fn sessions(told: &[FoldedEvent]) -> Vec<ReportSession> {
    let mut sessions: Vec<ReportSession> = Vec::new();
    for FoldedEvent { recorded, .. } in told {
        match &recorded.event {
            Happened::SessionOpened(e) => sessions.push(ReportSession {
                session: e.session,
                seq: recorded.seq,
                opened_at: recorded.time,
                user: e.user.name.clone(),
                user_id: e.user.id,
                email: e.user_email.clone(),
                agent: e.agent.name.clone(),
                agent_id: e.agent_id.clone(),
                identified_at: None,
            }),
            Happened::SessionIdentified(e) => {
                if let Some(known) = sessions.iter_mut().find(|known| known.session == e.session) {
                    known.identified_at = Some(recorded.time);
                }
            }
            _ => {}
        }
    }
    sessions
}

fn totals(turns: &[ReportTurn]) -> ReportTotals {
    let count = |wanted: fn(&ReportStepKind) -> bool| {
        turns.iter().flat_map(|turn| &turn.steps).filter(|step| step.had_effect && wanted(&step.what)).count()
    };
    let completed = count(|what| matches!(what, ReportStepKind::Completed(_)));
    let usages = turns.iter().filter_map(|turn| turn.usage);
    ReportTotals {
        turns: turns.iter().filter(|turn| !turn.is_void).count(),
        completed,
        failed: count(|what| matches!(what, ReportStepKind::Failed(_))),
        cancelled: count(|what| matches!(what, ReportStepKind::Cancelled { .. })),
        model_calls: completed + count(|what| matches!(what, ReportStepKind::ModelReplied(_))),
        tool_calls: count(|what| matches!(what, ReportStepKind::ToolCalled(_))),
        asked: count(|what| matches!(what, ReportStepKind::Asked(_))),
        usage: usages.reduce(Usage::plus),
    }
}

fn line(seen: &MessageView) -> ReportEvent {
    let view = EventView::from(seen);
    let header = |name: &str| seen.raw.headers.get(name).cloned().unwrap_or_default();
    ReportEvent {
        seq: view.seq,
        time: view.time,
        id: header(stored::CE_ID),
        kind: view.kind,
        source: view.source,
        words: view.words,
        prev: header(stored::CE_PREV),
        digest: view.digest,
    }
}
