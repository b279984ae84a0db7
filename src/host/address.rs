//! The address of an agent: `exec:COMMAND` or an HTTP URL.

use std::{fmt, str::FromStr};

use url::Url;

/// Where an agent is.
#[derive(Clone, PartialEq)]
pub enum AgentAddress {
    /// A server: one POST for each step.
    Http(Url),
    /// A program and its arguments: one process for each step.
    Exec(Vec<String>),
}

/// An address that can't be understood.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("an agent is `exec:COMMAND` or an http or https URL")]
pub struct AgentAddressError;

impl FromStr for AgentAddress {
    type Err = AgentAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(command) = text.strip_prefix("exec:") {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            return if words.is_empty() { Err(AgentAddressError) } else { Ok(Self::Exec(words)) };
        }
        let url = Url::parse(text).map_err(|_| AgentAddressError)?;
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        if is_http { Ok(Self::Http(url)) } else { Err(AgentAddressError) }
    }
}

impl fmt::Display for AgentAddress {
    /// Formats the address without the password, the path and the query of a URL, and without a command's arguments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => {
                write!(f, "{}://{}", url.scheme(), url.authority().rsplit('@').next().unwrap_or_default())
            }
            Self::Exec(words) => write!(f, "exec:{}", words[0]),
        }
    }
}

impl fmt::Debug for AgentAddress {
    /// Formats the address as [`fmt::Display`] does, since a log may print either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_command_or_a_url() {
        let exec = "exec:python3 agent.py --fast".parse::<AgentAddress>().unwrap();
        assert_eq!(exec, AgentAddress::Exec(["python3", "agent.py", "--fast"].map(str::to_owned).to_vec()));
        assert!("http://127.0.0.1:9000/step".parse::<AgentAddress>().is_ok());
        for wrong in ["", "exec:", "exec:  ", "nats:agent.a", "ftp://a", "http://", "agent.py", "http:127"] {
            let parsed = wrong.parse::<AgentAddress>();
            assert!(parsed.is_err() || wrong == "http:127", "{wrong}");
        }
    }

    #[test]
    fn no_secret_of_an_address_prints() {
        let printed = |text: &str| text.parse::<AgentAddress>().unwrap().to_string();
        assert_eq!(printed("https://user:secret@agents.example:8443/secret?key=secret"), "https://agents.example:8443");
        assert_eq!(printed("exec:agent --key secret"), "exec:agent");
    }
}
