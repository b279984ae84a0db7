//! Fuzzes the readers of untrusted input and of stored data: all input is accepted or refused, and nothing panics.
//!
//! Contract: inputs are valid samples mutated as values and as bytes, and arbitrary text. `FUZZ_CASES` sets the number of
//! inputs in all; a failure is shrunk and printed as the input that caused it.

use std::collections::{BTreeMap, HashMap};

use chrono::Utc;
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};
use turnstream::{
    agents::config::AgentConfig,
    auth::{
        TokenVerifier,
        widget::{PolicySource, WidgetGate, WidgetPolicy},
    },
    config::{AuthConfig, AuthMode},
    domain::{Command, Conversation, RecordedEvent, decide, interaction::Form, next_step, title},
    subjects::{self, ConversationKey},
    wire::{
        actions::{self, Action},
        frames,
        live::{FrameMark, ResumeCursor},
        render, stored,
    },
};
use uuid::Uuid;

use crate::support::samples::second;

const TARGETS: u32 = 7;
const INPUTS: u32 = 21_000;
const SECRET: &str = "a secret that is as long as it has to be";

/// Runs one target's share of the inputs.
fn fuzz<S: Strategy>(target: &str, inputs: &S, take: impl Fn(S::Value)) {
    let all = std::env::var("FUZZ_CASES").map_or(INPUTS, |cases| cases.parse().expect("FUZZ_CASES is a number"));
    let cases = all.div_ceil(TARGETS);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let ran = runner.run(inputs, |input| {
        take(input);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{target}: {error}"));
    println!("{target}: {cases} inputs, no panic");
}

/// Generates a value of any type, with the numbers and texts that most often break readers.
fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![0, 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX]).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
        any::<u128>().prop_map(|id| Uuid::from_u128(id).to_string().into()),
        (1..150_usize).prop_map(|depth| (0..depth).fold(json!([]), |inner, _| json!([inner]))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,6}", inner, 0..3).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let evil =
        ["", " ", "\u{0}", "\u{202e}x", "a.b.*.>", "\u{1f469}\u{200d}\u{1f4bb}", "NaN", "-1", "2026-13-45T99:00:00Z"];
    prop_oneof![
        prop::sample::select(evil.to_vec()).prop_map(str::to_owned),
        "\\PC{0,12}",
        prop::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
        (0..3_000_usize).prop_map(|length| "é".repeat(length)),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Replace(Value),
    Remove,
    Add(String, Value),
}

/// Generates edits of a JSON value: the place and the change.
fn edits() -> impl Strategy<Value = Vec<(Index, Edit)>> {
    let edit = prop_oneof![
        3 => junk().prop_map(Edit::Replace),
        1 => Just(Edit::Remove),
        1 => ("[a-zA-Z]{1,8}", junk()).prop_map(|(name, value)| Edit::Add(name, value)),
    ];
    prop::collection::vec((any::<Index>(), edit), 0..4)
}

fn edited(mut value: Value, edits: &[(Index, Edit)]) -> Value {
    for (place, edit) in edits {
        let mut places = Vec::new();
        pointers(&value, String::new(), &mut places);
        let path = place.get(&places).clone();
        match edit {
            Edit::Replace(other) => *value.pointer_mut(&path).unwrap() = other.clone(),
            Edit::Add(name, other) => {
                if let Value::Object(map) = value.pointer_mut(&path).unwrap() {
                    map.insert(name.clone(), other.clone());
                }
            }
            Edit::Remove => {
                let Some((parent, name)) = path.rsplit_once('/') else { continue };
                match value.pointer_mut(parent).unwrap() {
                    Value::Object(map) => drop(map.remove(&name.replace("~1", "/").replace("~0", "~"))),
                    Value::Array(list) => drop(list.remove(name.parse().unwrap())),
                    _ => {}
                }
            }
        }
    }
    value
}

fn pointers(value: &Value, path: String, all: &mut Vec<String>) {
    // Deeply nested junk has too many places to visit.
    if path.len() > 80 {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                pointers(inner, format!("{path}/{}", name.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                pointers(inner, format!("{path}/{n}"), all);
            }
        }
        _ => {}
    }
    all.push(path);
}

/// Generates edits of a text's bytes: insert, remove or change a byte, or truncate there.
fn cuts() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec((any::<Index>(), 0..16_u8, any::<u8>()), 1..4)]
}

