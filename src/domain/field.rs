//! Fields of forms: faults of their values, and email addresses.

use schemars::JsonSchema;
use serde::Serialize;

/// An error in one part of the submitted values.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldError {
    /// The field's key, the question's header, or `values`.
    pub field: String,
    pub message: String,
}

const EMAIL_MAX_BYTES: usize = 254;

/// Returns the address with its domain in lower case, if it has the shape of an address.
pub fn email(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let domain = domain.to_lowercase();
    // Some programs read commas and the like as separators of several addresses.
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || ",;<>()\"".contains(c);
    let is_plain = |part: &str| !part.is_empty() && !part.contains(is_odd);
    let has_dot = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
    let is_address = is_plain(local) && is_plain(&domain) && !domain.contains('@') && has_dot;
    (is_address && text.len() <= EMAIL_MAX_BYTES).then(|| format!("{local}@{domain}"))
}
