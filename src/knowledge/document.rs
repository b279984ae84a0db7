//! Documents as they are stored: a head, and its passages ("chunks"), each a message of its own.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The head of a document: its metadata, its readers and its chunks.
///
/// Invariant: a document is shown only when all `chunks` of this `version` are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The path relative to the ingested folder, or the URL; prefixed by the source where another source has that one.
    /// Unique in its organisation.
    pub id: String,
    pub title: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The document set that the document belongs to.
    pub set: String,
    /// The ingest source that the document came from.
    pub source: String,
    pub acl: Acl,
    /// The hash of all inputs of the document: an equal hash means that there is nothing to write.
    pub hash: String,
    /// New for every writing of the document.
    pub version: Uuid,
    /// The number of chunks, which are numbered from 0.
    pub chunks: u32,
    /// The model that made the chunks' vectors, if they have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_model: Option<String>,
    pub updated_at: DateTime<Utc>,
    /// The document is gone; it has no chunks.
    #[serde(default)]
    pub deleted: bool,
}

/// The readers of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Acl {
    /// All users of the organisation's agents, anonymous visitors too.
    Public,
    /// These users, and members of these groups.
    Only {
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        users: BTreeSet<String>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        groups: BTreeSet<String>,
    },
}

/// A passage of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    pub version: Uuid,
    /// The headings above the chunk, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headings: Vec<String>,
    pub text: String,
    /// The embedding of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
}

/// An embedding; stored as base64 of its components, 32-bit floats, lowest byte first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Vector(pub Vec<f32>);

impl From<Vector> for String {
    fn from(vector: Vector) -> String {
        STANDARD.encode(vector.0.iter().flat_map(|component| component.to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// A text that is no vector.
#[derive(Debug, thiserror::Error)]
#[error("a vector is base64 of 32-bit floats")]
pub struct NotAVector;

impl TryFrom<String> for Vector {
    type Error = NotAVector;

    fn try_from(text: String) -> Result<Self, NotAVector> {
        let bytes = STANDARD.decode(text).map_err(|_| NotAVector)?;
        let components = bytes.chunks_exact(4);
        if !components.remainder().is_empty() {
            return Err(NotAVector);
        }
        Ok(Self(components.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()))
    }
}

/// A document to be written. The store assigns its version, time and number of chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDocument {
    pub id: String,
    pub title: String,
    pub url: Option<String>,
    pub set: String,
    pub source: String,
    pub acl: Acl,
    pub hash: String,
    pub embedding_model: Option<String>,
}

/// A passage to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewChunk {
    pub headings: Vec<String>,
    pub text: String,
    pub vector: Option<Vec<f32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_round_trips() {
        let chunk = Chunk {
            version: Uuid::from_u128(1),
            headings: vec!["Returns".into()],
            text: "17 days".into(),
            vector: Some(Vector(vec![0.25, -1.5, f32::MIN_POSITIVE])),
        };
        let json = serde_json::to_string(&chunk).unwrap();
        assert_eq!(serde_json::from_str::<Chunk>(&json).unwrap(), chunk);
        for odd in ["AAA", "!", "AAAA AAAA"] {
            assert!(Vector::try_from(odd.to_string()).is_err(), "{odd}");
        }
    }

    #[test]
    fn acls_have_short_forms() {
        assert_eq!(serde_json::to_value(Acl::Public).unwrap(), "public");
        let sales = Acl::Only { users: BTreeSet::new(), groups: ["sales".to_string()].into() };
        assert_eq!(serde_json::to_value(sales).unwrap(), serde_json::json!({"only": {"groups": ["sales"]}}));
    }
}
