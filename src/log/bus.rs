//! The connection to NATS: made once per process, with what happens to it made visible.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event};

use crate::{config::Nats, limits};

/// Oldest server whose features (expected sequence over a filter, message schedules, TTLs) this program relies on.
pub const MINIMUM_SERVER: (u64, u64) = (2, 12);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("NATS_URL is not set")]
    NoUrl,
    #[error("can't read {0}: {1}")]
    File(String, std::io::Error),
    #[error("can't connect to NATS: {0}")]
    Connect(#[from] async_nats::ConnectError),
    #[error("nats-server {0} is too old, at least {major}.{minor} is needed", major = MINIMUM_SERVER.0, minor = MINIMUM_SERVER.1)]
    TooOld(String),
}

/// A connection, and whether the server has refused one of its permissions.
#[derive(Clone)]
pub struct Bus {
    pub client: Client,
    denied: Arc<AtomicBool>,
}

impl Bus {
    /// Connects as `name` and checks the server's version. Reconnects for ever afterwards.
    pub async fn connect(config: &Nats, name: &str) -> Result<Self, ConnectError> {
        let url = config.url.as_deref().ok_or(ConnectError::NoUrl)?;
        let denied = Arc::new(AtomicBool::new(false));
        let client = options(config, name, denied.clone()).await?.connect(url.split(',').collect::<Vec<_>>()).await?;
        let version = client.server_info().version;
        if !new_enough(&version) {
            return Err(ConnectError::TooOld(version));
        }
        Ok(Self { client, denied })
    }

    /// Connected, and nothing was denied: a process without a permission that it needs is not ready.
    pub fn healthy(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
            && !self.denied.load(Ordering::Relaxed)
    }
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    matches!((parts.next(), parts.next()), (Some(major), Some(minor)) if (major, minor) >= MINIMUM_SERVER)
}

async fn options(config: &Nats, name: &str, denied: Arc<AtomicBool>) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .name(name)
        .subscription_capacity(limits::NATS_SUBSCRIPTION_FRAMES)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_millis(limits::READ_TRY_MS)))
        .event_callback(move |event| {
            if matches!(&event, Event::ServerError(async_nats::ServerError::AuthorizationViolation))
                || event.to_string().contains("Permissions Violation")
            {
                denied.store(true, Ordering::Relaxed);
            }
            async move {
                match event {
                    Event::Connected => tracing::info!("connected to NATS"),
                    Event::SlowConsumer(sid) => {
                        tracing::warn!(sid, "a NATS subscription overflowed; its gaps are repaired")
                    }
                    other => tracing::warn!(event = %other, "NATS connection"),
                }
            }
        });
    if let Some(path) = &config.creds {
        options =
            options.credentials_file(path).await.map_err(|e| ConnectError::File(path.display().to_string(), e))?;
    }
    if let Some(path) = &config.nkey {
        options = options.nkey(read(path).await?.trim().to_string());
    }
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.clone());
    }
    if let Some(token) = &config.token {
        options = options.token(token.clone());
    }
    if let Some(ca) = &config.ca {
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
}

async fn read(path: &Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path).await.map_err(|e| ConnectError::File(path.display().to_string(), e))
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn server_versions_are_compared_as_numbers() {
        for (version, expected) in
            [("2.9.0", false), ("2.11.4", false), ("2.12.0", true), ("2.15.1", true), ("3.0.0-RC.1", true), ("", false)]
        {
            assert_eq!(new_enough(version), expected, "{version}");
        }
    }
}
