//! Which gateway is asked for whom: one address, and a key for each organisation that has one.

use crate::{model::Gateway, secrets::Secrets};

/// The gateway and the keys for it.
#[derive(Clone, Default)]
pub struct Gateways {
    /// The gateway, with the worker's own key if it has one. `None`: no address is configured.
    pub gateway: Option<Gateway>,
    pub has_own_key: bool,
    pub secrets: Secrets,
}

impl Gateways {
    /// The gateway for an organisation's turn: with the secret that its agent names, else with the worker's own key. A name
    /// that leads to nothing is no reason to use another key. The secret is read anew for each turn, so that it may change.
    pub(super) async fn of(&self, org: &str, secret: Option<&str>) -> Option<Gateway> {
        let gateway = self.gateway.as_ref()?;
        let Some(name) = secret else { return self.has_own_key.then(|| gateway.clone()) };
        let Some(key) = self.secrets.find(org, name).await else {
            tracing::error!(org, name, "the organisation has no such secret");
            return None;
        };
        gateway.with_key(&key).inspect_err(|error| tracing::error!(org, name, %error, "a secret is no key")).ok()
    }

    /// The organisations whose turns can be answered; `*` = all.
    pub(super) fn orgs(&self) -> Vec<String> {
        match (&self.gateway, self.has_own_key) {
            (None, _) => vec![],
            (Some(_), true) => vec!["*".into()],
            (Some(_), false) => self.secrets.orgs().into_iter().collect(),
        }
    }
}
