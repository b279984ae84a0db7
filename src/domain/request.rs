//! Content and context of a message: parts of `turn.requested`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A picture attached to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    #[serde(flatten)]
    pub content: AttachmentContent,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A file attached to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    #[serde(flatten)]
    pub content: AttachmentContent,
}

/// Location of an attachment's content, which is never in an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Content")]
pub enum AttachmentContent {
    /// A URL on the web, not fetched by Turnstream.
    Url(String),
    /// An object in a NATS object store, uploaded with the message.
    Object(Object),
}

/// An object in a NATS object store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    pub bucket: String,
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest in the object store's form: `SHA-256=` and base64 for URLs.
    pub digest: String,
    pub media_type: String,
    /// Key that the content is encrypted with (AES-256-GCM, 32 bytes in base64; nonce of 12 zero bytes, the tag at the
    /// end).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl AttachmentContent {
    /// Returns the bytes of text that the reference takes.
    pub fn text_bytes(&self) -> usize {
        match self {
            AttachmentContent::Url(url) => url.len(),
            AttachmentContent::Object(object) => {
                let key = object.key.as_ref().map_or(0, String::len);
                object.bucket.len() + object.name.len() + object.digest.len() + key
            }
        }
    }
}

/// The proved identity of a user, as far as it decides which documents and conversations they may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Asker")]
pub struct Requester {
    /// The user's id at the token issuer.
    pub user: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// May act with the rights of the organisation's administrators.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_admin: bool,
}

/// A version of an agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentVersion {
    /// The agent that the configuration belongs to: the session's, or the organisation's default.
    pub agent: String,
    /// Sequence in the stream of configurations.
    pub revision: u64,
}

/// A skill, as it was when the turn was requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Skill {
    pub name: String,
    pub body: String,
}
