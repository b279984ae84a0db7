//! A nats-server with the product's streams.

use async_nats::Client;
use chrono::Utc;
use futures_util::StreamExt;
use turnstream::{
    config::NatsConfig,
    encryption::MasterKeys,
    log::{jetstream_log::NatsLog, key_store::KeyStore},
    nats::{connection::NatsConnection, streams},
};

use super::{nats::NatsServer, samples::REGION};

/// 32 bytes in base64.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server with the streams of [`REGION`], killed on drop.
pub struct Server {
    nats: NatsServer,
    pub client: Client,
}

impl Server {
    pub async fn start() -> Self {
        let nats = NatsServer::start().await;
        let client = nats.client().await;
        for definition in streams::definitions(REGION, None) {
            definition.apply(&client, Utc::now()).await.unwrap();
        }
        Self { nats, client }
    }

    /// Waits until the server has a client's subscriptions, and the client has every message sent to it before.
    pub async fn knows(&self, client: &Client) {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, "".into()).await.unwrap();
        answers.next().await.unwrap();
    }

    /// Returns another process's connection.
    pub async fn another_client(&self) -> Client {
        self.nats.client().await
    }

    pub fn log(&self) -> NatsLog {
        NatsLog::new(self.client.clone())
    }

    /// Returns the log of a process with a clock ahead by `by`.
    pub async fn log_ahead(&self, by: chrono::TimeDelta) -> NatsLog {
        let nats = NatsConfig { url: Some(self.nats.url()), ..NatsConfig::default() };
        let bus = NatsConnection::connect(&nats, "test").await.unwrap();
        let now = Utc::now();
        bus.clock.take(now, now + by, now);
        NatsLog::new(bus.client.clone()).over(&bus)
    }

    /// Returns a log that encrypts payloads, with a test master key and caches of its own.
    pub fn encrypting_log(&self) -> NatsLog {
        NatsLog::encrypting(self.client.clone(), KeyStore::new(MasterKeys::parse(MASTER_KEY).unwrap()))
    }

    /// Kills the server and restarts it on its store.
    pub async fn crash(&mut self) {
        self.nats.kill().await;
        self.nats.restart().await;
    }
}
