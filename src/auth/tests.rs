//! Tokens that must be accepted or refused, and the access of principals.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

use super::{Principal, Role, TokenError, TokenVerifier, may_reach};
use crate::{
    config::{AuthConfig, AuthMode},
    domain::conversation::owner_of,
    limits,
};

const SECRET: &str = "a secret that is as long as it has to be";
const RSA: &str = include_str!("../../tests/data/keys/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../tests/data/keys/rsa.pub.pem");
const P256: &str = include_str!("../../tests/data/keys/p256.pem");
const ED25519: &str = include_str!("../../tests/data/keys/ed25519.pem");

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Builds valid claims, with these changes; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "sub": "user-1", "org": "acme", "role": "basic", "groups": ["sales"], "email": "ada@example.org",
        "exp": now() + 600, "iss": "https://issuer.example", "aud": "turnstream",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn with_secret() -> AuthConfig {
    AuthConfig { mode: AuthMode::Jwt, hs256_secret: Some(SECRET.into()), ..AuthConfig::default() }
}

fn verifier(auth: &AuthConfig) -> TokenVerifier {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    TokenVerifier::new(auth).unwrap()
}

async fn verify(auth: &AuthConfig, token: &str) -> Result<Principal, TokenError> {
    verifier(auth).verify(token).await
}

#[tokio::test]
async fn a_valid_token_yields_its_principal() {
    let ada = Principal {
        user: "user-1".into(),
        org: "acme".into(),
        role: Role::Basic,
        groups: vec!["sales".into()],
        email: Some("ada@example.org".into()),
        name: None,
        expires_at: None,
    };
    let timeless = |principal: Principal| Principal { expires_at: None, ..principal };
    let verified = verify(&with_secret(), &hs256(&claims(json!({})))).await.unwrap();
    assert!(verified.expires_at.is_some_and(|at| (at - now() - 600).abs() < 60));
    assert_eq!(timeless(verified), ada);
    let plain = claims(json!({"org": null, "org_id": "acme", "groups": null, "email": null, "role": "Admin"}));
    let expected = Principal { role: Role::Admin, groups: vec![], email: None, ..ada };
    assert_eq!(timeless(verify(&with_secret(), &hs256(&plain)).await.unwrap()), expected);
}

#[tokio::test]
async fn claims_decide_acceptance() {
    let named = AuthConfig {
        issuer: Some("https://issuer.example".into()),
        audience: Some("turnstream".into()),
        ..with_secret()
    };
    let skew = limits::CLOCK_SKEW_SECS as i64;
    let cases = [
        (json!({}), true),
        (json!({"exp": now() - skew + 10}), true),
        (json!({"exp": now() - skew - 10}), false),
        (json!({"exp": null}), false),
        (json!({"exp": "tomorrow"}), false),
        (json!({"nbf": now() + skew - 10}), true),
        (json!({"nbf": now() + skew + 10}), false),
        (json!({"iss": null}), false),
        (json!({"iss": "https://issuer.example/"}), false),
        (json!({"iss": "https://other.example"}), false),
        (json!({"aud": null}), false),
        (json!({"aud": "another"}), false),
        (json!({"aud": ["another", "turnstream"]}), true),
        (json!({"sub": null}), false),
        (json!({"sub": " "}), false),
        (json!({"sub": 7}), false),
        (json!({"org": null}), false),
        (json!({"org": ""}), false),
        (json!({"org": {"id": "acme"}}), false),
        (json!({"role": null}), false),
        (json!({"role": "root"}), false),
        (json!({"role": "CURATOR"}), true),
        (json!({"role": "user"}), true),
        (json!({"groups": "sales"}), false),
        (json!({"groups": [1]}), false),
        (json!({"org": "o".repeat(limits::ORG_MAX_BYTES)}), true),
        (json!({"org": "o".repeat(limits::ORG_MAX_BYTES + 1)}), false),
        (json!({"org": null, "org_id": "ö".repeat(limits::ORG_MAX_BYTES)}), false),
        (json!({"sub": "s".repeat(limits::USER_MAX_BYTES + 1)}), false),
    ];
    for (changes, expected) in cases {
        let verified = verify(&named, &hs256(&claims(changes.clone()))).await;
        assert_eq!(verified.is_ok(), expected, "{changes}: {verified:?}");
    }
    // Claims that are not configured are not required.
    for changes in
        [json!({"iss": null}), json!({"aud": null}), json!({"aud": "another", "iss": "https://other.example"})]
    {
        assert!(verify(&with_secret(), &hs256(&claims(changes.clone()))).await.is_ok(), "{changes}");
    }
}

