//! Ed25519 keys, in the standard file formats (PKCS#8 and SPKI, PEM).
//!
//! They sign checkpoints of the log and calls of services.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519::pkcs8::{
    DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes, PublicKeyBytes,
};
use pem::{EncodeConfig, LineEnding, Pem};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use sha2::{Digest as _, Sha256};

use crate::domain::Digest;

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// The reason why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} is not an Ed25519 {what} key in PEM", path.display())]
    NotAKey { path: PathBuf, what: &'static str },
    #[error("SMOOTH_AGENT_AUDIT_KEY_FILE: set it to the file of a private key")]
    Unset,
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

/// A public key, which verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl SigningKey {
    /// Generates a key and writes both its files; neither may exist. Only the owner may read the private one.
    pub fn generate(private: &Path, public: &Path) -> Result<PublicKey, SigningKeyError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| SigningKeyError::NoRandomness)?;
        // Without the public key, since OpenSSL before 3 can't read files that hold it.
        let der = KeypairBytes { secret_key: seed, public_key: None }.to_pkcs8_der().expect("its length is fixed");
        let key = Self::of(der.as_bytes()).ok_or(SigningKeyError::NoRandomness)?;
        create(private, &pem(PRIVATE_LABEL, der.as_bytes()), true)?;
        create(public, &key.public().pem(), false)?;
        Ok(key.public())
    }

    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let not_a_key = || SigningKeyError::NotAKey { path: path.into(), what: "private" };
        let der = unpem(PRIVATE_LABEL, &read(path)?).ok_or_else(not_a_key)?;
        Self::of(&der).ok_or_else(not_a_key)
    }

    fn of(der: &[u8]) -> Option<Self> {
        let key = KeypairBytes::from_pkcs8_der(der).ok()?;
        let pair = match &key.public_key {
            Some(public) => Ed25519KeyPair::from_seed_and_public_key(&key.secret_key, &public.0),
            None => Ed25519KeyPair::from_seed_unchecked(&key.secret_key),
        };
        pair.ok().map(Self)
    }

    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Returns the signature, in base64.
    pub fn sign(&self, statement: &str) -> String {
        BASE64_STANDARD.encode(self.0.sign(statement.as_bytes()))
    }
}

impl PublicKey {
    pub fn read(path: &Path) -> Result<Self, SigningKeyError> {
        let not_a_key = || SigningKeyError::NotAKey { path: path.into(), what: "public" };
        Self::parse(&read(path)?).ok_or_else(not_a_key)
    }

    /// Parses the text of a key file.
    pub fn parse(text: &str) -> Option<Self> {
        PublicKeyBytes::from_public_key_der(&unpem(PUBLIC_LABEL, text)?).ok().map(|key| Self(key.0))
    }

    /// Returns the text of a key file.
    pub fn pem(&self) -> String {
        let der = PublicKeyBytes(self.0).to_public_key_der().expect("its length is fixed");
        pem(PUBLIC_LABEL, der.as_bytes())
    }

    /// Returns the key's id in signed statements: SHA-256 of its 32 bytes.
    pub fn id(&self) -> Digest {
        Digest(Sha256::digest(self.0).into())
    }

    /// Verifies a signature.
    pub fn signed(&self, statement: &str, signature: &str) -> bool {
        let signature = BASE64_STANDARD.decode(signature).unwrap_or_default();
        UnparsedPublicKey::new(&ED25519, self.0).verify(statement.as_bytes(), &signature).is_ok()
    }
}

fn read(path: &Path) -> Result<String, SigningKeyError> {
    fs::read_to_string(path).map_err(|cause| SigningKeyError::File { path: path.into(), cause })
}

fn create(path: &Path, text: &str, private: bool) -> Result<(), SigningKeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = private;
    let written =
        options.open(path).and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|cause| SigningKeyError::File { path: path.into(), cause })
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let parts = pem::parse_many(text).ok()?;
    parts.into_iter().find(|part| part.tag() == label).map(Pem::into_contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_read_from_its_files_and_verifies_its_signatures() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("key.pem"), folder.path().join("key.pub.pem"));
        let made = SigningKey::generate(&private, &public).unwrap();
        let (key, read) = (SigningKey::read(&private).unwrap(), PublicKey::read(&public).unwrap());
        assert_eq!((key.public(), &read), (made.clone(), &made));
        let signature = key.sign("yes");
        assert!(read.signed("yes", &signature) && !read.signed("no", &signature) && !read.signed("yes", "AAAA"));
        assert!(SigningKey::generate(&private, &public).is_err(), "a key that is there stays");
        assert!(SigningKey::read(&public).is_err() && PublicKey::read(&private).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// Files written by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    #[test]
    fn keys_made_by_openssl_are_read() {
        let key = SigningKey::read(Path::new("tests/data/keys/ed25519.pem"));
        assert!(key.is_ok(), "{:?}", key.err());
    }
}
