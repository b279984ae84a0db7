//! The sources of widget policies.

use std::{fmt, path::PathBuf};

use url::Url;

use super::{
    ConfigError, parsed,
    values::{file, switch},
    without_secrets, wrong,
};

/// The sources of policies, and the rule for agents without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WidgetConfig {
    pub file: Option<PathBuf>,
    pub service: Option<WidgetService>,
    /// Agents without a policy are refused.
    pub strict: bool,
}

/// A service of the host application that provides policies.
#[derive(Clone, Debug, PartialEq)]
pub struct WidgetService {
    pub url: Url,
    pub bearer: Option<String>,
    pub ttl_secs: u32,
}

/// Reads the settings that begin with `WIDGET_AUTH`.
pub fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<WidgetConfig, ConfigError> {
    const URL: &str = "WIDGET_AUTH_URL";
    let is_web = |url: &Url| ["http", "https"].contains(&url.scheme()) && !url.cannot_be_a_base();
    let url = |value: String| {
        let url = Url::parse(&value).ok().filter(is_web);
        url.ok_or_else(|| wrong(URL, format!("`{}` is not an http or https URL", without_secrets(&value))))
    };
    let (bearer, ttl_secs) = (text("WIDGET_AUTH_BEARER"), parsed(text, "WIDGET_AUTH_TTL_SECS", "a number", || 60)?);
    let service = text(URL).map(url).transpose()?.map(|url| WidgetService { url, bearer, ttl_secs });
    let strict = switch(text, "WIDGET_AUTH_STRICT")?;
    Ok(WidgetConfig { file: file(text, "WIDGET_AUTH_FILE")?, service, strict })
}

impl fmt::Display for WidgetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map_or("unset".into(), |file| file.display().to_string());
        writeln!(f, "WIDGET_AUTH_FILE={file}")?;
        let url = self.service.as_ref().map_or("unset".into(), |service| without_secrets(service.url.as_str()));
        writeln!(f, "WIDGET_AUTH_URL={url}")?;
        let has_bearer = self.service.as_ref().is_some_and(|service| service.bearer.is_some());
        writeln!(f, "WIDGET_AUTH_BEARER={}", if has_bearer { "set" } else { "unset" })?;
        let ttl = self.service.as_ref().map_or("unset".into(), |service| service.ttl_secs.to_string());
        writeln!(f, "WIDGET_AUTH_TTL_SECS={ttl}")?;
        write!(f, "WIDGET_AUTH_STRICT={}", self.strict)
    }
}
