//! Access control: the identity of a reader, and the documents that it may read.

use serde::{Deserialize, Serialize};

use super::document::{Acl, Document};

/// The identity that knowledge is searched for. Without a user and groups, an anonymous visitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnowledgeReader {
    pub org: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The document sets to look in; `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<Vec<String>>,
}

impl KnowledgeReader {
    /// Returns whether a document of this organisation may be read.
    pub fn may_read(&self, org: &str, document: &Document) -> bool {
        let in_sets = self.sets.as_ref().is_none_or(|sets| sets.contains(&document.set));
        let admitted = match &document.acl {
            Acl::Public => true,
            Acl::Only { users, groups } => {
                self.user.as_ref().is_some_and(|user| users.contains(user))
                    || self.groups.iter().any(|group| groups.contains(group))
            }
        };
        self.org == org && in_sets && admitted
    }
}
