//! The connection to NATS, and its users.

use std::{fmt, path::PathBuf};

use super::{ConfigError, each_without_secrets, urls, values::file, without_secrets, wrong};

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

/// The names of a caller's credentials: file of credentials, nkey, user, password.
type LoginNames = [&'static str; 4];

const TOOL: LoginNames = ["NATS_TOOL_CREDS", "NATS_TOOL_NKEY", "NATS_TOOL_USER", "NATS_TOOL_PASSWORD"];
const OTP: LoginNames = ["NATS_OTP_CREDS", "NATS_OTP_NKEY", "NATS_OTP_USER", "NATS_OTP_PASSWORD"];
const RETRIEVE: LoginNames =
    ["NATS_RETRIEVE_CREDS", "NATS_RETRIEVE_NKEY", "NATS_RETRIEVE_USER", "NATS_RETRIEVE_PASSWORD"];

pub(super) fn read(text: &dyn Fn(&str) -> Option<String>) -> Result<NatsConfig, ConfigError> {
    let url = text("NATS_URL");
    for server in url.iter().flat_map(|urls| urls.split(',')).map(str::trim) {
        if !urls::is_nats(server) {
            return Err(wrong(
                "NATS_URL",
                format!("`{}` is not a server such as nats://host:4222", without_secrets(server)),
            ));
        }
    }
    let (cert, key) = (file(text, "NATS_CERT")?, file(text, "NATS_KEY")?);
    match (&cert, &key) {
        (Some(_), None) => return Err(wrong("NATS_KEY", "NATS_CERT is set, so set its key, too".into())),
        (None, Some(_)) => return Err(wrong("NATS_CERT", "NATS_KEY is set, so set its certificate, too".into())),
        _ => {}
    }
    let (user, password) = (text("NATS_USER"), text("NATS_PASSWORD"));
    match (&user, &password) {
        (Some(_), None) => return Err(wrong("NATS_PASSWORD", "NATS_USER is set, so set its password, too".into())),
        (None, Some(_)) => return Err(wrong("NATS_USER", "NATS_PASSWORD is set, so set its user, too".into())),
        _ => {}
    }
    Ok(NatsConfig {
        url,
        creds: file(text, "NATS_CREDS")?,
        nkey: file(text, "NATS_NKEY")?,
        ca: file(text, "NATS_CA")?,
        cert,
        key,
        user,
        password,
        token: text("NATS_TOKEN"),
        tool: login(text, TOOL)?,
        otp: login(text, OTP)?,
        retrieve: login(text, RETRIEVE)?,
    })
}

/// Reads the credentials of a caller of services.
fn login(
    text: &dyn Fn(&str) -> Option<String>,
    [creds, nkey, user, password]: LoginNames,
) -> Result<Option<NatsLogin>, ConfigError> {
    let (creds, nkey) = (file(text, creds)?, file(text, nkey)?);
    let with_password = match (text(user), text(password)) {
        (Some(user), Some(password)) => Some(NatsLogin::Password { user, password }),
        (Some(_), None) => return Err(wrong(password, format!("{user} is set, so set its password, too"))),
        (None, Some(_)) => return Err(wrong(user, format!("{password} is set, so set its user, too"))),
        (None, None) => None,
    };
    Ok(creds.map(NatsLogin::Creds).or(nkey.map(NatsLogin::Nkey)).or(with_password))
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
        writeln!(f, "NATS_USER={}", self.user.as_deref().unwrap_or("unset"))?;
        writeln!(f, "NATS_PASSWORD={}", set(self.password.is_some()))?;
        let path = |path: &Option<PathBuf>| path.as_ref().map_or("unset".into(), |path| path.display().to_string());
        writeln!(f, "NATS_CREDS={}", set(self.creds.is_some()))?;
        writeln!(f, "NATS_NKEY={}", set(self.nkey.is_some()))?;
        writeln!(f, "NATS_CA={}", path(&self.ca))?;
        writeln!(f, "NATS_CERT={}", path(&self.cert))?;
        writeln!(f, "NATS_KEY={}", set(self.key.is_some()))?;
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

    /// Any file that is there.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    #[test]
    fn service_calls_use_their_own_nats_user() {
        let values = [
            ("NATS_URL", "nats://worker:pw@one:4222,nats://two"),
            ("NATS_TOOL_USER", "tool_caller"),
            ("NATS_TOOL_PASSWORD", "s3cret"),
            ("NATS_OTP_CREDS", FILE),
        ];
        let nats = read(&|name| values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()));
        let nats = nats.unwrap();
        let tool = nats.with(nats.tool.as_ref().unwrap());
        assert_eq!(tool.url.as_deref(), Some("nats://one:4222,nats://two"));
        assert_eq!((tool.user.as_deref(), tool.password.as_deref()), (Some("tool_caller"), Some("s3cret")));
        assert_eq!((nats.otp.clone(), nats.retrieve.clone()), (Some(NatsLogin::Creds(FILE.into())), None));
        let shown = nats.to_string();
        assert!(shown.contains("NATS_TOOL_USER=tool_caller") && !shown.contains("s3cret"), "{shown}");
    }
}
