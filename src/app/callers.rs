//! Callers of external services, each over a connection of a user with no other permissions.

use std::sync::Arc;

use anyhow::Context;

use super::connect;
use crate::{
    calls::ServiceCaller,
    config::{Config, NatsLogin},
    nats::connection::NatsConnection,
    signing::{PublicKey, SigningKey},
    subjects,
};

/// Returns the caller of tools.
pub(super) async fn tools(config: &Config, nats: &NatsConnection) -> anyhow::Result<ServiceCaller> {
    caller(config, nats, config.nats.tool.as_ref(), "tool_caller", subjects::TOOL_CALLS).await
}

/// Returns the caller of the host's services for one-time passwords.
pub(super) async fn passwords(config: &Config, nats: &NatsConnection) -> anyhow::Result<ServiceCaller> {
    caller(config, nats, config.nats.otp.as_ref(), "otp_caller", subjects::OTP_CALLS).await
}

/// Returns the caller of organisations' own searches.
pub(super) async fn retrieval(config: &Config, nats: &NatsConnection) -> anyhow::Result<ServiceCaller> {
    caller(config, nats, config.nats.retrieve.as_ref(), "retrieve_caller", subjects::RETRIEVE_CALLS).await
}

/// Returns the public key that verifies this process's calls.
pub(super) fn public_key(config: &Config) -> anyhow::Result<Option<PublicKey>> {
    Ok(signer(config)?.map(|key| key.public()))
}

fn signer(config: &Config) -> anyhow::Result<Option<SigningKey>> {
    config.call_key.as_deref().map(SigningKey::read).transpose().context("SMOOTH_AGENT_CALL_KEY_FILE")
}

async fn caller(
    config: &Config,
    nats: &NatsConnection,
    login: Option<&NatsLogin>,
    role: &str,
    beginning: &'static str,
) -> anyhow::Result<ServiceCaller> {
    let key = signer(config)?;
    if key.is_none() && config.nats.has_user() {
        tracing::warn!(
            calls = beginning,
            "service calls are not signed: set SMOOTH_AGENT_CALL_KEY_FILE (`turnstream nats key` makes one)"
        );
    }
    let client = match login {
        Some(login) => {
            let config = Config { nats: config.nats.with(login), ..config.clone() };
            connect(&config, role).await.with_context(|| format!("as {role}"))?.client
        }
        None => {
            if config.nats.has_user() {
                tracing::warn!(
                    calls = beginning,
                    "services are called as the process's own NATS user, which then needs those permissions: configure a separate user \
                     (NATS_TOOL_USER, NATS_OTP_USER, NATS_RETRIEVE_USER)"
                );
            }
            nats.client.clone()
        }
    };
    Ok(ServiceCaller::new(client, key.map(Arc::new), beginning))
}
