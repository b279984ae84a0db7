//! Spans to a collector: OTLP over HTTP, in its JSON form.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::span::Span;
use crate::config::TelemetryConfig;

/// Spans in one request.
pub const BATCH: usize = 512;
/// Time for a collector to take a request.
const SEND_MS: u64 = 10_000;
/// Tries of a request that a collector could not take now, and the pause before the second one, which then doubles.
const TRIES: u32 = 5;
const PAUSE_MS: u64 = 500;

/// The reason why spans were not exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceExportError {
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is not set, and --to is not given")]
    NoEndpoint,
    #[error("the collector can't be reached: {0}")]
    Unreachable(String),
    #[error("the collector answers with status {0}")]
    Status(StatusCode),
    #[error("the collector refuses {0} spans: {1}")]
    Rejected(String, String),
}

/// Exports spans to a collector.
pub struct SpanExporter {
    client: Client,
    endpoint: String,
    config: TelemetryConfig,
    region: String,
}

impl SpanExporter {
    pub fn new(config: &TelemetryConfig, region: &str) -> Result<Self, TraceExportError> {
        let endpoint = config.traces.clone().ok_or(TraceExportError::NoEndpoint)?;
        let client = Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(Duration::from_millis(SEND_MS)).build();
        let client = client.map_err(|error| TraceExportError::Unreachable(error.without_url().to_string()))?;
        Ok(Self { client, endpoint, config: config.clone(), region: region.to_string() })
    }

    /// Exports spans; tries again while the collector can't take them now.
    pub async fn export(&self, spans: &[Span]) -> Result<(), TraceExportError> {
        for batch in spans.chunks(BATCH) {
            let body = self.body(batch).to_string();
            let mut tries = 1;
            while let Err(error) = self.send(body.clone()).await {
                if tries == TRIES || !error.is_passing() {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(PAUSE_MS << (tries - 1))).await;
                tries += 1;
            }
        }
        Ok(())
    }

    fn body(&self, spans: &[Span]) -> Value {
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let resource = [
            text("service.name", &self.config.service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("cloud.region", &self.region),
        ];
        let scope = json!({"name": "turnstream", "version": env!("CARGO_PKG_VERSION")});
        let spans: Vec<Value> = spans.iter().map(Span::to_json).collect();
        json!({"resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": scope, "spans": spans}],
        }]})
    }

    async fn send(&self, body: String) -> Result<(), TraceExportError> {
        let mut request = self.client.post(&self.endpoint).header("content-type", "application/json").body(body);
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        let unreachable = |error: reqwest::Error| TraceExportError::Unreachable(error.without_url().to_string());
        let response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(TraceExportError::Status(response.status()));
        }
        let answer: Value = response.json().await.unwrap_or_default();
        let rejected = &answer["partialSuccess"]["rejectedSpans"];
        let count = rejected.as_str().map_or_else(|| rejected.to_string(), str::to_owned);
        match count.parse::<u64>() {
            Ok(1..) => {
                let why = answer["partialSuccess"]["errorMessage"].as_str().unwrap_or_default();
                Err(TraceExportError::Rejected(count, why.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl TraceExportError {
    fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::NoEndpoint | Self::Rejected(..) => false,
        }
    }
}