#[tokio::test]
async fn a_token_does_not_choose_its_algorithm() {
    let with_rsa =
        AuthConfig { mode: AuthMode::Jwt, rs256_public_key: Some(RSA_PUBLIC.into()), ..AuthConfig::default() };
    let claims = claims(json!({}));
    let rs256 = sign(&Header::new(Algorithm::RS256), &claims, &EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap());
    assert!(verify(&with_rsa, &rs256).await.is_ok());
    let one_line = AuthConfig { rs256_public_key: Some(RSA_PUBLIC.replace('\n', "\\n")), ..with_rsa.clone() };
    assert!(verify(&one_line, &rs256).await.is_ok());
    // A public key wins over a secret.
    let both = AuthConfig { hs256_secret: Some(SECRET.into()), ..with_rsa.clone() };
    assert!(verify(&both, &rs256).await.is_ok());
    assert!(verify(&both, &hs256(&claims)).await.is_err());

    let key_as_secret = EncodingKey::from_secret(RSA_PUBLIC.as_bytes());
    let confused = sign(&Header::new(Algorithm::HS256), &claims, &key_as_secret);
    let trimmed = EncodingKey::from_secret(RSA_PUBLIC.trim_end().as_bytes());
    let also_confused = sign(&Header::new(Algorithm::HS256), &claims, &trimmed);
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = ["none", "None", "NONE", "nOnE"]
        .map(|algorithm| format!("{}.{}.", part(json!({"alg": algorithm, "typ": "JWT"})), part(claims.clone())));
    let (head, rest) = rs256.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let other_body = part(json!({"sub": "eve", "org": "acme", "role": "admin", "exp": now() + 600}));
    let mut forged = vec![
        confused,
        also_confused,
        hs256(&claims),
        format!("{head}.{other_body}.{signature}"),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{}.{body}.{signature}", part(json!({"alg": "RS256", "typ": "JWT", "kid": "../../secret"})),),
        "..".into(),
        "a.b.c".into(),
        String::new(),
        "é.é.é".into(),
    ];
    forged.extend(unsigned);
    for token in forged {
        assert!(verify(&with_rsa, &token).await.is_err(), "{token}");
    }
    let long = hs256(&self::claims(json!({"name": "x".repeat(limits::TOKEN_MAX_BYTES)})));
    assert!(matches!(verify(&with_secret(), &long).await, Err(TokenError::TooLarge)));
}

#[tokio::test]
async fn a_trusted_proxy_passes_claims_on() {
    let trusted = AuthConfig { mode: AuthMode::Trusted, ..AuthConfig::default() };
    let token = |claims: Value| URL_SAFE_NO_PAD.encode(claims.to_string());
    let verified = verify(&trusted, &token(claims(json!({})))).await.unwrap();
    assert_eq!((verified.user.as_str(), verified.org.as_str()), ("user-1", "acme"));
    for refused in
        [token(claims(json!({"role": null}))), token(json!([])), "not base64!".into(), hs256(&claims(json!({})))]
    {
        assert!(verify(&trusted, &refused).await.is_err(), "{refused}");
    }
    let off = AuthConfig { mode: AuthMode::None, ..AuthConfig::default() };
    assert!(matches!(verify(&off, &token(claims(json!({})))).await, Err(TokenError::NotAccepted)));
}

/// An issuer that publishes keys.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    /// A permit is one answer; without one, the issuer keeps its clients waiting.
    answers: Arc<Semaphore>,
}

