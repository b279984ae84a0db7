//! Widgets: which pages may open sessions with an agent, and on whose behalf.
//!
//! - [`policy`]: what a policy says.   - [`origin`]: pages.   - [`context`]: a host's word about who its user is.
//! - [`source`]: where policies come from.
//!
//! A policy is looked up by the agent's id, which any visitor may name. While its source fails, the last policy that it gave
//! holds for a bounded time; an agent of which it gave none counts as having no policy, and strictness refuses those.

mod context;
pub mod origin;
mod policy;
mod source;

use serde_json::Value;

pub use context::Proof;
pub use policy::WidgetPolicy;
pub use source::{Service, Source, SourceError};

/// Why a session is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WidgetRefusal {
    #[error("no policy names this agent")]
    NotAuthorized,
    #[error("the page's origin is not allowed")]
    Origin,
    #[error("the host's word about its user does not hold")]
    Context,
}

/// What a session is opened with.
#[derive(Debug, Default, PartialEq)]
pub struct Admitted {
    /// The organisation that the session belongs to, whatever else says.
    pub org: Option<String>,
    /// What the host has proved of its user. It may be used once.
    pub proof: Option<Proof>,
}

/// Decides about sessions.
#[derive(Default)]
pub struct Widgets {
    sources: Vec<Source>,
    strict: bool,
}

impl Widgets {
    /// The first source that has a policy for an agent says it. `strict`: an agent without a policy is refused.
    pub fn new(sources: Vec<Source>, strict: bool) -> Self {
        Self { sources, strict }
    }

    /// Whether policies decide at all.
    pub fn is_configured(&self) -> bool {
        self.strict || self.sources.iter().any(Source::is_configured)
    }

    /// Whether a page of this origin may use sessions of this agent.
    pub async fn allows(&self, agent: &str, origin: Option<&str>) -> bool {
        match self.policy(agent).await {
            Some(policy) => origin::is_allowed(&policy.allowed_origins, origin),
            None => !self.strict,
        }
    }

    /// Whether a session with this agent may be opened from a page of this origin. `agent` is `None` when none was named;
    /// `context` is what stands in `authContext`, if anything does. `now` is in seconds of the Unix clock.
    pub async fn admit(
        &self,
        agent: Option<&str>,
        origin: Option<&str>,
        context: Option<&Value>,
        now: i64,
    ) -> Result<Admitted, WidgetRefusal> {
        let policy = match agent {
            Some(agent) => self.policy(agent).await,
            None => None,
        };
        let Some(policy) = policy else {
            return if self.strict { Err(WidgetRefusal::NotAuthorized) } else { Ok(Admitted::default()) };
        };
        if !origin::is_allowed(&policy.allowed_origins, origin) {
            return Err(WidgetRefusal::Origin);
        }
        let proof = match context {
            Some(context) => {
                let proof = context::verify(context, policy.public_key.as_deref(), now);
                Some(proof.ok_or(WidgetRefusal::Context)?)
            }
            None => None,
        };
        Ok(Admitted { org: policy.organization_id, proof })
    }

    async fn policy(&self, agent: &str) -> Option<WidgetPolicy> {
        for source in &self.sources {
            if let Some(policy) = source.policy(agent).await {
                return Some(policy);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
