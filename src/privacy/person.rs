//! People, as named by holds and erasures.

use std::{collections::BTreeSet, fmt};

use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::domain::{Event, conversation::owner_of};

/// A person's name in the ledger: a hash of their address or id, because the ledger is never erased.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Person(String);

impl Person {
    /// Returns the person with this e-mail address, or this id at the token issuer.
    ///
    /// Case and surrounding blanks don't count.
    pub fn new(name: &str) -> Option<Self> {
        let hash = Sha256::digest(owner_of(name)?.as_bytes());
        Some(Self(HEXLOWER.encode(&hash[..16])))
    }

    /// Returns the people named by an event: the address of a session's opening or a form, and the id of the asking user.
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

/// Returns the e-mail addresses among the values of a form.
fn addresses(values: Option<&Map<String, Value>>) -> Vec<&str> {
    let texts = values.into_iter().flat_map(|values| values.values()).filter_map(Value::as_str);
    texts.filter(|text| text.contains('@')).collect()
}
