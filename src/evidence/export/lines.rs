//! Events as lines of JSON: in plain form, as CloudEvents, and as evidence.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::SecondsFormat;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::{
    nats::jetstream::RawMessage,
    wire::stored::{
        CE_ID, CE_PREV, CE_PREVDIGEST, CE_SCHEMAVERSION, CE_SOURCE, CE_SUBJECT, CE_TIME, CE_TYPE, CONTENT_TYPE, MSG_ID,
    },
};

/// A stored message and the payload to show for it.
pub struct ExportedEvent<'a> {
    pub message: &'a RawMessage,
    pub payload: &'a Bytes,
}

impl ExportedEvent<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.get(name).map(String::as_str)
    }

    /// Returns the server's time of storing.
    pub fn stored_at(&self) -> String {
        self.message.stored_at.to_rfc3339_opts(SecondsFormat::Nanos, true)
    }

    /// Returns the payload if it is JSON on one line.
    fn json(&self) -> Option<&RawValue> {
        serde_json::from_slice::<&RawValue>(self.payload).ok().filter(|raw| !raw.get().contains(['\n', '\r']))
    }
}

/// A message with all that its writer put into it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlainLine<'a> {
    seq: u64,
    stored_at: String,
    subject: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// A CloudEvent in structured mode.
struct CloudEvent<'a>(&'a ExportedEvent<'a>);

/// An event with all that its digest covers, and the time of storing.
///
/// The payload is text or base64 of its exact bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence<'a> {
    pub seq: u64,
    /// Not covered by the digest.
    pub stored_at: String,
    pub subject: String,
    #[serde(borrow)]
    headers: DigestedHeaders<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Cow<'a, str>>,
}

/// The headers that the digest covers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DigestedHeaders<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_source: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_time: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_subject: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_schemaversion: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_prev: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    ce_prevdigest: Option<Cow<'a, str>>,
}

impl Evidence<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = &self.headers;
        match name {
            CE_ID => headers.ce_id.as_deref(),
            CE_TYPE => headers.ce_type.as_deref(),
            CE_SOURCE => headers.ce_source.as_deref(),
            CE_TIME => headers.ce_time.as_deref(),
            CE_SUBJECT => headers.ce_subject.as_deref(),
            CE_SCHEMAVERSION => headers.ce_schemaversion.as_deref(),
            CE_PREV => headers.ce_prev.as_deref(),
            CE_PREVDIGEST => headers.ce_prevdigest.as_deref(),
            _ => None,
        }
    }

    /// Returns the payload's bytes.
    pub fn payload(&self) -> Result<Cow<'_, [u8]>, String> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), None) => Ok(Cow::Borrowed(text.as_bytes())),
            (None, Some(text)) => BASE64_STANDARD.decode(text.as_bytes()).map(Cow::Owned).map_err(|e| e.to_string()),
            _ => Err("the line must have either `payload` or `payloadBase64`".into()),
        }
    }
}

/// Writes the event with all that its writer put into it.
pub fn plain(shown: &ExportedEvent, line: &mut Vec<u8>) {
    let of_event = |name: &&str| name.starts_with("ce-") || [MSG_ID, CONTENT_TYPE].contains(name);
    let headers = shown.message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let payload = shown.json();
    write(
        line,
        &PlainLine {
            seq: shown.message.seq,
            stored_at: shown.stored_at(),
            subject: &shown.message.subject,
            headers: headers.filter(|(name, _)| of_event(name)).collect(),
            payload,
            payload_base64: payload.is_none().then(|| BASE64_STANDARD.encode(shown.payload)),
        },
    );
}

/// Writes the event as a CloudEvent.
pub fn cloud_event(shown: &ExportedEvent, line: &mut Vec<u8>) {
    write(line, &CloudEvent(shown));
}

/// Writes the event as evidence.
pub fn evidence(shown: &ExportedEvent, line: &mut Vec<u8>) {
    let header = |name: &str| shown.header(name).map(Cow::Borrowed);
    let text = std::str::from_utf8(&shown.message.payload).ok();
    write(
        line,
        &Evidence {
            seq: shown.message.seq,
            stored_at: shown.stored_at(),
            subject: shown.message.subject.clone(),
            headers: DigestedHeaders {
                ce_id: header(CE_ID),
                ce_type: header(CE_TYPE),
                ce_source: header(CE_SOURCE),
                ce_time: header(CE_TIME),
                ce_subject: header(CE_SUBJECT),
                ce_schemaversion: header(CE_SCHEMAVERSION),
                ce_prev: header(CE_PREV),
                ce_prevdigest: header(CE_PREVDIGEST),
            },
            payload: text.map(Cow::Borrowed),
            payload_base64: text.is_none().then(|| BASE64_STANDARD.encode(&shown.message.payload).into()),
        },
    );
}

fn write(line: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(line, value).expect("lines are maps with string keys");
}

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(shown) = self;
        let attributes: BTreeMap<&str, &str> = (shown.message.headers.iter())
            .filter_map(|(name, value)| Some((name.strip_prefix("ce-")?, value.as_str())))
            .collect();
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in attributes {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("sequence", &shown.message.seq.to_string())?;
        match shown.json() {
            Some(data) => {
                map.serialize_entry("datacontenttype", "application/json")?;
                map.serialize_entry("data", data)?;
            }
            None => {
                let content_type = shown.header(CONTENT_TYPE).unwrap_or("application/octet-stream");
                map.serialize_entry("datacontenttype", content_type)?;
                map.serialize_entry("data_base64", &BASE64_STANDARD.encode(shown.payload))?;
            }
        }
        map.end()
    }
}
