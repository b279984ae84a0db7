//! The NATS connection: one per process, with its state and refusals visible.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::Path,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use tokio::{sync::watch, time::timeout};

use super::clock::Clock;

use crate::{config::NatsConfig, limits, metrics::metrics, subjects};

/// Oldest server with the required features: expected sequence over a filter, message schedules, TTLs.
pub const MINIMUM_SERVER: (u64, u64) = (2, 12);

/// The reason why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("NATS_URL is not set")]
    NoUrl,
    #[error("can't read {0}: {1}")]
    File(String, std::io::Error),
    /// No retry helps: the server knows no such user, or another password.
    #[error("NATS refuses the user: check {0}")]
    Login(&'static str),
    #[error("can't connect to NATS: {0}")]
    Connect(async_nats::ConnectError),
    #[error("nats-server {0} is too old, at least {major}.{minor} is needed", major = MINIMUM_SERVER.0, minor = MINIMUM_SERVER.1)]
    TooOld(String),
}

/// Pause between two looks for a refusal of the inbox, while a process starts.
const INBOX_LOOK_MS: u64 = 50;
/// Number of refusals kept: one makes the process unhealthy, and a permission check wants all of its own.
const REFUSALS_KEPT: usize = 1_000;

/// The server's refusals, in its words, with the time of the last occurrence.
type Refused = Arc<Mutex<BTreeMap<String, Instant>>>;

/// A connection, with its clock and its server's refusals.
#[derive(Clone)]
pub struct NatsConnection {
    pub client: Client,
    /// The server's clock, as measured last.
    pub clock: Clock,
    /// Number of connections made.
    pub connections: Arc<watch::Sender<u64>>,
    refused: Refused,
}

/// Waits for a call of the client library, for a short time: under load the call may never start.
pub async fn soon<T, E: Display>(call: impl IntoFuture<Output = Result<T, E>>) -> Result<T, String> {
    within(limits::NATS_CALL_MS, call).await
}

/// Waits for a call of the client library for at most `ms`. A call that is ready at once costs no timer.
pub async fn within<T, E: Display>(ms: u64, call: impl IntoFuture<Output = Result<T, E>>) -> Result<T, String> {
    let mut call = std::pin::pin!(call.into_future());
    let done = match futures_util::poll!(&mut call) {
        Poll::Ready(done) => done,
        Poll::Pending => timeout(Duration::from_millis(ms), call).await.map_err(|_| "no answer in time".to_string())?,
    };
    done.map_err(|error| error.to_string())
}

impl NatsConnection {
    /// Connects under this role and checks the server's version. Reconnects for ever afterwards.
    pub async fn connect(config: &NatsConfig, name: &str) -> Result<Self, ConnectError> {
        let url = config.url.as_deref().ok_or(ConnectError::NoUrl)?;
        let (refused, connections) = (Refused::default(), Arc::<watch::Sender<u64>>::default());
        let options = options(config, name, refused.clone(), connections.clone()).await?;
        let client = options.connect(url.split(',').collect::<Vec<_>>()).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                ConnectError::Login(login_names(config))
            }
            _ => ConnectError::Connect(error),
        })?;
        let version = client.server_info().version;
        if !new_enough(&version) {
            return Err(ConnectError::TooOld(version));
        }
        Ok(Self { client, clock: Clock::default(), connections, refused })
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Returns whether the process is connected and nothing is denied to it.
    ///
    /// A process that lacks a permission it needs is not ready.
    pub fn healthy(&self) -> bool {
        let refused = self.refused.lock().expect("no panic happens under this lock");
        self.is_connected() && !refused.iter().any(|(refusal, at)| is_subscription(refusal) || is_fresh(*at))
    }

    /// Returns the server's refusals, in its words.
    pub fn refusals(&self) -> Vec<String> {
        self.refused.lock().expect("no panic happens under this lock").keys().cloned().collect()
    }

    /// Returns the refusal of the process's own inbox, as soon as there is one: then no request of it is ever answered.
    pub async fn inbox_refused(&self) -> String {
        loop {
            if let Some(refusal) =
                self.refusals().into_iter().find(|r| is_subscription(r) && r.contains(subjects::INBOXES))
            {
                return refusal;
            }
            tokio::time::sleep(Duration::from_millis(INBOX_LOOK_MS)).await;
        }
    }

    /// Reconnects if a subscription was refused some time ago.
    ///
    /// A refused subscription is not retried by itself. A new connection renews all subscriptions: those allowed by now are
    /// delivered from then on, the others are refused again.
    pub async fn try_refused_again(&self) {
        let is_due = {
            let refused = self.refused.lock().expect("no panic happens under this lock");
            refused.iter().any(|(refusal, at)| is_subscription(refusal) && !is_fresh(*at))
        };
        if is_due && let Err(error) = soon(self.client.force_reconnect()).await {
            tracing::warn!(error, "reconnecting to NATS failed");
        }
    }
}

