//! Tokens of every kind, each at three doors: a strict edge's handshake, the administrators' API, and another user's session.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{
    identity::handshake,
    support::{client::Client, frames::code, http::call},
};

use super::{Battery, World, ask, outcome};

pub const RSA_PUBLIC: &str = include_str!("../../data/keys/rsa.pub.pem");
pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "turnstream";
const RSA: &str = include_str!("../../data/keys/rsa.pem");
const P256: &str = include_str!("../../data/keys/p256.pem");
const ED25519: &str = include_str!("../../data/keys/ed25519.pem");

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Returns Ada's claims with these changes; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "sub": "ada", "org": "acme", "role": "basic", "email": "ada@acme.example", "exp": now() + 600,
        "iss": ISSUER, "aud": AUDIENCE,
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// Returns a token signed by the issuer.
pub fn signed(changes: Value) -> String {
    with(Algorithm::RS256, &rsa(), &claims(changes))
}

pub fn ada() -> String {
    signed(json!({}))
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()
}

fn with(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

/// Returns a token with valid header and claims and the given signature.
fn raw(header: Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(&header), part(&claims(json!({}))))
}

/// Returns a valid token with other claims under its signature.
fn changed_after_signing() -> String {
    let (good, other) = (ada(), signed(json!({"role": "admin"})));
    let (good, other): (Vec<&str>, Vec<&str>) = (good.split('.').collect(), other.split('.').collect());
    [good[0], other[1], good[2]].join(".")
}

const GOOD: &str = "200";
const BAD: &str = "INVALID_TOKEN";
const NO_ROLE: &str = "MISSING_ROLE";

/// Returns tokens with the administrators' API's answer to each; all claim to be Ada's.
fn tokens() -> Vec<(&'static str, String, &'static str)> {
    let secret = |secret: &str| EncodingKey::from_secret(secret.as_bytes());
    let is = |changes: Value| signed(changes);
    let rs256 = json!({"alg": "RS256", "typ": "JWT"});
    vec![
        ("a basic one", ada(), GOOD),
        ("a curator's", is(json!({"role": "curator"})), GOOD),
        ("an administrator's", is(json!({"role": "admin"})), GOOD),
        ("a role in capitals", is(json!({"role": "ADMIN"})), GOOD),
        ("the other name of the least role", is(json!({"role": "user"})), GOOD),
        ("`org_id`", is(json!({"org": null, "org_id": "acme"})), GOOD),
        ("just expired, as clocks differ", is(json!({"exp": now() - 5})), GOOD),
        ("valid in a moment, as clocks differ", is(json!({"nbf": now() + 5})), GOOD),
        ("one of several audiences", is(json!({"aud": ["other", AUDIENCE]})), GOOD),
        ("expired", is(json!({"exp": now() - 120})), BAD),
        ("without `exp`", is(json!({"exp": null})), BAD),
        ("`exp` in words", is(json!({"exp": "tomorrow"})), BAD),
        ("a negative `exp`", is(json!({"exp": -1})), BAD),
        ("not valid yet", is(json!({"nbf": now() + 120})), BAD),
        ("another issuer's", is(json!({"iss": "https://evil.example"})), BAD),
        ("an issuer with a slash", is(json!({"iss": "https://issuer.example/"})), BAD),
        ("without `iss`", is(json!({"iss": null})), BAD),
        ("for another audience", is(json!({"aud": "other"})), BAD),
        ("for no audience", is(json!({"aud": []})), BAD),
        ("without `aud`", is(json!({"aud": null})), BAD),
        ("without `sub`", is(json!({"sub": null})), BAD),
        ("a blank `sub`", is(json!({"sub": " "})), BAD),
        ("`sub` as a number", is(json!({"sub": 7})), BAD),
        ("without an organisation", is(json!({"org": null})), BAD),
        ("a blank organisation", is(json!({"org": ""})), BAD),
        ("groups as a text", is(json!({"groups": "sales"})), BAD),
        ("without a role", is(json!({"role": null})), NO_ROLE),
        ("an unknown role", is(json!({"role": "root"})), NO_ROLE),
        ("a role as a list", is(json!({"role": ["admin"]})), BAD),
        ("algorithm none", raw(json!({"alg": "none"}), ""), BAD),
        ("algorithm None", raw(json!({"alg": "None", "typ": "JWT"}), "AA"), BAD),
        ("no algorithm", raw(json!({"typ": "JWT"}), "AA"), BAD),
        ("the public key as a secret", with(Algorithm::HS256, &secret(RSA_PUBLIC), &claims(json!({}))), BAD),
        (
            "the public key's lines as a secret",
            with(Algorithm::HS256, &secret(RSA_PUBLIC.trim()), &claims(json!({}))),
            BAD,
        ),
        ("the public key as a longer secret", with(Algorithm::HS512, &secret(RSA_PUBLIC), &claims(json!({}))), BAD),
        ("a guessed secret", with(Algorithm::HS256, &secret("secret"), &claims(json!({}))), BAD),
        ("an empty secret", with(Algorithm::HS256, &secret(""), &claims(json!({}))), BAD),
        ("the right key, another algorithm", with(Algorithm::RS384, &rsa(), &claims(json!({}))), BAD),
        ("the right key, other padding", with(Algorithm::PS256, &rsa(), &claims(json!({}))), BAD),
        (
            "an elliptic key",
            with(Algorithm::ES256, &EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(), &claims(json!({}))),
            BAD,
        ),
        (
            "an Edwards key",
            with(Algorithm::EdDSA, &EncodingKey::from_ed_pem(ED25519.as_bytes()).unwrap(), &claims(json!({}))),
            BAD,
        ),
        ("no signature", raw(rs256.clone(), ""), BAD),
        ("a made-up signature", raw(rs256, "c2lnbmF0dXJl"), BAD),
        ("changed after signing", changed_after_signing(), BAD),
        ("too large", is(json!({"name": "x".repeat(9_000)})), BAD),
    ]
}

