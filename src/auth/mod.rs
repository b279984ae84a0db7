//! The identity of a connection, and its access.
//!
//! - [`tokens`]: verifies tokens by the configured mode.   - [`token_keys`]: the keys that verify them.
//! - [`widget`]: policies on pages that may open sessions, and their hosts' assertions about users.
//!
//! Invariant: a token, a key or the reason why a token was refused never reaches a client; a token never reaches a log.

mod token_keys;
mod tokens;
pub mod widget;

pub use tokens::{TokenError, TokenVerifier};

use schemars::JsonSchema;
use serde::Serialize;

use crate::domain::conversation::owner_of;

/// The organisation of sessions that belong to no other.
pub const REFERENCE_ORG: &str = "reference-org";

/// A proven identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    pub user: String,
    pub org: String,
    pub role: Role,
    pub groups: Vec<String>,
    pub email: Option<String>,
    pub name: Option<String>,
    /// The expiry of the token, in seconds of the Unix clock.
    pub expires_at: Option<i64>,
}

/// The roles of principals, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Basic,
    Curator,
    Admin,
}

impl Role {
    /// Parses a role's name in a token; `user` is another name of the least role.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "basic" | "user" => Some(Self::Basic),
            "curator" => Some(Self::Curator),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// Returns true if a connection may reach a conversation of this organisation and owner.
///
/// The one check of every action that names a session or a conversation. `proved` is the address that was proved by the session
/// that leads to the conversation. A conversation without an owner is reachable by its id, or anonymous visitors would be
/// locked out of their own; but not from another organisation.
pub fn may_reach(principal: Option<&Principal>, org: &str, owner: Option<&str>, proved: Option<&str>) -> bool {
    match (principal, owner) {
        (Some(principal), _) if principal.org != org => false,
        (_, None) => true,
        (_, Some(owner)) if proved == Some(owner) => true,
        (None, Some(_)) => false,
        (Some(principal), Some(owner)) => principal.email.as_deref().and_then(owner_of).as_deref() == Some(owner),
    }
}

/// Returns true if a principal may read a conversation of its organisation over the admin API.
///
/// Curators read all of them; others read those that are provably their own, so never a conversation without an owner.
pub fn may_review(principal: &Principal, owner: Option<&str>) -> bool {
    let own = || principal.email.as_deref().and_then(owner_of);
    principal.role >= Role::Curator || owner.is_some_and(|owner| own().as_deref() == Some(owner))
}

#[cfg(test)]
mod tests;
