//! The settings of traces, by the names that OpenTelemetry gives them.

use std::fmt;

use super::{ConfigError, urls, values::switch, without_secrets, wrong};

#[derive(Clone, Debug, Default)]
pub struct TelemetryConfig {
    /// The collector's URL for traces.
    pub traces: Option<String>,
    /// Headers of every request, which may hold a secret.
    pub headers: Vec<(String, String)>,
    pub service: String,
    /// Messages, answers, arguments and results are exported, too.
    pub has_text: bool,
}

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<TelemetryConfig, ConfigError> {
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let (all, traces) = (text(ALL), text(TRACES));
    for (name, url) in [(ALL, &all), (TRACES, &traces)] {
        if let Some(url) = url.as_ref().filter(|url| !urls::is_web(url)) {
            return Err(wrong(name, format!("`{}` is not an http or https URL", without_secrets(url))));
        }
    }
    let below = |base: String| format!("{}/v1/traces", base.trim_end_matches('/'));
    Ok(TelemetryConfig {
        traces: traces.or(all.map(below)),
        headers: headers(text)?,
        service: text("OTEL_SERVICE_NAME").unwrap_or_else(|| "turnstream".into()),
        has_text: switch(text, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")?,
    })
}

/// Parses `name=value`, comma-separated.
fn headers(text: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, ConfigError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let list = text(NAME).unwrap_or_default();
    let pairs = list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let pair = pair.split_once('=').filter(|(name, _)| !name.trim().is_empty());
        let (name, value) = pair.ok_or_else(|| wrong(NAME, "an entry is not `name=value`".into()))?;
        Ok((name.trim().to_string(), value.trim().to_string()))
    });
    pairs.collect()
}

impl fmt::Display for TelemetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traces = self.traces.as_deref().map_or("unset".into(), without_secrets);
        writeln!(f, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={traces}")?;
        writeln!(f, "OTEL_EXPORTER_OTLP_HEADERS={}", if self.headers.is_empty() { "unset" } else { "set" })?;
        writeln!(f, "OTEL_SERVICE_NAME={}", self.service)?;
        write!(f, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT={}", self.has_text)
    }
}
