//! The settings for operators: the operations address, metrics, the program's log.

use std::{fmt, net::SocketAddr, str::FromStr};

use super::{ConfigError, at_least_one, one_of, optional};

/// Organisations that metrics may tell apart: more would be more series than a process should have.
const METRICS_ORGS_MAX: u32 = 1_000;

#[derive(Clone, Debug, Default)]
pub struct OperationsConfig {
    /// The address of `/metrics`, `/health` and `/ready`.
    pub address: Option<OperationsAddress>,
    /// Organisations that metrics tell apart; 0 = none.
    pub metrics_orgs: u32,
    pub log: LogFormat,
}

/// `ADDRESS:PORT`, or a port on `SMOOTH_AGENT_BIND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationsAddress {
    Whole(SocketAddr),
    Port(u16),
}

impl OperationsAddress {
    pub fn at(self, bind: std::net::IpAddr) -> SocketAddr {
        match self {
            Self::Whole(address) => address,
            Self::Port(port) => SocketAddr::new(bind, port),
        }
    }
}

impl FromStr for OperationsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').unwrap_or(text).parse().map(Self::Port);
        port.or_else(|_| text.parse().map(Self::Whole)).map_err(|_| format!("`{text}` is not ADDRESS:PORT or a port"))
    }
}

impl fmt::Display for OperationsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(address) => write!(f, "{address}"),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

/// The form of the program's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of words for each entry.
    #[default]
    Text,
    /// One JSON object for each entry.
    Json,
}

impl LogFormat {
    const NAMES: [(&str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];

    /// Reads the setting before all others, which may have something to log; an invalid value is reported with them.
    pub fn from_env() -> Self {
        read_log(&|name| std::env::var(name).ok()).unwrap_or_default()
    }
}

fn read_log(text: &dyn Fn(&str) -> Option<String>) -> Result<LogFormat, ConfigError> {
    Ok(one_of(text, "SMOOTH_AGENT_LOG", &LogFormat::NAMES)?.unwrap_or_default())
}

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<OperationsConfig, ConfigError> {
    const ORGS: &str = "SMOOTH_AGENT_METRICS_ORGS";
    let metrics_orgs = match text(ORGS) {
        None => 0,
        Some(_) => at_least_one(text, ORGS, 1)?,
    };
    if metrics_orgs > METRICS_ORGS_MAX {
        return Err(super::wrong(ORGS, format!("at most {METRICS_ORGS_MAX}")));
    }
    let address = optional(text, "SMOOTH_AGENT_OPERATIONS", "ADDRESS:PORT or a port")?;
    Ok(OperationsConfig { address, metrics_orgs, log: read_log(text)? })
}

impl fmt::Display for OperationsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.map_or("unset".into(), |address| address.to_string());
        writeln!(f, "SMOOTH_AGENT_OPERATIONS={address}")?;
        writeln!(f, "SMOOTH_AGENT_METRICS_ORGS={}", self.metrics_orgs)?;
        write!(f, "SMOOTH_AGENT_LOG={}", super::name_of(&LogFormat::NAMES, &self.log))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operations_address_is_whole_or_a_port() {
        let at = |text: &str| {
            text.parse::<OperationsAddress>().map(|address| address.at([10, 0, 0, 1].into()).to_string()).ok()
        };
        for (text, expected) in [
            ("9464", Some("10.0.0.1:9464")),
            (":9464", Some("10.0.0.1:9464")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("[::]:9464", Some("[::]:9464")),
            ("localhost:9464", None),
            ("70000", None),
            ("", None),
        ] {
            assert_eq!(at(text).as_deref(), expected, "{text}");
        }
    }
}
