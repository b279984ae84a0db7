//! What a policy says.

use serde::{Deserialize, Serialize};

/// Who may open sessions with an agent. What is left out is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WidgetPolicy {
    /// Pages: `https://shop.example`, `https://*.shop.example` (which is `shop.example` too), `*`. None = nobody.
    pub allowed_origins: Vec<String>,
    /// Keys what the host says about its user.
    pub public_key: Option<String>,
    /// The organisation of the sessions.
    pub organization_id: Option<String>,
}
