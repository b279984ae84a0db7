//! A model's answer: its reply in the stored form, and its usage.

use crate::{
    domain::event::{Citation, Ending, ReplyEnd, Usage},
    model::{self, ModelReply},
};

/// The result of a model call.
pub(super) struct ModelAnswer {
    pub reply: ModelReply,
    pub suggestions: Vec<String>,
    pub grounding: Vec<Citation>,
    /// Ids of calls for which an agent demands approval.
    pub confirms: Vec<String>,
}

/// Returns the stored form of a reply's ending.
pub(super) fn ended(reply: &ModelReply) -> ReplyEnd {
    let ending = match reply.ending {
        model::FinishReason::Whole => Ending::Whole,
        model::FinishReason::Cut => Ending::Cut,
        model::FinishReason::Filtered => Ending::Filtered,
        model::FinishReason::Refused => Ending::Refused,
        model::FinishReason::Unmarked => Ending::Unmarked,
    };
    ReplyEnd { ending, finish_reason: reply.finish_reason.clone() }
}

/// Returns the last line of an incomplete answer.
pub(super) fn notice(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::Cut => Some("(This answer was cut off before its end.)"),
        Ending::Filtered => Some("(This answer was stopped by a content filter.)"),
        Ending::Whole | Ending::Refused | Ending::Unmarked | Ending::Other => None,
    }
}

/// Adds two usage reports.
pub(super) fn add(a: Option<Usage>, b: Option<Usage>) -> Option<Usage> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    }
}

pub(super) fn usage(usage: crate::model::TokenUsage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cached_tokens: usage.cached_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        cost_usd: usage.cost_usd,
    }
}
