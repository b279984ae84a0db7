//! What comes with a message: parts of `turn.requested`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A picture that came with a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    #[serde(flatten)]
    pub content: Content,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A file that came with a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(flatten)]
    pub content: Content,
}

/// Where an attachment's content is. It is never in an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// On the web; nobody of ours has read it.
    Url(String),
    /// In an object store of NATS: it came with the message.
    Object(Object),
}

/// An object in an object store of NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    pub bucket: String,
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// As the object store has it: `SHA-256=` and base64 for URLs.
    pub digest: String,
    pub media_type: String,
    /// The content is sealed with this key (AES-256-GCM, 32 bytes in base64; nonce of 12 zero bytes, the tag at the end).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Content {
    /// How much text it takes.
    pub fn text_bytes(&self) -> usize {
        match self {
            Content::Url(url) => url.len(),
            Content::Object(object) => {
                let key = object.key.as_ref().map_or(0, String::len);
                object.bucket.len() + object.name.len() + object.digest.len() + key
            }
        }
    }
}

/// Somebody who has proved who they are, as far as it decides what they may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Asker {
    /// The user's id at the issuer of tokens.
    pub user: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// May see to what its organisation's administrators may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_admin: bool,
}

/// One version of an agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentVersion {
    /// The agent whose configuration it is: the session's, or the organisation's default.
    pub agent: String,
    /// Sequence in the stream of configurations.
    pub revision: u64,
}

/// A skill, as it was when the turn was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    pub name: String,
    pub body: String,
}
