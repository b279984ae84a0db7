//! Origins, contexts and strictness, case by case. The service is tested through the product.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;

const NOW: i64 = 1_800_000_000;
const KEY: &str = "the widget's key";

fn signature(user: &str, timestamp: i64, key: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("{user}:{timestamp}").as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}

fn widgets(policy: WidgetPolicy, strict: bool) -> WidgetGate {
    WidgetGate::new(vec![PolicySource::File(HashMap::from([("shop".to_string(), policy)]))], strict)
}

fn allowing(origins: &[&str]) -> WidgetPolicy {
    let allowed_origins = origins.iter().map(|origin| origin.to_string()).collect();
    WidgetPolicy { allowed_origins, public_key: Some(KEY.into()), organization_id: Some("acme".into()) }
}

#[tokio::test]
async fn a_page_is_allowed_by_its_origin_alone() {
    let admits = async |patterns: &[&str], origin: Option<&str>| {
        widgets(allowing(patterns), false).admit(Some("shop"), origin, None, NOW).await.is_ok()
    };
    let exact = ["https://shop.example", "http://localhost:3000"];
    for (origin, expected) in [
        (Some("https://shop.example"), true),
        (Some("https://SHOP.example:443"), true),
        (Some("http://localhost:3000"), true),
        (Some("http://shop.example"), false),
        (Some("https://shop.example:8443"), false),
        (Some("https://www.shop.example"), false),
        (Some("https://shop.example.evil.com"), false),
        (Some("https://shop.example/path"), false),
        (Some("https://shop.example@evil.com"), false),
        (Some("http://localhost"), false),
        (Some("null"), false),
        (Some(""), false),
        (None, false),
    ] {
        assert_eq!(admits(&exact, origin).await, expected, "{origin:?}");
    }
    for (origin, expected) in [
        ("https://host.example", true),
        ("https://a.host.example", true),
        ("https://a.b.host.example", true),
        ("https://evilhost.example", false),
        ("https://evil.com/.host.example", false),
        ("https://evil.com?.host.example", false),
        ("https://evil.com#.host.example", false),
        ("https://evil.com\\.host.example", false),
        ("https://host.example.evil.com", false),
        ("http://a.host.example", false),
        ("https://a.host.example:444", false),
        ("ftp://a.host.example", false),
    ] {
        assert_eq!(admits(&["https://*.host.example"], Some(origin)).await, expected, "{origin}");
    }
    for origin in [None, Some("https://any.where"), Some("null"), Some("nonsense")] {
        assert!(admits(&["*"], origin).await, "{origin:?}");
        for nobody in [&[][..], &["https://*"], &["*.host.example"], &["https://"], &["https://*."], &["**"]] {
            assert!(!admits(nobody, origin).await, "{nobody:?} {origin:?}");
        }
    }
}

#[tokio::test]
async fn a_signed_assertion_holds_for_a_minute_and_for_its_user() {
    let verified = async |context: Value| {
        let admitted = widgets(allowing(&["*"]), false).admit(Some("shop"), None, Some(&context), NOW).await;
        admitted.map(|admitted| admitted.proof.map(|proof| proof.user))
    };
    let context = |user: &str, at: i64| json!({"userId": user, "timestamp": at, "signature": signature(user, at, KEY)});
    for age in [-60, -1, 0, 60] {
        assert_eq!(verified(context("ada", NOW - age)).await, Ok(Some("ada".into())), "{age}");
    }
    let good = context("ada", NOW);
    let with = |name: &str, value: Value| {
        let mut context = good.clone();
        context[name] = value;
        context
    };
    let upper = good["signature"].as_str().unwrap().to_uppercase();
    assert_eq!(verified(with("signature", json!(upper))).await, Ok(Some("ada".into())));
    for bad in [
        context("ada", NOW - 61),
        context("ada", NOW + 61),
        context(" ", NOW),
        with("userId", json!("eve")),
        with("userId", json!(7)),
        with("timestamp", json!(NOW - 1)),
        with("timestamp", json!(NOW as f64 + 0.5)),
        with("timestamp", json!(NOW.to_string())),
        with("timestamp", json!(i64::MIN)),
        with("timestamp", json!(NOW * 1_000)),
        with("signature", json!(signature("ada", NOW, "another key"))),
        with("signature", json!("")),
        with("signature", json!(&upper[1..])),
        with("signature", json!("ü".repeat(32))),
        with("signature", Value::Null),
        json!({}),
        json!([]),
        json!("ada"),
        Value::Null,
    ] {
        assert_eq!(verified(bad.clone()).await, Err(WidgetRefusal::Context), "{bad}");
    }
    let keyless = widgets(WidgetPolicy { public_key: None, ..allowing(&["*"]) }, false);
    assert_eq!(keyless.admit(Some("shop"), None, Some(&good), NOW).await, Err(WidgetRefusal::Context));
    let empty = json!({"userId": "ada", "timestamp": NOW, "signature": signature("ada", NOW, "")});
    let unkeyed = widgets(WidgetPolicy { public_key: Some(String::new()), ..allowing(&["*"]) }, false);
    assert_eq!(unkeyed.admit(Some("shop"), None, Some(&empty), NOW).await, Err(WidgetRefusal::Context));
}

#[tokio::test]
async fn the_case_of_a_signature_does_not_matter() {
    let id = async |signature: String| {
        let context = json!({"userId": "ada", "timestamp": NOW, "signature": signature});
        let admitted = widgets(allowing(&["*"]), false).admit(Some("shop"), None, Some(&context), NOW).await;
        admitted.unwrap().proof.unwrap().id
    };
    let signature = signature("ada", NOW, KEY);
    assert_eq!(id(signature.to_uppercase()).await, id(signature).await);
}

#[tokio::test]
async fn strict_mode_refuses_agents_without_a_policy() {
    for (agent, strict, expected) in [
        (Some("shop"), true, Ok(Some("acme".to_string()))),
        (Some("other"), true, Err(WidgetRefusal::NotAuthorized)),
        (None, true, Err(WidgetRefusal::NotAuthorized)),
        (Some("other"), false, Ok(None)),
        (None, false, Ok(None)),
    ] {
        let widgets = widgets(allowing(&["*"]), strict);
        // Without a policy, the context is not looked at.
        let context = (agent != Some("shop")).then_some(Value::Null);
        let admitted = widgets.admit(agent, None, context.as_ref(), NOW).await;
        assert_eq!(admitted.map(|admitted| admitted.org), expected, "{agent:?}, strict: {strict}");
    }
}

#[tokio::test]
async fn the_first_source_with_a_policy_wins() {
    let known = |agent: &str| (agent == "shop").then(|| allowing(&["https://first.example"]));
    let second = HashMap::from([("shop".into(), allowing(&["*"])), ("other".into(), allowing(&["*"]))]);
    let widgets = WidgetGate::new(
        vec![
            PolicySource::Known { lookup: std::sync::Arc::new(known), any: std::sync::Arc::new(|| true) },
            PolicySource::File(second),
        ],
        true,
    );
    assert_eq!(widgets.admit(Some("shop"), None, None, NOW).await, Err(WidgetRefusal::Origin));
    assert!(widgets.admit(Some("other"), None, None, NOW).await.is_ok());
}
