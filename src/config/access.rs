//! Rights of visitors without proof of identity, and the pages that they may come from.

use std::{fmt, net::IpAddr};

use super::{ConfigError, parsed, patterns, wrong};

#[derive(Clone, Debug, PartialEq)]
pub struct AccessConfig {
    /// Origins of pages, besides loopback ones, that may connect to an edge on a loopback address.
    pub origins: Vec<String>,
    /// Host names, besides loopback ones, of such an edge.
    pub hosts: Vec<String>,
    /// Every visitor sees all conversations of the organisation. `None` = only on a loopback address, without tokens and
    /// without policies of widgets.
    pub everybody_sees_all: Option<bool>,
    /// Models that a message may name, besides those of its agent; `*` = any.
    pub models: Vec<String>,
    /// Interval of pings to a silent client.
    pub ping_secs: u32,
    /// Longest time of a connection without a session.
    pub session_wait_secs: u32,
}

/// Reads the settings of visitors' rights.
pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<AccessConfig, ConfigError> {
    const ORIGINS: &str = "SMOOTH_AGENT_ALLOWED_ORIGINS";
    let list = |name: &str| {
        let list = text(name).unwrap_or_default();
        list.split(',').map(|entry| entry.trim().to_string()).filter(|entry| !entry.is_empty()).collect::<Vec<_>>()
    };
    let origins = list(ORIGINS);
    let is_origin =
        |origin: &&String| *origin == "*" || origin.starts_with("http://") || origin.starts_with("https://");
    if let Some(wrong_one) = origins.iter().find(|origin| !is_origin(origin)) {
        return Err(wrong(ORIGINS, format!("`{wrong_one}` is not an origin such as https://shop.example")));
    }
    let everybody_sees_all = match text("SMOOTH_AGENT_EVERYBODY_SEES_ALL").map(|value| value.to_ascii_lowercase()) {
        None => None,
        Some(value) if ["1", "true", "yes"].contains(&value.as_str()) => Some(true),
        Some(value) if ["0", "false", "no"].contains(&value.as_str()) => Some(false),
        Some(value) => {
            return Err(wrong("SMOOTH_AGENT_EVERYBODY_SEES_ALL", format!("`{value}` is neither true nor false")));
        }
    };
    Ok(AccessConfig {
        origins,
        hosts: patterns(text("SMOOTH_AGENT_ALLOWED_HOSTS")),
        everybody_sees_all,
        models: list("SMOOTH_AGENT_MODELS"),
        ping_secs: parsed(text, "SMOOTH_AGENT_PING_SECS", "a number of seconds", || 25)?,
        session_wait_secs: parsed(text, "SMOOTH_AGENT_SESSION_WAIT_SECS", "a number of seconds", || 60)?,
    })
}

impl fmt::Display for AccessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "SMOOTH_AGENT_ALLOWED_ORIGINS={}", self.origins.join(","))?;
        writeln!(f, "SMOOTH_AGENT_ALLOWED_HOSTS={}", self.hosts.join(","))?;
        let sees_all = self.everybody_sees_all.map_or("unset".into(), |sees_all| sees_all.to_string());
        writeln!(f, "SMOOTH_AGENT_EVERYBODY_SEES_ALL={sees_all}")?;
        writeln!(f, "SMOOTH_AGENT_MODELS={}", self.models.join(","))?;
        writeln!(f, "SMOOTH_AGENT_PING_SECS={}", self.ping_secs)?;
        write!(f, "SMOOTH_AGENT_SESSION_WAIT_SECS={}", self.session_wait_secs)
    }
}

/// Warns about settings that are valid and unsafe together; `config check` prints the warnings, and an edge logs them.
pub(super) fn warnings(access: &AccessConfig, bind: IpAddr, tokens: bool, administrates: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if access.everybody_sees_all == Some(true) {
        warnings.push(
            "SMOOTH_AGENT_EVERYBODY_SEES_ALL: any visitor lists and reads every conversation of its organisation"
                .into(),
        );
    }
    if !bind.is_loopback() && !tokens {
        warnings.push(format!(
            "SMOOTH_AGENT_BIND={bind} is reachable from other machines and no tokens are verified: visitors are anonymous, \
             and a session's id is enough to use it"
        ));
    }
    if administrates && !bind.is_loopback() {
        warnings.push("SMOOTH_AGENT_AUTH_MODE=none: every client of this port administrates AUTH_DEV_ORG_ID".into());
    }
    warnings
}