impl Issuer {
    async fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(AtomicUsize::new(0)));
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let (published, count, leave) = (keys.clone(), asked.clone(), answers.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let length = socket.read(&mut head).await.unwrap_or(0);
                let is_right = head[..length].starts_with(b"GET /.well-known/jwks.json ");
                count.fetch_add(1, Ordering::Relaxed);
                leave.acquire().await.unwrap().forget();
                let body = json!({"keys": *published.lock().unwrap()}).to_string();
                let status = if is_right { "200 OK" } else { "404 Not Found" };
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, keys, asked, answers }
    }
}

/// Builds a published key with this id.
fn published(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
    jwk.common.key_id = Some(id.into());
    serde_json::to_value(jwk).unwrap()
}

fn signed_by(key: &EncodingKey, algorithm: Algorithm, id: Option<&str>) -> String {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_string);
    sign(&header, &claims(json!({"iss": null})), key)
}

#[tokio::test]
async fn an_issuer_publishes_its_keys_and_rotates_them() {
    let rsa = EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
    let p256 = EncodingKey::from_ec_pem(P256.as_bytes()).unwrap();
    let ed25519 = EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let issuer = Issuer::start(json!([published(&rsa, Algorithm::RS256, "a")])).await;
    let jwks_url = Some(format!("{}/.well-known/jwks.json", issuer.url));
    let auth = AuthConfig { mode: AuthMode::Jwt, jwks_url, ..AuthConfig::default() };
    let verifier = verifier(&auth);

    assert!(verifier.verify(&signed_by(&rsa, Algorithm::RS256, Some("a"))).await.is_ok());
    assert!(verifier.verify(&signed_by(&rsa, Algorithm::RS256, None)).await.is_ok(), "it is the only one");
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
    // Made-up names cost the issuer nothing, for a while.
    for n in 0..20 {
        assert!(verifier.verify(&signed_by(&rsa, Algorithm::RS256, Some(&format!("made-up-{n}")))).await.is_err());
    }
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);

    // Another server, and later this one, knows the rotated keys only.
    let names = [("b", &p256, Algorithm::ES256), ("c", &ed25519, Algorithm::EdDSA)];
    let mut keys: Vec<Value> = names.iter().map(|(id, key, algorithm)| published(key, *algorithm, id)).collect();
    // A published shared secret is not a key.
    keys.push(json!({"kty": "oct", "kid": "d", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)}));
    *issuer.keys.lock().unwrap() = keys.into();
    let verifier = self::verifier(&auth);
    for (id, key, algorithm) in names {
        let verified = verifier.verify(&signed_by(key, algorithm, Some(id))).await;
        assert!(verified.is_ok(), "{id}: {verified:?}");
    }
    assert!(verifier.verify(&signed_by(&secret, Algorithm::HS256, Some("d"))).await.is_err());
    assert!(verifier.verify(&signed_by(&rsa, Algorithm::RS256, Some("a"))).await.is_err(), "it was taken away");
    assert!(verifier.verify(&signed_by(&p256, Algorithm::ES256, None)).await.is_err(), "there are several");
}

#[tokio::test]
async fn a_token_of_a_known_key_never_waits_for_a_slow_issuer() {
    let rsa = EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap();
    let p256 = EncodingKey::from_ec_pem(P256.as_bytes()).unwrap();
    let issuer = Issuer::start(json!([published(&rsa, Algorithm::RS256, "a")])).await;
    let jwks_url = Some(format!("{}/.well-known/jwks.json", issuer.url));
    let verifier = Arc::new(verifier(&AuthConfig { mode: AuthMode::Jwt, jwks_url, ..AuthConfig::default() }));
    let good = signed_by(&rsa, Algorithm::RS256, Some("a"));
    verifier.verify(&good).await.unwrap();
    verifier.forget_when_keys_were_read();
    issuer.answers.forget_permits(Semaphore::MAX_PERMITS);

    let unknown = signed_by(&p256, Algorithm::ES256, Some("b"));
    let waiting = tokio::spawn({
        let verifier = verifier.clone();
        async move { verifier.verify(&unknown).await.map(drop) }
    });
    while issuer.asked.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        verifier.verify(&good).await.expect("its key is known");
    }
    assert!(!waiting.is_finished(), "the issuer has not answered yet");
    issuer.answers.add_permits(1);
    assert!(matches!(waiting.await.unwrap(), Err(TokenError::Key(_))));
}

