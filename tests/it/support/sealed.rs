//! The product's processes seal what they store: payloads are opened here.

use turnstream::{
    log::{keys::Keys, nats::NatsLog},
    sealing::MasterKeys,
};

/// 32 bytes in base64.
pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A log that opens payloads.
pub fn log(client: async_nats::Client) -> NatsLog {
    NatsLog::sealing(client, Keys::new(MasterKeys::parse(MASTER_KEY).unwrap()))
}

/// What is stored at a place, in the clear.
pub async fn open(log: &NatsLog, subject: &str, payload: bytes::Bytes) -> bytes::Bytes {
    log.open(subject, payload).await.unwrap().expect("nobody has erased it")
}
