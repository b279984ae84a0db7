//! A nats-server that holds the product's streams.

use async_nats::Client;
use chrono::Utc;
use turnstream::{
    log::{keys::Keys, nats::NatsLog, streams},
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

    pub fn log(&self) -> NatsLog {
        NatsLog::new(self.client.clone())
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
