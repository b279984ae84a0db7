//! The connection to NATS, and its users.

use std::{fmt, path::PathBuf};

use super::each_without_secrets;

/// The connection to NATS, by the names that the `nats` CLI and the client libraries use.
#[derive(Clone, Default)]
pub struct NatsConfig {
    pub url: Option<String>,
    pub creds: Option<PathBuf>,
    pub nkey: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    /// The users that call services; without one, the process's own user calls them.
    pub tool: Option<NatsLogin>,
    pub otp: Option<NatsLogin>,
    pub retrieve: Option<NatsLogin>,
}

/// The credentials of a NATS user.
#[derive(Clone, Debug, PartialEq)]
pub enum NatsLogin {
    Password { user: String, password: String },
    Creds(PathBuf),
    Nkey(PathBuf),
}

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> NatsConfig {
    NatsConfig {
        url: text("NATS_URL"),
        creds: text("NATS_CREDS").map(PathBuf::from),
        nkey: text("NATS_NKEY").map(PathBuf::from),
        ca: text("NATS_CA").map(PathBuf::from),
        cert: text("NATS_CERT").map(PathBuf::from),
        key: text("NATS_KEY").map(PathBuf::from),
        user: text("NATS_USER"),
        password: text("NATS_PASSWORD"),
        token: text("NATS_TOKEN"),
        tool: login(text, "TOOL"),
        otp: login(text, "OTP"),
        retrieve: login(text, "RETRIEVE"),
    }
}

/// Reads `NATS_{kind}_CREDS`, `NATS_{kind}_NKEY`, or `NATS_{kind}_USER` with `NATS_{kind}_PASSWORD`.
fn login(text: &dyn Fn(&str) -> Option<String>, kind: &str) -> Option<NatsLogin> {
    let of = |what: &str| text(&format!("NATS_{kind}_{what}"));
    let password = of("USER").map(|user| NatsLogin::Password { user, password: of("PASSWORD").unwrap_or_default() });
    of("CREDS")
        .map(|path| NatsLogin::Creds(path.into()))
        .or_else(|| of("NKEY").map(|path| NatsLogin::Nkey(path.into())))
        .or(password)
}

impl NatsConfig {
    /// Returns the same servers with another user.
    pub fn with(&self, login: &NatsLogin) -> Self {
        // The library prefers a user named in the URL.
        let url = self.url.as_deref().map(|urls| urls.split(',').map(without_user).collect::<Vec<_>>().join(","));
        let as_nobody = Self { url, user: None, password: None, token: None, creds: None, nkey: None, ..self.clone() };
        match login.clone() {
            NatsLogin::Password { user, password } => Self { user: Some(user), password: Some(password), ..as_nobody },
            NatsLogin::Creds(path) => Self { creds: Some(path), ..as_nobody },
            NatsLogin::Nkey(path) => Self { nkey: Some(path), ..as_nobody },
        }
    }

    /// Returns true if the process has a user of its own, so that the server tells users apart.
    pub fn has_user(&self) -> bool {
        self.user.is_some() || self.creds.is_some() || self.nkey.is_some()
    }
}

fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_string(),
    }
}

impl fmt::Display for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |present: bool| if present { "set" } else { "unset" };
        writeln!(f, "NATS_URL={}", self.url.as_deref().map_or("unset".into(), each_without_secrets))?;
        writeln!(f, "NATS_CREDS={}", set(self.creds.is_some()))?;
        for (kind, login) in [("TOOL", &self.tool), ("OTP", &self.otp), ("RETRIEVE", &self.retrieve)] {
            match login {
                Some(NatsLogin::Password { user, .. }) => writeln!(f, "NATS_{kind}_USER={user}")?,
                Some(NatsLogin::Creds(_)) => writeln!(f, "NATS_{kind}_CREDS=set")?,
                Some(NatsLogin::Nkey(_)) => writeln!(f, "NATS_{kind}_NKEY=set")?,
                None => writeln!(f, "NATS_{kind}_USER=unset")?,
            }
        }
        write!(f, "NATS_TOKEN={}", set(self.token.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_calls_use_their_own_nats_user() {
        let values = [
            ("NATS_URL", "nats://worker:pw@one:4222,nats://two"),
            ("NATS_TOOL_USER", "tool_caller"),
            ("NATS_TOOL_PASSWORD", "s3cret"),
            ("NATS_OTP_CREDS", "/otp.creds"),
        ];
        let nats = read(&|name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()));
        let tool = nats.with(nats.tool.as_ref().unwrap());
        assert_eq!(tool.url.as_deref(), Some("nats://one:4222,nats://two"));
        assert_eq!((tool.user.as_deref(), tool.password.as_deref()), (Some("tool_caller"), Some("s3cret")));
        assert_eq!((nats.otp.clone(), nats.retrieve.clone()), (Some(NatsLogin::Creds("/otp.creds".into())), None));
        let shown = nats.to_string();
        assert!(shown.contains("NATS_TOOL_USER=tool_caller") && !shown.contains("s3cret"), "{shown}");
    }
}
