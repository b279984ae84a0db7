//! A span, with ids that are derived from the log.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The id of a span: 8 bytes, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(String);

/// A finished span of a turn's trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub turn: Uuid,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: String,
    pub is_call: bool,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    pub attributes: Vec<(&'static str, Value)>,
    /// The kind of error that the span ended with.
    pub error: Option<String>,
}

impl SpanId {
    /// Derives the id of a part of a turn; `part` is unique in the turn.
    pub fn of(turn: Uuid, part: &str) -> Self {
        Self(hash(&format!("turnstream span\n{turn}\n{part}"), 8))
    }
}

impl Span {
    /// Returns the span in the JSON form of OTLP.
    pub fn to_json(&self) -> Value {
        const INTERNAL: u8 = 1;
        const CLIENT: u8 = 3;
        const ERROR: u8 = 2;
        let nanos = |at: DateTime<Utc>| at.timestamp_nanos_opt().unwrap_or_default().to_string();
        let error = self.error.as_ref().map(|error| ("error.type", Value::from(error.as_str())));
        let attributes = self.attributes.iter().map(|(key, value)| (*key, value.clone())).chain(error);
        let attributes: Vec<Value> = attributes.map(|(key, value)| json!({"key": key, "value": any(&value)})).collect();
        let mut span = json!({
            "traceId": trace_id(self.turn),
            "spanId": self.id.0,
            "name": self.name,
            "kind": if self.is_call { CLIENT } else { INTERNAL },
            "startTimeUnixNano": nanos(self.start),
            "endTimeUnixNano": nanos(self.end.max(self.start)),
            "attributes": attributes,
            "status": {},
        });
        if let Some(SpanId(parent)) = &self.parent {
            span["parentSpanId"] = parent.as_str().into();
        }
        if let Some(error) = &self.error {
            span["status"] = json!({"code": ERROR, "message": error});
        }
        span
    }
}

/// Returns the id of a turn's trace: 16 bytes, as hexadecimal digits.
pub fn trace_id(turn: Uuid) -> String {
    hash(&format!("turnstream trace\n{turn}"), 16)
}

fn hash(text: &str, bytes: usize) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text)[..bytes])
}

/// Returns a value in OTLP's JSON form, in which integers are text.
fn any(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": number}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::Array(values) => json!({"arrayValue": {"values": values.iter().map(any).collect::<Vec<_>>()}}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Null | Value::Object(_) => json!({"stringValue": value.to_string()}),
    }
}
