//! Widgets: the pages that may open sessions with an agent, and the users that their hosts vouch for.
//!
//! - [`policy`]: the policy of an agent.   - [`origin`]: pages.   - [`context`]: a host's assertion about its user.
//! - [`source`]: sources of policies.
//!
//! A policy is looked up by the agent's id, which any visitor may name. While its source fails, the last policy that it gave
//! holds for a bounded time; an agent of which it gave none counts as having no policy, and strictness refuses those.

mod context;
pub mod origin;
mod policy;
mod source;

use serde_json::Value;

pub use context::HostProof;
pub use policy::WidgetPolicy;
pub use source::{PolicyService, PolicySource, PolicySourceError};

/// The reason why a session is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WidgetRefusal {
    #[error("no policy names this agent")]
    NotAuthorized,
    #[error("the page's origin is not allowed")]
    Origin,
    #[error("the host's signed assertion about its user is not valid")]
    Context,
}

/// The organisation and the proof that a session is opened with.
#[derive(Debug, Default, PartialEq)]
pub struct WidgetAdmission {
    /// The organisation that the session belongs to, before any other claim to it.
    pub org: Option<String>,
    /// The host's proof of its user's identity, which may be used once.
    pub proof: Option<HostProof>,
}

/// The policies of all sources.
#[derive(Default)]
pub struct WidgetGate {
    sources: Vec<PolicySource>,
    strict: bool,
}

impl WidgetGate {
    /// Joins sources: the first one with a policy for an agent decides. `strict`: an agent without a policy is refused.
    pub fn new(sources: Vec<PolicySource>, strict: bool) -> Self {
        Self { sources, strict }
    }

    /// Returns true if policies decide at all.
    pub fn is_configured(&self) -> bool {
        self.strict || self.sources.iter().any(PolicySource::is_configured)
    }

    /// Returns true if a page of this origin may use sessions of this agent.
    pub async fn allows(&self, agent: &str, origin: Option<&str>) -> bool {
        match self.policy(agent).await {
            Some(policy) => origin::is_allowed(&policy.allowed_origins, origin),
            None => !self.strict,
        }
    }

    /// Returns the origins that the agent's policy admits, or `None` without a policy.
    pub async fn origins(&self, agent: &str) -> Option<Vec<String>> {
        Some(self.policy(agent).await?.allowed_origins)
    }

    /// Admits a session with this agent from a page of this origin, or refuses it.
    ///
    /// `agent` is `None` if none was named; `context` is the value of `authContext`, if there is one. `now` is in seconds of
    /// the Unix clock.
    pub async fn admit(
        &self,
        agent: Option<&str>,
        origin: Option<&str>,
        context: Option<&Value>,
        now: i64,
    ) -> Result<WidgetAdmission, WidgetRefusal> {
        let policy = match agent {
            Some(agent) => self.policy(agent).await,
            None => None,
        };
        let Some(policy) = policy else {
            return if self.strict { Err(WidgetRefusal::NotAuthorized) } else { Ok(WidgetAdmission::default()) };
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
        Ok(WidgetAdmission { org: policy.organization_id, proof })
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
