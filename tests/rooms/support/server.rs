//! A nats-server that holds the product's streams.

use async_nats::Client;
use chrono::Utc;
use turnstream::log::{nats::NatsLog, streams};

use super::{nats::NatsServer, samples::REGION};

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

    /// Kills the server and starts it again on what it had stored.
    pub async fn crash(&mut self) {
        self.nats.kill().await;
        self.nats.restart().await;
    }
}
