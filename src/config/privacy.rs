//! What becomes of what people said: sealed or clear, how long it is kept, what an auditor is not shown.

use std::{fmt, fs};

use super::{ConfigError, PerOrg, quota::per_org, wrong};
use crate::sealing::MasterKeys;

/// Settings of privacy.
#[derive(Clone, Default)]
pub struct Privacy {
    /// With them, payloads are sealed; without, clear.
    pub master_keys: Option<MasterKeys>,
    /// Days after its last event that a conversation is kept, and that what it asked of tools is.
    pub retain_days: PerOrg,
    pub retain_tools_days: PerOrg,
    /// Arguments of tools that auditors are not shown: the tool's name or `*`, and the argument's.
    pub redact: Vec<(String, String)>,
}

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<Privacy, ConfigError> {
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
    Ok(Privacy {
        master_keys: master_keys.transpose()?,
        retain_days: days(text, "SMOOTH_AGENT_RETAIN_DAYS")?,
        retain_tools_days: days(text, "SMOOTH_AGENT_RETAIN_TOOLS_DAYS")?,
        redact: redact(text)?,
    })
}

/// A number of days for every organisation, and others for some.
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

impl fmt::Display for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.redact.iter().map(|(tool, argument)| format!("{tool}.{argument}")).collect();
        writeln!(f, "SMOOTH_AGENT_MASTER_KEY={}", if self.master_keys.is_some() { "set" } else { "unset" })?;
        writeln!(f, "SMOOTH_AGENT_RETAIN_DAYS={}", self.retain_days)?;
        writeln!(f, "SMOOTH_AGENT_RETAIN_TOOLS_DAYS={}", self.retain_tools_days)?;
        write!(f, "SMOOTH_AGENT_REDACT_ARGUMENTS={}", rules.join(","))
    }
}
