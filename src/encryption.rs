//! Encryption of stored payloads, under a key per conversation, so that destroying the key erases them (crypto-shredding).
//!
//! An encrypted payload is one byte of 1 (the version; JSON never begins with it), one of the class, the conversation's 16
//! bytes, the 8 bytes of the key's id, a nonce of 12, then AES-256-GCM of the clear payload with its tag of 16. The subject
//! (`place`) under which it is stored is authenticated with it, so the payload can't be moved. A conversation has a key for
//! each class of its events; keys are stored wrapped by a master key, which only the processes know that read and write
//! conversations.
//!
//! An attachment is encrypted with a key derived from the conversation's key and the content's digest, nonce zero, no
//! associated data: the same content of one conversation is the same object, and a holder of that key can read that object
//! alone.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// First byte of an encrypted payload.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 2 + 16 + ID_BYTES + NONCE_LEN;

/// The class of a payload; each class has its own key and its own retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyClass {
    /// Messages of people and the agent, and their identities.
    Said,
    /// Requests to tools and people during turns, and their results.
    Tools,
}

impl KeyClass {
    pub const ALL: [(KeyClass, &'static str); 2] = [(KeyClass::Said, "said"), (KeyClass::Tools, "tools")];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(class, _)| *class == self).map_or("", |(_, name)| name)
    }
}

/// The master keys: the first wraps, all of them unwrap.
#[derive(Clone)]
pub struct MasterKeys(Vec<DataKey>);

impl MasterKeys {
    /// Parses keys of 32 bytes in base64, separated by white space.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = |word: &str| {
            let bytes = BASE64_STANDARD.decode(word).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
            bytes.map(DataKey::new).ok_or_else(|| "a master key is 32 bytes in base64".to_string())
        };
        let keys = text.split_whitespace().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err("the value holds no master key".into()) } else { Ok(Self(keys)) }
    }

    /// Wraps a key for storage. The tag covers `name`, so the key can't be passed off as another conversation's.
    pub fn wrap(&self, name: &str, key: &DataKey) -> WrappedKey {
        let nonce = random();
        let mut bytes = key.bytes.to_vec();
        self.0[0].encrypt_in_place(nonce, name.as_bytes(), &mut bytes);
        WrappedKey { master: self.0[0].id_text(), key: BASE64_STANDARD.encode([&nonce[..], &bytes].concat()) }
    }

    /// Unwraps a key.
    pub fn unwrap(&self, name: &str, wrapped: &WrappedKey) -> Result<DataKey, DecryptError> {
        let master = self.0.iter().find(|master| master.id_text() == wrapped.master);
        let master = master.ok_or_else(|| DecryptError::Master(wrapped.master.clone()))?;
        let bytes = BASE64_STANDARD.decode(&wrapped.key).map_err(|_| DecryptError::Damaged)?;
        let (nonce, encrypted) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(DecryptError::Damaged)?;
        let mut encrypted = encrypted.to_vec();
        let clear = master.decrypt_in_place(*nonce, name.as_bytes(), &mut encrypted)?;
        Ok(DataKey::new(clear.try_into().map_err(|_| DecryptError::Damaged)?))
    }

    /// Returns whether a key is wrapped by the first of the master keys.
    pub fn is_current(&self, wrapped: &WrappedKey) -> bool {
        self.0[0].id_text() == wrapped.master
    }
}

/// A conversation's key in its stored form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// Id of the wrapping master key.
    pub master: String,
    /// Nonce, ciphertext and tag in base64.
    pub key: String,
}

/// The reason why a payload can't be decrypted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    #[error("this process does not have the master key {0}")]
    Master(String),
    #[error("the ciphertext was changed, moved, or encrypted with another key")]
    Damaged,
}

/// An AES-256-GCM key.
#[derive(Clone)]
pub struct DataKey {
    id: [u8; ID_BYTES],
    bytes: [u8; KEY_BYTES],
    aead: LessSafeKey,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.id_text())
    }
}

impl DataKey {
    /// Generates a key from the system's randomness.
    pub fn generate() -> Self {
        Self::new(random())
    }

    fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("the key is as long as the algorithm wants it");
        let id = digest(&SHA256, &bytes).as_ref().first_chunk().copied().expect("a digest is longer than an id");
        Self { id, bytes, aead: LessSafeKey::new(key) }
    }

    /// Encrypts a payload of a conversation for its subject (`place`).
    pub fn encrypt(&self, conversation: Uuid, class: KeyClass, place: &str, clear: &[u8]) -> Bytes {
        let nonce = random();
        let mut encrypted = Vec::with_capacity(HEAD_BYTES + clear.len() + AES_256_GCM.tag_len());
        encrypted.extend([VERSION, class as u8]);
        encrypted.extend(conversation.as_bytes());
        encrypted.extend(self.id);
        encrypted.extend(nonce);
        let mut content = clear.to_vec();
        self.encrypt_in_place(nonce, &authenticated(place, &encrypted), &mut content);
        encrypted.extend(content);
        encrypted.into()
    }

    /// Decrypts a payload.
    pub fn decrypt(&self, place: &str, encrypted: &EncryptedPayload) -> Result<Bytes, DecryptError> {
        let mut content = encrypted.content.to_vec();
        let clear = self.decrypt_in_place(encrypted.nonce, &authenticated(place, encrypted.head), &mut content)?.len();
        content.truncate(clear);
        Ok(content.into())
    }

    /// Returns whether this key encrypted the payload.
    pub fn is_of(&self, encrypted: &EncryptedPayload) -> bool {
        self.id == encrypted.key
    }

    /// Derives the key of an attachment from the SHA-256 of its content.
    pub fn of_content(&self, sha256: &[u8; 32]) -> ContentKey {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.bytes), sha256);
        ContentKey(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
    }

    fn encrypt_in_place(&self, nonce: [u8; NONCE_LEN], with: &[u8], content: &mut Vec<u8>) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.aead.seal_in_place_append_tag(nonce, Aad::from(with), content).expect("payloads are far below 64 GiB");
    }

    fn decrypt_in_place<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        with: &[u8],
        content: &'a mut [u8],
    ) -> Result<&'a [u8], DecryptError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.aead.open_in_place(nonce, Aad::from(with), content);
        opened.map(|clear| &*clear).map_err(|_| DecryptError::Damaged)
    }

    fn id_text(&self) -> String {
        HEXLOWER.encode(&self.id)
    }
}

/// The key of one attachment. It encrypts that content only, so its nonce is always zero.
#[derive(Clone)]
pub struct ContentKey([u8; KEY_BYTES]);

impl ContentKey {
    /// Parses the text form in an event.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Returns the text form for an event.
    pub fn text(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }

    pub fn encrypt(&self, clear: &[u8]) -> Bytes {
        let mut content = Vec::with_capacity(clear.len() + AES_256_GCM.tag_len());
        content.extend_from_slice(clear);
        DataKey::new(self.0).encrypt_in_place([0; NONCE_LEN], &[], &mut content);
        content.into()
    }

    pub fn decrypt(&self, encrypted: &[u8]) -> Result<Bytes, DecryptError> {
        let mut content = encrypted.to_vec();
        let clear = DataKey::new(self.0).decrypt_in_place([0; NONCE_LEN], &[], &mut content)?.len();
        content.truncate(clear);
        Ok(content.into())
    }
}

/// The parts of an encrypted payload.
pub struct EncryptedPayload<'a> {
    pub class: KeyClass,
    pub conversation: Uuid,
    key: [u8; ID_BYTES],
    nonce: [u8; NONCE_LEN],
    head: &'a [u8],
    content: &'a [u8],
}

impl<'a> EncryptedPayload<'a> {
    /// Parses an encrypted payload. `None`: the payload is clear.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (head, content) = payload.split_at_checked(HEAD_BYTES).filter(|(head, _)| head[0] == VERSION)?;
        let (class, _) = KeyClass::ALL.iter().find(|(class, _)| *class as u8 == head[1])?;
        let (head_of_key, nonce) = head.split_at(HEAD_BYTES - NONCE_LEN);
        let (before, key) = head_of_key.split_at(HEAD_BYTES - NONCE_LEN - ID_BYTES);
        Some(Self {
            class: *class,
            conversation: Uuid::from_slice(&before[2..]).ok()?,
            key: key.try_into().ok()?,
            nonce: nonce.try_into().ok()?,
            head: head_of_key,
            content,
        })
    }
}

