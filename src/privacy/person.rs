//! People, as holds and erasures name them.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::domain::{Event, conversation::owner_of};

/// A person as the ledger names them: it stays, so it holds a hash of the address or id that they are known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Person(String);

impl Person {
    /// Whoever has this e-mail address, or this id at the issuer of tokens. Case and blanks around it don't count.
    pub fn new(name: &str) -> Option<Self> {
        let hash = Sha256::digest(owner_of(name)?.as_bytes());
        Some(Self(hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Everybody whom an event names: by the address that a session was opened with or that a form was filled in with, or by
    /// the id of whoever asked.
    pub fn all_of(event: &Event) -> BTreeSet<Self> {
        let names: Vec<&str> = match event {
            Event::SessionOpened(e) => e.user_email.as_deref().into_iter().collect(),
            Event::TurnRequested(e) => e.asker.iter().map(|asker| asker.user.as_str()).collect(),
            Event::TurnToolReturned(e) => addresses(e.values.as_ref()),
            Event::TurnResumed(e) => addresses(e.values.as_ref()),
            _ => vec![],
        };
        names.into_iter().filter_map(Self::new).collect()
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// E-mail addresses among the values of a form.
fn addresses(values: Option<&Map<String, Value>>) -> Vec<&str> {
    let texts = values.into_iter().flat_map(|values| values.values()).filter_map(Value::as_str);
    texts.filter(|text| text.contains('@')).collect()
}
