//! A nats-server that holds the product's streams.

use async_nats::Client;
use chrono::Utc;
use futures_util::StreamExt;
use turnstream::{
    config::Nats,
    log::{bus::Bus, keys::Keys, nats::NatsLog, streams},
    sealing::MasterKeys,
};

use super::{nats::NatsServer, samples::REGION};

/// 32 bytes in base64.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server with the streams of [`REGION`]; it ends with the value.
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

    /// Waits until the server knows a client's subscriptions, and the client has every message that was sent to it before.
    pub async fn knows(&self, client: &Client) {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, "".into()).await.unwrap();
        answers.next().await.unwrap();
    }

    /// Another process's connection.
    pub async fn another_client(&self) -> Client {
        self.nats.client().await
    }

    pub fn log(&self) -> NatsLog {
        NatsLog::new(self.client.clone())
    }

    /// A log of a process for which it is later by so much.
    pub async fn log_ahead(&self, by: chrono::TimeDelta) -> NatsLog {
        let nats = Nats { url: Some(self.nats.url()), ..Nats::default() };
        let bus = Bus::connect(&nats, "test").await.unwrap();
        let now = Utc::now();
        bus.clock.take(now, now + by, now);
        NatsLog::new(bus.client.clone()).over(&bus)
    }

    /// A log that seals what it stores, with a master key of the tests and caches of its own.
    pub fn sealing_log(&self) -> NatsLog {
        NatsLog::sealing(self.client.clone(), Keys::new(MasterKeys::parse(MASTER_KEY).unwrap()))
    }

    /// Kills the server and starts it again on what it had stored.
    pub async fn crash(&mut self) {
        self.nats.kill().await;
        self.nats.restart().await;
    }
}
