//! Parts of an answer: stored in events and sent to clients unchanged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens and cost of model calls, as reported by the gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Tokens of the prompt that the provider had in its cache; absent = not reported, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// Tokens of the completion that are reasoning; absent = not reported, or the event is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl Usage {
    /// Adds two reports; a part that is not always reported is known if at least one report has it.
    pub fn plus(self, other: Usage) -> Usage {
        let tokens = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        Usage {
            cached_tokens: tokens(self.cached_tokens, other.cached_tokens),
            reasoning_tokens: tokens(self.reasoning_tokens, other.reasoning_tokens),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cost_usd: match (self.cost_usd, other.cost_usd) {
                (None, None) => None,
                (a, b) => Some(a.unwrap_or(0.0) + b.unwrap_or(0.0)),
            },
        }
    }

    /// Returns the part of this total that `earlier` does not hold.
    pub fn minus(self, earlier: Usage) -> Usage {
        let tokens = |all: Option<u64>, earlier: Option<u64>| {
            all.map(|all| all.saturating_sub(earlier.unwrap_or_default())).filter(|left| *left > 0 || earlier.is_none())
        };
        let cost = |all: f64| (all - earlier.cost_usd.unwrap_or(0.0)).max(0.0);
        Usage {
            prompt_tokens: self.prompt_tokens.saturating_sub(earlier.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_sub(earlier.completion_tokens),
            cached_tokens: tokens(self.cached_tokens, earlier.cached_tokens),
            reasoning_tokens: tokens(self.reasoning_tokens, earlier.reasoning_tokens),
            cost_usd: self.cost_usd.map(cost),
        }
    }
}

/// A document that grounded an answer; also the wire form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Citation {
    pub id: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub snippet: String,
    pub score: f64,
}

/// The structured answer; also the wire form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Response {
    pub response_parts: Vec<String>,
    pub customer_happiness_score: f64,
    pub needs_satisfaction_score: f64,
    pub request_summary: String,
    pub resolution_status: ResolutionStatus,
    pub suggested_next_actions: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolutionStatus {
    Resolved,
    InProgress,
    RequiresEscalation,
    NeedsMoreInfo,
    Blocked,
}

impl Response {
    /// Returns an answer with neutral scores, for agents that state nothing but the text.
    pub fn plain(text: String) -> Self {
        Self {
            response_parts: vec![text],
            customer_happiness_score: 0.5,
            needs_satisfaction_score: 0.5,
            request_summary: String::new(),
            resolution_status: ResolutionStatus::InProgress,
            suggested_next_actions: Vec::new(),
        }
    }

    /// Returns the answer as one text.
    pub fn text(&self) -> String {
        self.response_parts.join("\n\n")
    }
}

/// The outcome of a wait for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    Approved,
    /// The form was filled in.
    Submitted,
    Declined,
    /// No decision came in time; an approval then counts as declined.
    Expired,
}
