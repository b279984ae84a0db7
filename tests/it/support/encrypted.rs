//! Decrypts the payloads that the product's processes encrypt in the log.

use turnstream::{
    encryption::MasterKeys,
    log::{jetstream_log::NatsLog, key_store::KeyStore},
};

/// 32 bytes in base64.
pub const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Returns a log that decrypts payloads.
pub fn log(client: async_nats::Client) -> NatsLog {
    NatsLog::encrypting(client, KeyStore::new(MasterKeys::parse(MASTER_KEY).unwrap()))
}

/// Returns the plain payload stored under a subject.
pub async fn open(log: &NatsLog, subject: &str, payload: bytes::Bytes) -> bytes::Bytes {
    log.decrypt(subject, payload).await.unwrap().expect("the file was not erased")
}