/// Returns the associated data of an encrypted payload: its subject, and the head without the nonce.
fn authenticated(place: &str, head: &[u8]) -> Vec<u8> {
    [place.as_bytes(), b"\n", &head[..HEAD_BYTES - NONCE_LEN]].concat()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: Uuid = Uuid::from_u128(7);

    fn masters(bytes: &[u8]) -> MasterKeys {
        let keys: Vec<String> = bytes.iter().map(|byte| BASE64_STANDARD.encode([*byte; 32])).collect();
        MasterKeys::parse(&keys.join("\n")).unwrap()
    }

    #[test]
    fn a_ciphertext_decrypts_only_in_its_place() {
        let key = DataKey::generate();
        let payload = key.encrypt(CONVERSATION, KeyClass::Tools, "a.b", b"{\"text\":\"secret\"}");
        let encrypted = EncryptedPayload::parse(&payload).unwrap();
        assert_eq!((encrypted.class, encrypted.conversation), (KeyClass::Tools, CONVERSATION));
        assert!(key.is_of(&encrypted) && !DataKey::generate().is_of(&encrypted));
        assert_eq!(key.decrypt("a.b", &encrypted).unwrap(), &b"{\"text\":\"secret\"}"[..]);
        assert_eq!(key.decrypt("a.c", &encrypted), Err(DecryptError::Damaged));
        assert_eq!(DataKey::generate().decrypt("a.b", &encrypted), Err(DecryptError::Damaged));
        assert!(!payload.windows(6).any(|part| part == b"secret"));
    }

    #[test]
    fn no_byte_of_a_ciphertext_can_be_changed() {
        let key = DataKey::generate();
        let payload = key.encrypt(CONVERSATION, KeyClass::Said, "a.b", b"{}");
        for at in 0..payload.len() {
            let mut changed = payload.to_vec();
            changed[at] ^= 1;
            let opened = EncryptedPayload::parse(&changed).map(|encrypted| key.decrypt("a.b", &encrypted));
            assert!(!matches!(opened, Some(Ok(_))), "byte {at}");
        }
    }

    #[test]
    fn plaintext_is_not_taken_for_ciphertext() {
        for clear in [&b"{\"a\":1}"[..], b"", b"\x01", b"[1]"] {
            assert!(EncryptedPayload::parse(clear).is_none());
        }
    }

    #[test]
    fn a_key_is_unwrapped_by_its_master_key_under_its_name() {
        let (old, both) = (masters(&[1]), masters(&[2, 1]));
        let key = DataKey::generate();
        let wrapped = old.wrap("mine", &key);
        assert_eq!(both.unwrap("mine", &wrapped).unwrap().bytes, key.bytes);
        assert!(old.is_current(&wrapped) && !both.is_current(&wrapped));
        assert_eq!(both.unwrap("yours", &wrapped).unwrap_err(), DecryptError::Damaged);
        assert!(matches!(masters(&[2]).unwrap("mine", &wrapped), Err(DecryptError::Master(_))));
    }

    #[test]
    fn master_keys_are_32_bytes_in_base64() {
        for wrong in ["", " \n", "c2hvcnQ=", "not base64"] {
            assert!(MasterKeys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_content_of_one_conversation_is_the_same_object() {
        let (a, b) = (DataKey::generate(), DataKey::generate());
        let sha256 = [3; 32];
        let encrypted = a.of_content(&sha256).encrypt(b"a picture");
        assert_eq!(encrypted, a.of_content(&sha256).encrypt(b"a picture"));
        assert_ne!(encrypted, b.of_content(&sha256).encrypt(b"a picture"));
        let key = ContentKey::parse(&a.of_content(&sha256).text()).unwrap();
        assert_eq!(key.decrypt(&encrypted).unwrap(), &b"a picture"[..]);
        assert!(key.decrypt(&encrypted[1..]).is_err() && ContentKey::parse("AA==").is_none());
    }
}
