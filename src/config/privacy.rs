//! Privacy of content: encryption, retention, redaction.

use std::{fmt, fs};

use super::{ConfigError, PerOrg, quota::per_org, wrong};
use crate::encryption::MasterKeys;

#[derive(Clone, Default)]
pub struct PrivacyConfig {
    /// Payloads are encrypted under these keys; `None` = stored in the clear.
    pub master_keys: Option<MasterKeys>,
    /// Days after the last event for which a conversation is kept, and for which its tool calls are.
    pub retain_days: PerOrg,
    pub retain_tools_days: PerOrg,
    /// Arguments hidden from auditors: the tool's name or `*`, and the argument's name.
    pub redact: Vec<(String, String)>,
}

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<PrivacyConfig, ConfigError> {
    const KEY: &str = "SMOOTH_AGENT_MASTER_KEY";
    const FILE: &str = "SMOOTH_AGENT_MASTER_KEY_FILE";
    let keys = match (text(KEY), text(FILE)) {
        (Some(_), Some(_)) => return Err(wrong(FILE, format!("{KEY} is set, too"))),
        (Some(keys), None) => Some((KEY, keys)),
        (None, Some(file)) => {
            let keys = fs::read_to_string(&file).map_err(|error| wrong(FILE, format!("`{file}`: {error}")))?;
            Some((FILE, keys))
        }
        (None, None) => None,
    };
    let master_keys = keys.map(|(name, keys)| MasterKeys::parse(&keys).map_err(|problem| wrong(name, problem)));
    Ok(PrivacyConfig {
        master_keys: master_keys.transpose()?,
        retain_days: days(text, "SMOOTH_AGENT_RETAIN_DAYS")?,
        retain_tools_days: days(text, "SMOOTH_AGENT_RETAIN_TOOLS_DAYS")?,
        redact: redact(text)?,
    })
}

/// Reads a number of days for all organisations, and other numbers for some.
fn days(text: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<PerOrg, ConfigError> {
    let days = per_org(text, name)?;
    match days.min() {
        Some(0) => Err(wrong(name, "at least a day: turns must be over".into())),
        _ => Ok(days),
    }
}

fn redact(text: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, ConfigError> {
    const NAME: &str = "SMOOTH_AGENT_REDACT_ARGUMENTS";
    let list = text(NAME).unwrap_or_default();
    let rules = list.split(',').map(str::trim).filter(|rule| !rule.is_empty()).map(|rule| {
        let parts = rule.rsplit_once('.').filter(|(tool, argument)| !tool.is_empty() && !argument.is_empty());
        let (tool, argument) =
            parts.ok_or_else(|| wrong(NAME, format!("`{rule}` is not TOOL.ARGUMENT or *.ARGUMENT")))?;
        Ok((tool.to_string(), argument.to_string()))
    });
    rules.collect()
}

impl fmt::Display for PrivacyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.redact.iter().map(|(tool, argument)| format!("{tool}.{argument}")).collect();
        writeln!(f, "SMOOTH_AGENT_MASTER_KEY={}", if self.master_keys.is_some() { "set" } else { "unset" })?;
        writeln!(f, "SMOOTH_AGENT_RETAIN_DAYS={}", self.retain_days)?;
        writeln!(f, "SMOOTH_AGENT_RETAIN_TOOLS_DAYS={}", self.retain_tools_days)?;
        write!(f, "SMOOTH_AGENT_REDACT_ARGUMENTS={}", rules.join(","))
    }
}