/// Returns the settings that the process logs in with.
fn login_names(config: &NatsConfig) -> &'static str {
    match config {
        NatsConfig { creds: Some(_), .. } => "NATS_CREDS",
        NatsConfig { nkey: Some(_), .. } => "NATS_NKEY",
        NatsConfig { user: Some(_), .. } => "NATS_USER and NATS_PASSWORD",
        NatsConfig { token: Some(_), .. } => "NATS_TOKEN",
        _ => "NATS_URL, which names the user, or set NATS_USER and NATS_PASSWORD",
    }
}

fn is_subscription(refusal: &str) -> bool {
    refusal.to_lowercase().contains("subscription to")
}

fn is_fresh(at: Instant) -> bool {
    at.elapsed() < Duration::from_secs(limits::REFUSAL_SECS)
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map_while(|part| part.parse::<u64>().ok());
    matches!((parts.next(), parts.next()), (Some(major), Some(minor)) if (major, minor) >= MINIMUM_SERVER)
}

async fn options(
    config: &NatsConfig,
    name: &str,
    refused: Refused,
    connections: Arc<watch::Sender<u64>>,
) -> Result<ConnectOptions, ConnectError> {
    // Replies arrive at an inbox prefix that only this role may subscribe to.
    let mut options = ConnectOptions::new()
        .name(format!("turnstream {name}"))
        .custom_inbox_prefix(subjects::inbox_prefix(name))
        .subscription_capacity(limits::NATS_SUBSCRIPTION_FRAMES)
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(10))
        .request_timeout(Some(Duration::from_millis(limits::READ_TRY_MS)))
        .event_callback(move |event| {
            if matches!(&event, Event::ServerError(async_nats::ServerError::AuthorizationViolation))
                || event.to_string().contains("Permissions Violation")
            {
                metrics().process.violated();
                let mut refused = refused.lock().expect("no panic happens under this lock");
                if refused.len() < REFUSALS_KEPT {
                    refused.insert(event.to_string(), Instant::now());
                }
            }
            if matches!(event, Event::Connected) {
                let mut refused = refused.lock().expect("no panic happens under this lock");
                refused.retain(|refusal, _| !is_subscription(refusal));
                connections.send_modify(|made| *made += 1);
                metrics().process.connection_made();
            }
            async move {
                match event {
                    Event::Connected => tracing::info!("connected to NATS"),
                    Event::SlowConsumer(sid) => {
                        metrics().process.overflowed();
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
    fn refused_subscriptions_are_told_from_refused_publishes() {
        use async_nats::{Event, ServerError};
        let said = |text: &str| Event::ServerError(ServerError::Other(text.into())).to_string();
        assert!(super::is_subscription(&said("Permissions Violation for Subscription to \"stop.local.>\"")));
        assert!(!super::is_subscription(&said("Permissions Violation for Publish to \"subscription.to\"")));
    }

    #[test]
    fn server_versions_are_compared_as_numbers() {
        for (version, expected) in
            [("2.9.0", false), ("2.11.4", false), ("2.12.0", true), ("2.15.1", true), ("3.0.0-RC.1", true), ("", false)]
        {
            assert_eq!(new_enough(version), expected, "{version}");
        }
    }
}
