//! The endings of a model's reply.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ending of a model's reply, with the provider's word for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplyEnd {
    pub ending: Ending,
    /// As given by the gateway; absent = it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// The times of a model call; the event's own time is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplyTiming {
    /// The time at which the request was made, by the worker's clock.
    pub asked_at: DateTime<Utc>,
    /// From the request to the first text, reasoning included; absent = there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
}

/// The way a model's reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model finished its reply.
    Whole,
    /// The reply hit a length limit, or the provider failed in the middle.
    Cut,
    /// A content filter stopped the reply.
    Filtered,
    /// The model refused, in its own words.
    Refused,
    /// The gateway ended the reply in order and gave no reason.
    Unmarked,
    /// A reason that this program does not know.
    #[serde(other)]
    Other,
}

impl Ending {
    /// Returns whether the reply's tool calls may be made: arguments of a cut reply can parse by chance.
    pub fn allows_calls(self) -> bool {
        self == Self::Whole
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Cut => "cut off",
            Self::Filtered => "stopped by a content filter",
            Self::Refused => "a refusal",
            Self::Unmarked => "without a finish reason",
            Self::Other => "in a way that is not known here",
        }
    }
}
