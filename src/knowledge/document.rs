//! Documents as they are stored: a head and its chunks, JSON each. Part of the contract in `spec/`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Who may read a document within its organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acl {
    /// Everybody who talks with the organisation.
    #[default]
    Public,
    /// Only these, and members of these groups.
    Only { users: Vec<String>, groups: Vec<String> },
}

impl Acl {
    /// Reads `public`, `user:NAME` and `group:NAME`. The error is in words for people.
    pub fn parse(entries: &[String]) -> Result<Self, String> {
        let (mut users, mut groups, mut public) = (vec![], vec![], false);
        for entry in entries.iter().map(|entry| entry.trim()) {
            match entry.split_once(':').map(|(kind, name)| (kind, name.trim())) {
                Some(("user", name)) if !name.is_empty() => users.push(name.to_string()),
                Some(("group", name)) if !name.is_empty() => groups.push(name.to_string()),
                None if entry == "public" => public = true,
                _ => return Err(format!("`{entry}` is not `public`, `user:NAME` or `group:NAME`")),
            }
        }
        users.sort();
        groups.sort();
        match (public, users.is_empty() && groups.is_empty()) {
            (true, true) => Ok(Self::Public),
            (false, false) => Ok(Self::Only { users, groups }),
            (true, false) => Err("`public` and single readers exclude each other".into()),
            (false, true) => Err("nobody is named".into()),
        }
    }
}

/// The head of a document: what it is and which chunks belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub org: String,
    /// Its path relative to the ingested folder, or its URL.
    pub id: String,
    pub title: String,
    pub set: String,
    /// The ingest source that it came from.
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default)]
    pub acl: Acl,
    /// Of everything that made the document what it is. Readers show a document only when each chunk has this version.
    pub version: String,
    pub chunks: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_model: Option<String>,
    /// The document is gone; the head stays so that readers who are behind see it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Document {
    /// The document's token in subjects.
    pub fn token(&self) -> String {
        token(&self.org, &self.id)
    }
}

/// The subject token of an id of any length.
pub fn token(org: &str, id: &str) -> String {
    let hash = Sha256::new().chain_update(org).chain_update([0]).chain_update(id).finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// One passage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    pub document: String,
    pub version: String,
    pub index: usize,
    /// The headings above it, outermost first, joined by ` > `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    pub text: String,
    /// The embedding: 32-bit floats, little-endian, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "floats")]
    pub vector: Option<Vec<f32>>,
}

/// The stored form of a vector.
mod floats {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(vector: &Option<Vec<f32>>, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = vector.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f32>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(D::Error::custom("a vector holds whole 32-bit floats"));
        }
        Ok(Some(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let chunk = Chunk {
            document: "a.md".into(),
            version: "v".into(),
            index: 3,
            heading: None,
            text: "t".into(),
            vector: Some(vec![0.5, -1.25e-9]),
        };
        let text = serde_json::to_string(&chunk).unwrap();
        assert_eq!(serde_json::from_str::<Chunk>(&text).unwrap(), chunk);
        let plain = Chunk { vector: None, ..chunk };
        assert_eq!(serde_json::from_str::<Chunk>(&serde_json::to_string(&plain).unwrap()).unwrap(), plain);
        assert!(serde_json::from_str::<Chunk>(&text.replace("\"vector\":\"", "\"vector\":\"AAAA")).is_err());
    }

    #[test]
    fn readers_are_named_or_refused() {
        let parse = |names: &[&str]| Acl::parse(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(parse(&["public"]), Ok(Acl::Public));
        let both = Acl::Only { users: vec!["a".into()], groups: vec!["g".into()] };
        assert_eq!(parse(&["group:g", "user:a"]), Ok(both));
        for wrong in [&[][..], &["everyone"], &["user:"], &["public", "user:a"], &["role:x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_belongs_to_one_organisation_and_id() {
        assert_ne!(token("a", "b"), token("ab", ""));
        assert_eq!(token("a", "b").len(), 32);
    }
}
