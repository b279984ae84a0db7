//! How a model's reply ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a model's reply ended, and the word of its provider for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplyEnd {
    pub ending: Ending,
    /// As the gateway gave it; absent = it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
}

/// How a model's reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model had said all.
    Whole,
    /// At a limit of its length, or because something broke at the provider.
    Cut,
    /// A filter stopped it.
    Filtered,
    /// The model refused, in its own words.
    Refused,
    /// The gateway ended it in order and gave no reason.
    Unmarked,
    /// In a way that this program does not know.
    #[serde(other)]
    Other,
}

impl Ending {
    /// Whether calls of the reply may be made: arguments can parse by chance though more was to come.
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
