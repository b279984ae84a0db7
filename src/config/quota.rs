//! Quotas of connections, sessions and organisations.

use std::{collections::HashMap, fmt};

use super::{ConfigError, parsed, wrong};

/// Message times kept in a conversation's state, and so the most that can be counted.
const SESSION_MESSAGES_MAX: u64 = 25;
/// Turns of an organisation that can be counted in one request.
const ORG_TURNS_MAX: u64 = 500;

/// Default of one-time passwords an hour for an organisation.
const ORG_CODES: u64 = 1_000;

/// The quotas. An absent quota costs no counting.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotas {
    /// Messages a minute over one connection; 0 = any number.
    pub connection_messages: u64,
    /// Sessions, names and page requests a minute, over one connection and from one address; 0 = any number.
    pub connection_writes: u64,
    pub address_writes: u64,
    /// One-time passwords an hour on behalf of one group of addresses, and of an organisation.
    pub address_codes: u64,
    pub org_codes: PerOrg,
    /// Messages a minute in one conversation, over all its sessions.
    pub session_messages: PerOrg,
    /// Messages a minute, turns at once, tokens a day, connections of an organisation, on all edges together.
    pub org_messages: PerOrg,
    pub org_turns: PerOrg,
    pub org_tokens: PerOrg,
    pub org_connections: PerOrg,
    /// Connections from one address, and sessions it opens in a minute, on all edges together.
    pub address_connections: Option<u64>,
    pub address_sessions: Option<u64>,
    /// Number of proxies in front, each of which adds an address to `X-Forwarded-For`.
    pub proxies: usize,
}

/// A number for all organisations, and other numbers for some.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PerOrg {
    all: Option<u64>,
    some: HashMap<String, u64>,
}

impl PerOrg {
    /// Returns the number of an organisation.
    pub fn of(&self, org: &str) -> Option<u64> {
        self.some.get(org).copied().or(self.all)
    }

    /// Returns true if any organisation has a number.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Returns the least number of any organisation.
    pub fn min(&self) -> Option<u64> {
        self.some.values().copied().chain(self.all).min()
    }

    fn max(&self) -> u64 {
        self.some.values().copied().chain(self.all).max().unwrap_or_default()
    }
}

impl Default for Quotas {
    fn default() -> Self {
        read(&|_| None).expect("the defaults are valid; a test reads them")
    }
}

/// Reads the settings that begin with `SMOOTH_AGENT_LIMIT`.
pub fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<Quotas, ConfigError> {
    let number = |name: &'static str| super::optional(text, name, "a number");
    let quotas = Quotas {
        connection_messages: parsed(text, "SMOOTH_AGENT_LIMIT_CONNECTION_MESSAGES", "a number", || 3_000)?,
        connection_writes: parsed(text, "SMOOTH_AGENT_LIMIT_CONNECTION_WRITES", "a number", || 600)?,
        address_writes: parsed(text, "SMOOTH_AGENT_LIMIT_ADDRESS_WRITES", "a number", || 6_000)?,
        address_codes: parsed(text, "SMOOTH_AGENT_LIMIT_ADDRESS_CODES", "a number", || 30)?,
        org_codes: match per_org(text, "SMOOTH_AGENT_LIMIT_ORG_CODES")? {
            unset if !unset.is_set() => PerOrg { all: Some(ORG_CODES), ..unset },
            set => set,
        },
        session_messages: per_org(text, "SMOOTH_AGENT_LIMIT_SESSION_MESSAGES")?,
        org_messages: per_org(text, "SMOOTH_AGENT_LIMIT_ORG_MESSAGES")?,
        org_turns: per_org(text, "SMOOTH_AGENT_LIMIT_ORG_TURNS")?,
        org_tokens: per_org(text, "SMOOTH_AGENT_LIMIT_ORG_TOKENS")?,
        org_connections: per_org(text, "SMOOTH_AGENT_LIMIT_ORG_CONNECTIONS")?,
        address_connections: number("SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS")?,
        address_sessions: number("SMOOTH_AGENT_LIMIT_ADDRESS_SESSIONS")?,
        proxies: parsed(text, "SMOOTH_AGENT_PROXIES", "a number", || 0)?,
    };
    let bounded = |name, quota: &PerOrg, max| match quota.max() > max {
        true => Err(wrong(name, format!("at most {max} can be counted"))),
        false => Ok(()),
    };
    bounded("SMOOTH_AGENT_LIMIT_SESSION_MESSAGES", &quotas.session_messages, SESSION_MESSAGES_MAX)?;
    bounded("SMOOTH_AGENT_LIMIT_ORG_TURNS", &quotas.org_turns, ORG_TURNS_MAX)?;
    Ok(quotas)
}

/// Parses `100`, `acme=500`, or both, comma-separated.
pub(super) fn per_org(text: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<PerOrg, ConfigError> {
    let mut quota = PerOrg::default();
    let list = text(name).unwrap_or_default();
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (org, number) = entry.rsplit_once('=').map_or((None, entry), |(org, number)| (Some(org.trim()), number));
        let number = number.trim().parse();
        match (org, number) {
            (None, Ok(number)) if quota.all.is_none() => quota.all = Some(number),
            (Some(org), Ok(number)) if !org.is_empty() => drop(quota.some.insert(org.to_string(), number)),
            _ => return Err(wrong(name, format!("`{entry}` is neither a number nor `organisation=number`"))),
        }
    }
    Ok(quota)
}

impl fmt::Display for PerOrg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut some: Vec<String> = self.some.iter().map(|(org, number)| format!("{org}={number}")).collect();
        some.sort();
        let all: Vec<String> = self.all.iter().map(u64::to_string).chain(some).collect();
        write!(f, "{}", if all.is_empty() { "unset".into() } else { all.join(",") })
    }
}

impl fmt::Display for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |number: &Option<u64>| number.map_or("unset".into(), |number| number.to_string());
        writeln!(f, "SMOOTH_AGENT_LIMIT_CONNECTION_MESSAGES={}", self.connection_messages)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_CONNECTION_WRITES={}", self.connection_writes)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ADDRESS_WRITES={}", self.address_writes)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ADDRESS_CODES={}", self.address_codes)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ORG_CODES={}", self.org_codes)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_SESSION_MESSAGES={}", self.session_messages)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ORG_MESSAGES={}", self.org_messages)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ORG_TURNS={}", self.org_turns)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ORG_TOKENS={}", self.org_tokens)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ORG_CONNECTIONS={}", self.org_connections)?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS={}", shown(&self.address_connections))?;
        writeln!(f, "SMOOTH_AGENT_LIMIT_ADDRESS_SESSIONS={}", shown(&self.address_sessions))?;
        write!(f, "SMOOTH_AGENT_PROXIES={}", self.proxies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_applies_to_all_and_may_differ_by_organisation() {
        let read = |value: &str| per_org(&|_| Some(value.into()), "X").ok();
        let quota = read("100, acme=5, a=b=7").unwrap();
        assert_eq!([quota.of("acme"), quota.of("a=b"), quota.of("other")], [Some(5), Some(7), Some(100)]);
        assert_eq!(read("acme=0").unwrap().of("other"), None);
        assert!(!read(" ").unwrap().is_set());
        for wrong in ["many", "1,2", "=3", "acme=", "acme=-1", "acme"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(Quotas::default().connection_messages, 3_000);
    }
}
