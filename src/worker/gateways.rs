//! The model gateway of an organisation: one address, and a key for each organisation that has one.

use crate::{model::Gateway, secrets::Secrets};

/// The gateway and its keys.
#[derive(Clone, Default)]
pub struct OrgGateways {
    /// The gateway, with the worker's own key if configured. `None`: no address is configured.
    pub gateway: Option<Gateway>,
    pub has_own_key: bool,
    pub secrets: Secrets,
}

impl OrgGateways {
    /// Returns the gateway for an organisation's turn: with the secret that its agent names, else with the worker's own
    /// key.
    ///
    /// A missing secret is not replaced by another key. The secret is read for each turn, so that it may change.
    pub(super) async fn of(&self, org: &str, secret: Option<&str>) -> Option<Gateway> {
        let gateway = self.gateway.as_ref()?;
        let Some(name) = secret else { return self.has_own_key.then(|| gateway.clone()) };
        let Some(key) = self.secrets.find(org, name).await else {
            tracing::error!(org, name, "the organisation's gateway secret is missing");
            return None;
        };
        gateway
            .with_key(&key)
            .inspect_err(
                |error| tracing::error!(org, name, %error, "the organisation's gateway secret is not a valid key"),
            )
            .ok()
    }

    /// Returns the organisations with a usable key; `*` = all.
    pub(super) fn orgs(&self) -> Vec<String> {
        match (&self.gateway, self.has_own_key) {
            (None, _) => vec![],
            (Some(_), true) => vec!["*".into()],
            (Some(_), false) => self.secrets.orgs().into_iter().collect(),
        }
    }
}
