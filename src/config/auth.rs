//! Authentication of connections.

use std::fmt;

use super::{ConfigError, name_of, one_of, values::switch, without_secrets, wrong};

/// The length of the HMAC's hash: a shorter secret can be guessed from one token.
const HS256_SECRET_MIN_BYTES: usize = 32;

/// The settings of authentication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthConfig {
    pub mode: AuthMode,
    pub hs256_secret: Option<String>,
    pub rs256_public_key: Option<String>,
    pub jwks_url: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// Connections without a valid token are refused.
    pub strict: bool,
    /// The organisation of every administrator in the mode [`AuthMode::None`].
    pub dev_org: String,
}

/// The kind of token that connections present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Not configured: all visitors are anonymous, and knowing an id suffices to use it.
    #[default]
    Off,
    /// Signed by a configured key, or by a published key of the issuer.
    Jwt,
    /// The same, but the issuer must be configured.
    Smoo,
    /// Claims verified by a proxy in front, which alone may reach the port.
    Trusted,
    /// Turned off explicitly: all visitors are anonymous.
    None,
}

impl AuthMode {
    const NAMES: [(&str, AuthMode); 4] =
        [("jwt", Self::Jwt), ("smoo", Self::Smoo), ("trusted", Self::Trusted), ("none", Self::None)];

    fn name(self) -> &'static str {
        name_of(&Self::NAMES, &self)
    }
}

/// Reads the settings of authentication.
pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<AuthConfig, ConfigError> {
    const MODE: &str = "SMOOTH_AGENT_AUTH_MODE";
    let hs256_secret = text("AUTH_JWT_HS256_SECRET");
    let rs256_public_key = text("AUTH_JWT_RS256_PUBLIC_KEY");
    let (jwks_url, issuer) = (text("AUTH_JWT_JWKS_URL"), text("AUTH_JWT_ISSUER"));
    let has_keys = hs256_secret.is_some() || rs256_public_key.is_some() || jwks_url.is_some() || issuer.is_some();
    let unset = if has_keys { AuthMode::Jwt } else { AuthMode::Off };
    let either = |name: &str| text(name).or_else(|| text("AUTH_MODE"));
    let mode = one_of(&either, MODE, &AuthMode::NAMES)?.unwrap_or(unset);
    if matches!(mode, AuthMode::Jwt | AuthMode::Smoo) && !has_keys {
        let keys = "AUTH_JWT_RS256_PUBLIC_KEY, AUTH_JWT_HS256_SECRET, AUTH_JWT_JWKS_URL or AUTH_JWT_ISSUER";
        return Err(wrong(MODE, format!("`{}` needs a key to verify tokens with: set {keys}", mode.name())));
    }
    if mode == AuthMode::Smoo && issuer.is_none() {
        return Err(wrong("AUTH_JWT_ISSUER", "the mode `smoo` needs an issuer".into()));
    }
    if hs256_secret.as_ref().is_some_and(|secret| secret.len() < HS256_SECRET_MIN_BYTES) {
        return Err(wrong("AUTH_JWT_HS256_SECRET", format!("must be at least {HS256_SECRET_MIN_BYTES} bytes long")));
    }
    for (name, url) in [("AUTH_JWT_JWKS_URL", &jwks_url), ("AUTH_JWT_ISSUER", &issuer)] {
        let is_read = name == "AUTH_JWT_JWKS_URL" || (hs256_secret.is_none() && rs256_public_key.is_none());
        let is_http = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if is_read && url.as_ref().is_some_and(|url| !is_http(url)) {
            return Err(wrong(name, "is not an http or https URL, so no keys can be read there".into()));
        }
    }
    let strict = switch(text, "SMOOTH_AGENT_AUTH_STRICT")?;
    if strict && matches!(mode, AuthMode::Off | AuthMode::None) {
        return Err(wrong(
            "SMOOTH_AGENT_AUTH_STRICT",
            format!("needs a mode in which tokens are accepted: set {MODE}"),
        ));
    }
    let dev_org = text("AUTH_DEV_ORG_ID").unwrap_or_else(|| "dev-org".into());
    Ok(AuthConfig {
        mode,
        hs256_secret,
        rs256_public_key,
        jwks_url,
        issuer,
        audience: text("AUTH_JWT_AUDIENCE"),
        strict,
        dev_org,
    })
}

impl fmt::Display for AuthConfig {
    /// Prints the effective values, without secrets, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |present: bool| if present { "set" } else { "unset" };
        writeln!(f, "SMOOTH_AGENT_AUTH_MODE={}", self.mode.name())?;
        writeln!(f, "SMOOTH_AGENT_AUTH_STRICT={}", self.strict)?;
        writeln!(f, "AUTH_DEV_ORG_ID={}", self.dev_org)?;
        writeln!(f, "AUTH_JWT_HS256_SECRET={}", set(self.hs256_secret.is_some()))?;
        writeln!(f, "AUTH_JWT_RS256_PUBLIC_KEY={}", set(self.rs256_public_key.is_some()))?;
        writeln!(f, "AUTH_JWT_JWKS_URL={}", self.jwks_url.as_deref().map_or("unset".into(), without_secrets))?;
        writeln!(f, "AUTH_JWT_ISSUER={}", self.issuer.as_deref().map_or("unset".into(), without_secrets))?;
        write!(f, "AUTH_JWT_AUDIENCE={}", self.audience.as_deref().unwrap_or("unset"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_key_enables_tokens() {
        let secret = "0123456789abcdef0123456789abcdef";
        let mode = |values: &[(&str, &str)]| {
            let value = |name: &str| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            read(&value).map(|auth| auth.mode)
        };
        assert_eq!(mode(&[]), Ok(AuthMode::Off));
        assert_eq!(mode(&[("AUTH_JWT_HS256_SECRET", secret)]), Ok(AuthMode::Jwt));
        assert_eq!(mode(&[("AUTH_JWT_ISSUER", "https://issuer.example")]), Ok(AuthMode::Jwt));
        assert_eq!(mode(&[("AUTH_MODE", "Trusted")]), Ok(AuthMode::Trusted));
        assert_eq!(mode(&[("AUTH_MODE", "trusted"), ("SMOOTH_AGENT_AUTH_MODE", "none")]), Ok(AuthMode::None));
        let smoo = [("AUTH_MODE", "smoo"), ("AUTH_JWT_HS256_SECRET", secret)];
        assert_eq!(mode(&smoo).map_err(|error| error.name), Err("AUTH_JWT_ISSUER"));
    }
}
