//! The policy of an agent.

use serde::{Deserialize, Serialize};

/// The policy on sessions with an agent. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WidgetPolicy {
    /// Pages: `https://shop.example`, `https://*.shop.example` (which is `shop.example` too), `*`. Empty: no page.
    pub allowed_origins: Vec<String>,
    /// The HMAC key of the host's assertions about its users.
    pub public_key: Option<String>,
    /// The organisation of the sessions.
    pub organization_id: Option<String>,
}