#[tokio::test]
async fn unknown_critical_extensions_are_refused() {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signed = |header: Value| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims(json!({}))));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    };
    let plain = json!({"alg": "HS256", "typ": "JWT"});
    verify(&with_secret(), &signed(plain)).await.expect("nothing is critical in it");
    for critical in [json!(["exp"]), json!(["b64"]), json!([]), Value::Null] {
        let token = signed(json!({"alg": "HS256", "typ": "JWT", "b64": true, "crit": critical}));
        assert!(verify(&with_secret(), &token).await.is_err(), "{critical}");
    }
}

#[tokio::test]
async fn an_issuers_keys_are_found_at_its_well_known_path() {
    let p256 = EncodingKey::from_ec_pem(P256.as_bytes()).unwrap();
    let issuer = Issuer::start(json!([published(&p256, Algorithm::ES256, "a")])).await;
    let auth = AuthConfig { mode: AuthMode::Smoo, issuer: Some(issuer.url.clone()), ..AuthConfig::default() };
    let verifier = verifier(&auth);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("a".into());
    let token = |iss: &str| sign(&header, &claims(json!({"iss": iss})), &p256);
    assert!(verifier.verify(&token(&issuer.url)).await.is_ok());
    assert!(verifier.verify(&token("https://other.example")).await.is_err());
}

#[tokio::test]
async fn an_unreachable_issuer_is_an_error() {
    let auth =
        AuthConfig { mode: AuthMode::Jwt, jwks_url: Some("http://127.0.0.1:1/keys".into()), ..AuthConfig::default() };
    let p256 = EncodingKey::from_ec_pem(P256.as_bytes()).unwrap();
    let verified = verify(&auth, &signed_by(&p256, Algorithm::ES256, Some("a"))).await;
    assert!(matches!(verified, Err(TokenError::Key(_))), "{verified:?}");
}

fn principal(org: &str, email: Option<&str>) -> Principal {
    Principal {
        user: "u".into(),
        org: org.into(),
        role: Role::Basic,
        groups: vec![],
        email: email.map(str::to_string),
        name: None,
        expires_at: None,
    }
}

#[test]
fn only_the_owner_reaches_a_conversation() {
    let ada = Some(principal("acme", Some(" Ada@Example.org ")));
    let eve = Some(principal("acme", Some("eve@example.org")));
    let nameless = Some(principal("acme", None));
    let other_ada = Some(principal("globex", Some("ada@example.org")));
    let owned = Some("ada@example.org");
    for (who, owner, expected) in [
        (&ada, owned, true),
        (&ada, None, true),
        (&eve, owned, false),
        (&eve, None, true),
        (&nameless, owned, false),
        (&nameless, None, true),
        (&other_ada, owned, false),
        (&other_ada, None, false),
        (&None, owned, false),
        (&None, None, true),
    ] {
        assert_eq!(may_reach(who.as_ref(), "acme", owner, None), expected, "{who:?} and {owner:?}");
        let proved = may_reach(who.as_ref(), "acme", owner, owned);
        assert_eq!(proved, expected || who != &other_ada, "{who:?} and {owner:?} by a session that proved it");
        assert_eq!(may_reach(who.as_ref(), "acme", owner, Some("eve@example.org")), expected, "{who:?} and {owner:?}");
    }
}

#[test]
fn roles_have_names_and_an_order() {
    let names = ["basic", "User", "CURATOR", "admin", "root", ""].map(Role::parse);
    assert_eq!(names, [Some(Role::Basic), Some(Role::Basic), Some(Role::Curator), Some(Role::Admin), None, None]);
    assert!(Role::Admin > Role::Curator && Role::Curator > Role::Basic);
    assert_eq!((owner_of("  "), owner_of(" A@B.c ")), (None, Some("a@b.c".into())));
}