/// Texts that are no tokens.
fn malformed() -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("cut off", ada()[..200].to_owned(), BAD),
        ("a byte too much", format!("{}A", ada()), BAD),
        ("four parts", format!("{}.x", ada()), BAD),
        ("one word", "garbage".into(), BAD),
        ("two dots", "..".into(), BAD),
        ("three letters", "a.b.c".into(), BAD),
        ("nothing", String::new(), "UNAUTHENTICATED"),
    ]
}

pub(super) async fn run(world: &World, battery: &mut Battery) {
    for (name, token, admin) in tokens().into_iter().chain(malformed()) {
        let query = format!("?token={token}");
        let strict = Client::try_connect(handshake(&world.strict, &query, None)).await;
        let opened = strict.map_or_else(|status| status.to_string(), |_| GOOD.into());
        battery.expect("handshakes", name, &opened, if admin == GOOD { GOOD } else { "401" });

        let (status, answer) = call(&world.mild, "GET", "/admin/me", Some(&token), None).await;
        let got = if status == 401 { code(&answer).to_owned() } else { status.to_string() };
        battery.expect("administrators' tokens", name, &got, admin);

        let mut client = Client::try_connect(handshake(&world.mild, &query, None)).await.unwrap();
        if admin != GOOD && !token.is_empty() {
            // An invalid token does not make its bearer anonymous: the error is sent, and the connection is closed.
            let said = client.next().await;
            battery.expect("sessions by token", name, code(&said), BAD);
            battery.expect("sessions by token", name, &format!("{:?}", client.close_code().await), "Some(4401)");
            continue;
        }
        let answers = ask(&mut client, json!({"action": "get_session", "sessionId": world.approval.id})).await;
        let wanted = if admin == GOOD { GOOD } else { "SESSION_NOT_FOUND" };
        battery.expect("sessions by token", name, &outcome(&answers), wanted);
        if admin != GOOD {
            battery.heard(name, &json!([answer, answers]));
        }
    }
    // The header's token takes precedence over the query's, valid or not.
    let (good, bad) = (ada(), signed(json!({"exp": 1})));
    for (bearer, query, wanted) in [(&good, &bad, GOOD), (&bad, &good, "401")] {
        let request = handshake(&world.strict, &format!("?token={query}"), Some(bearer));
        let opened = Client::try_connect(request).await.map_or_else(|status| status.to_string(), |_| GOOD.into());
        battery.expect("handshakes", "a header and an address", &opened, wanted);
    }
}