fn cut(text: &str, cuts: &[(Index, u8, u8)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (place, how, byte) in cuts {
        let at = place.index(bytes.len() + 1);
        match how {
            0..5 => bytes.insert(at, *byte),
            5..10 if at < bytes.len() => drop(bytes.remove(at)),
            10..15 if at < bytes.len() => bytes[at] = *byte,
            15 => bytes.truncate(at),
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn actions() -> Vec<Value> {
    let all = json!({
        "requestId": "r1", "sessionId": Uuid::nil(), "conversationId": Uuid::nil(), "agentId": "a", "userName": "Ada",
        "userEmail": "a@b.c", "browserFingerprint": "f", "metadata": {"a": [1]}, "supports": ["resume"], "limit": 5,
        "authContext": {"userId": "u", "signature": "00", "timestamp": 1}, "cursor": "m1-1f", "before": "c1-1-2", "query": "q",
        "title": "t", "message": "m", "stream": true, "model": "m", "skill": "s", "approved": true, "declined": false,
        "images": [{"url": "data:,x", "detail": "low"}], "files": [{"name": "n", "mimeType": "text/plain", "url": "https://e.example"}],
        "interactionId": Uuid::nil(), "kind": "choices", "values": {"email": "a@b.c"}, "code": "123456", "seq": "x.1.2.3.4.5.6",
    });
    let with = |name: &str| {
        let mut action = all.clone();
        action["action"] = json!(name);
        action
    };
    Action::ALL.iter().map(|(_, name)| with(name)).collect()
}

#[test]
fn client_frames() {
    let samples = actions();
    let mutated = (any::<Index>(), edits(), cuts())
        .prop_map(move |(sample, edits, cuts)| cut(&edited(sample.get(&samples).clone(), &edits).to_string(), &cuts));
    let frames = prop_oneof![4 => mutated, 1 => text(), 1 => junk().prop_map(|value| value.to_string())];
    let names: Vec<String> = actions()[0].as_object().unwrap().keys().cloned().collect();
    fuzz("client frames", &frames, |text| match actions::read(&text) {
        Err((id, bad)) => {
            let answer = frames::error(id.as_deref(), bad.code, &bad.message, Utc::now());
            assert!(serde_json::from_slice::<Value>(&answer).is_ok());
        }
        Ok(mut request) => {
            for name in &names {
                let fields = &request.fields;
                let _ = (fields.text(name), fields.required_text(name), fields.object(name), fields.texts(name));
                let _ = (fields.required_bool(name), fields.bool_or(name, true), fields.raw(name), fields.has(name));
                for text in fields.text(name).into_iter().flatten() {
                    let shown = [title::clean(text), title::of_message(text), Some(title::one_line(text))];
                    assert!(!shown.iter().flatten().any(|shown| shown.contains(title::is_hidden)), "{shown:?}");
                }
            }
            assert!((1..=100).contains(&request.fields.limit(50, 100)));
            assert!((1..=200).contains(&request.fields.clamped_limit(50, 200)));
            let _ = (request.required_id(), request.fields.session(), request.fields.required_session());
            let _ = (request.fields.take_images(), request.fields.take_files());
        }
    });
}

/// Returns a token with these claims, signed with the valid secret.
fn signed(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

#[test]
fn tokens_and_signed_assertions() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let auth = |mode| AuthConfig { mode, hs256_secret: Some(SECRET.into()), ..AuthConfig::default() };
    let [signing, trusting] = [AuthMode::Jwt, AuthMode::Trusted].map(|mode| TokenVerifier::new(&auth(mode)).unwrap());
    let policy = WidgetPolicy {
        allowed_origins: vec!["https://*.shop.example".into()],
        public_key: Some("key".into()),
        organization_id: None,
    };
    let widgets = WidgetGate::new(vec![PolicySource::File(HashMap::from([("shop".to_string(), policy)]))], true);
    let claims = json!({
        "sub": "ada", "org": "acme", "role": "admin", "groups": ["g"], "email": "a@b.c", "name": "Ada", "exp": 4_000_000_000_u64,
        "nbf": 1, "iss": "i", "aud": "a",
    });
    let good = signed(&claims);
    let context = json!({"userId": "ada", "signature": "ab".repeat(32), "timestamp": 1_800_000_000});
    let inputs = (edits(), cuts(), text());
    fuzz("tokens", &inputs, |(edits, cuts, text)| {
        let verify = |verifier: &TokenVerifier, token: &str| {
            verifier.verify(token).now_or_never().expect("a key that is known is not waited for")
        };
        for token in [cut(&good, &cuts), text.clone()] {
            assert!(token == good || verify(&signing, &token).is_err(), "an unsigned token was accepted: {token}");
            let _ = verify(&trusting, &token);
        }
        // The signature is valid, the claims are arbitrary.
        let claims = edited(claims.clone(), &edits);
        if let Ok(principal) = verify(&signing, &signed(&claims)) {
            assert!(!principal.user.trim().is_empty() && !principal.org.trim().is_empty());
        }
        let context = edited(context.clone(), &edits);
        let admitted = widgets.admit(Some("shop"), Some(&text), Some(&context), 1_800_000_000).now_or_never();
        assert!(admitted.expect("a file is not waited for").is_err(), "an unsigned assertion was accepted");
    });
}

#[test]
fn subjects_of_all_kinds() {
    let (org, id) = (subjects::encode_token("acme.example"), Uuid::nil());
    let key = ConversationKey { region: "local".into(), org: "acme.example".into(), conversation: id };
    let valid = vec![
        key.event("turn.started"),
        key.work_item("turn.requested", "default"),
        subjects::stop("local", id),
        subjects::session("local", id),
        subjects::push("local", subjects::PushTo::ALL[0].0, "acme", "x"),
        subjects::knowledge("acme", "document", Some(3)),
        subjects::ingest_run("acme", "hr"),
        subjects::worker_key("local", "default", id),
        subjects::agent_key("acme", "support"),
        org,
    ];
    let inputs = (any::<Index>(), cuts(), text());
    fuzz("subjects", &inputs, |(sample, cuts, text)| {
        for subject in [cut(&valid[sample.index(valid.len())], &cuts), text.clone()] {
            let _ =
                (subjects::parse_stop(&subject), subjects::parse_knowledge(&subject), subjects::parse_push(&subject));
            let _ = (subjects::parse_ingest_run(&subject), subjects::parse_last_id(&subject));
            let _ = (subjects::parse_worker_key(&subject), subjects::parse_agent(&subject));
            let _ = subjects::decode_token(&subject);
            if let Some(key) = ConversationKey::parse_event(&subject) {
                assert_eq!(ConversationKey::parse_event(&key.event("turn.started")), Some(key));
            }
        }
        let token = subjects::encode_token(&text);
        assert!(!token.contains(['.', '*', '>', ' ', '\t', '\r', '\n']), "{token:?}");
        if !text.is_empty() && !token.starts_with("==") {
            assert_eq!(subjects::decode_token(&token), Some(text));
        }
    });
}

/// Returns headers and payload of the golden samples.
fn stored_samples() -> Vec<(BTreeMap<String, String>, Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/spec/samples/events");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let sample: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        (serde_json::from_value(sample["headers"].clone()).unwrap(), sample["payload"].clone())
    };
    paths.iter().map(read).collect()
}

#[test]
fn stored_events_and_their_folds() {
    let samples = stored_samples();
    let one = (any::<Index>(), edits(), cuts(), (any::<Index>(), cuts()));
    let inputs = prop::collection::vec(one, 1..6);
    fuzz("stored events", &inputs, |history| {
        let mut state = Conversation::default();
        for (n, (sample, edits, cuts, (header, header_cuts))) in history.iter().enumerate() {
            let (headers, payload) = sample.get(&samples);
            let mut headers = headers.clone();
            let name = header.get(&headers.keys().cloned().collect::<Vec<_>>()).clone();
            headers.entry(name).and_modify(|value| *value = cut(value, header_cuts));
            let payload = cut(&edited(payload.clone(), edits).to_string(), cuts);
            let header = |name: &str| headers.get(name).map(String::as_str);
            let Ok((envelope, event)) = stored::decode(header, payload.as_bytes()) else { continue };
            let _ = render::render("r1", true, &event, Utc::now());
            let (seq, stored_at) = (n as u64 * 7 + 100, second(n as u64));
            let digest = envelope.digest("chat.local.acme.x.turn.started", &event);
            state.evolve(&RecordedEvent { seq, time: envelope.time, stored_at, digest, event: event.clone() });
            look_at(&state, seq);
            if let Some(turn) = event.turn() {
                for command in [
                    Command::Claim { item: seq, worker: Uuid::nil(), over: None },
                    Command::Cancel { turn, by: Uuid::nil() },
                    Command::Record { turn, epoch: seq, event },
                ] {
                    let _ = decide(&state, &command);
                }
            }
        }
    });
}

/// Calls every reader of a fold.
fn look_at(state: &Conversation, seq: u64) {
    let _ = (state.shown_title(), state.memory_bytes(), state.exists());
    let kept: Conversation = serde_json::from_slice(&serde_json::to_vec(state).unwrap()).unwrap();
    assert_eq!(kept.last_seq, state.last_seq);
    state.messages.iter().for_each(|message| drop(message.text()));
    let Some(turn) = &state.turn else { return };
    let _ =
        (next_step(turn, 20), turn.activity(), turn.activity_before_prompt(), turn.text_bytes(), turn.streamed_text());
    let _ = (turn.held_under(seq), turn.model_calls());
    if let Some(park) = &turn.park {
        let _ = decide(state, &Command::Expire { park: park.id });
        let _ = decide(state, &Command::Confirm { park: park.id, approved: true, by: Uuid::nil() });
    }
}

#[test]
fn marks_and_cursors() {
    let number = || prop_oneof![any::<u64>(), prop::sample::select(vec![0, 1, u64::from(u32::MAX), u64::MAX])];
    let numbers = prop::collection::vec(number(), 0..9);
    let kinds = prop::sample::select(vec!["token", "reasoning", "chunk", "prompt", "terminal", "restart", "x", ""]);
    let inputs = (any::<u128>(), numbers, kinds, cuts(), text());
    fuzz("marks and cursors", &inputs, |(turn, numbers, kind, cuts, text)| {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let turn = Uuid::from_u128(turn).simple().to_string();
        let at = numbers.len().min(2);
        let mark = format!("{turn} {} {kind} {}", numbers[..at].join(" "), numbers[at..].join(" "));
        let cursor = format!("{turn}.{}", numbers.join("."));
        for input in [cut(&mark, &cuts), cut(&cursor, &cuts), text] {
            if let Some(mark) = FrameMark::parse(&input) {
                let _ = (mark.calls_before(), mark.chunks_before());
                assert_eq!(FrameMark::parse(&mark.to_string()), Some(mark));
            }
            if let Some(cursor) = ResumeCursor::parse(&input) {
                assert_eq!(ResumeCursor::parse(&cursor.to_string()), Some(cursor));
            }
        }
    });
}

#[test]
fn configurations_of_agents() {
    let full = json!({
        "name": "Support", "persona": "You are kind.", "model": "m", "pool": "default", "tools": [{"name": "pay*", "confirm": true, "authLevel": "end_user", "settings": {"a": 1}}],
        "gatewayKey": "key", "greeting": "Hello", "widget": {"allowed_origins": ["*"], "public_key": "k"},
        "workflow": {"steps": [{"id": "a", "instructions": "i", "doneWhen": "d", "maxAttempts": 2}]},
        "documentSets": ["hr"], "confirmTools": ["pay"], "maxTokens": 5, "humanWaitSecs": 60, "gatewayMetadata": {"a": 1},
    });
    assert!(AgentConfig::parse(full.to_string().as_bytes()).is_ok());
    let inputs = (
        prop::sample::subsequence(full.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), 0..=14),
        edits(),
        cuts(),
    );
    fuzz("agents", &inputs, |(kept, edits, cuts)| {
        let mut config = full.clone();
        config.as_object_mut().unwrap().retain(|name, _| kept.contains(name));
        let text = cut(&edited(config, &edits).to_string(), &cuts);
        let Ok(config) = AgentConfig::parse(text.as_bytes()) else { return };
        let _ = (config.tool_rule("pay"), config.tool_rule(&text));
        let written = serde_json::to_vec(&config).unwrap();
        assert_eq!(AgentConfig::parse(&written).as_ref(), Ok(&config));
    });
}

#[test]
fn forms_and_their_answers() {
    let choices = json!({"reason": "r", "questions": [{
        "question": "Which?", "header": "Size", "multiSelect": true, "options": [{"label": "M"}, {"label": "L", "description": "d"}],
    }]});
    let intake =
        json!({"reason": "r", "fields": ["email", {"key": "phone", "required": false, "label": "l"}, {"key": "name"}]});
    let given = json!({
        "email": "a@b.c", "phone": "+1 (555) 010-2030", "name": "Ada", "answers": [{"header": "Size", "options": ["M"], "other": "x"}],
    });
    let inputs = (edits(), edits());
    fuzz("forms", &inputs, |(asked, filled)| {
        let given = edited(given.clone(), &filled);
        let forms =
            [Form::identity_intake(&edited(intake.clone(), &asked)), Form::choices(&edited(choices.clone(), &asked))];
        for form in forms.into_iter().flatten() {
            let _ = (form.spec(), form.kind(), form.capability());
            let Some(given) = given.as_object() else { continue };
            if let Ok(values) = form.check(given) {
                assert!(form.check(&values).is_ok(), "accepted values are accepted again: {values:?}");
            }
        }
    });
}
