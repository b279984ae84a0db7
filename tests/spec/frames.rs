//! Samples of client frames: the program's rendered frames, as JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Value, json};
use turnstream::{
    domain::{
        Digest, Event, RecordedEvent,
        conversation::Message,
        event::{Prompt, TurnCompleted},
    },
    wire::{
        frames::{
            self, ConfirmReply, ConversationPage, ErrorCode, Frame, HistoryMessage, ListedConversation, MessagePage,
            NestedData, PongData, RenameReply, ResumeReply, SessionCreated, SessionStatus, SessionView, TurnState,
            TurnView,
        },
        prompts::{DeclineReply, InvalidData, OtpError, OtpInvalidData, OtpVerifiedData, SubmitReply},
        render::{self, render},
        stored::SessionRecord,
    },
};

use crate::{assert_valid, definition, events, json_file, json_files, validator};

const REQUEST: &str = "req-1";

fn now() -> DateTime<Utc> {
    Utc.timestamp_millis_opt(1_772_446_581_774).unwrap()
}

fn event(kind: &str) -> Event {
    events::sample(kind).decode().unwrap().1
}

/// Returns every kind of frame, in every form that differs in its fields.
fn rendered() -> BTreeMap<&'static str, Bytes> {
    let of = |kind: &str| render(REQUEST, true, &event(kind), now()).swap_remove(0).1;
    let nth = |kind: &str, n: usize| render(REQUEST, true, &event(kind), now()).swap_remove(n).1;
    let pong = Frame::Pong {
        request_id: None,
        timestamp: now().timestamp_millis(),
        data: PongData { timestamp: 1_772_446_581_774 },
    };
    let mut all = BTreeMap::from([
        ("pong", pong.to_bytes()),
        ("stream_token", render::token(REQUEST, "Order ORD-1234 ", now())),
        ("stream_reasoning", render::reasoning(REQUEST, "The order is paid. ", now())),
        ("stream_chunk.tool_call", render::tool_call(REQUEST, "issue_refund", r#"{"order_id":"ORD-1234"}"#, now())),
        ("stream_chunk.tool_result", of("turn.tool_returned")),
        ("stream_chunk.turn_restarted", render::restarted(REQUEST, now())),
        ("stream_preamble", render::preamble(REQUEST, "I am looking into your order.", now())),
        ("write_confirmation_required", of("turn.parked")),
        ("interaction_required", of("turn.parked.form")),
        ("interaction_invalid", invalid_form()),
        ("otp_verification_required", nth("turn.tool_returned.otp", 1)),
        ("otp_sent", nth("turn.tool_returned.otp", 2)),
        ("error.otp_not_sent", nth("turn.tool_returned.otp_not_sent", 1)),
        ("otp_verified", otp_verified()),
        ("otp_invalid", otp_invalid()),
        ("eventual_response.escalated", of("turn.completed.workflow")),
        ("eventual_response", of("turn.completed")),
        ("eventual_response.plain", plain_answer()),
        ("cancelled", of("turn.cancelled")),
        ("keepalive", frames::keepalive(REQUEST, now())),
        ("error.of_a_turn", of("turn.failed")),
        ("error.without_request", frames::error(None, ErrorCode::ValidationError, "`action` is missing", now())),
        ("error.invalid_token", frames::error(None, ErrorCode::InvalidToken, "the token is not valid", now())),
    ]);
    all.extend(answers());
    all
}

fn invalid_form() -> Bytes {
    let Event::TurnParked(parked) = event("turn.parked.form") else { panic!("the sample is of another event") };
    let Prompt::Interaction { form, .. } = parked.prompt else { panic!("the sample has another prompt") };
    let errors = form.check(&Default::default()).unwrap_err();
    let message = "Please check what you entered.";
    let data = InvalidData { interaction_id: parked.park, kind: form.kind(), errors: &errors, message };
    let timestamp = now().timestamp_millis();
    Frame::InteractionInvalid { request_id: "a-1", timestamp, data: NestedData { request_id: "a-1", data } }.to_bytes()
}

fn otp_verified() -> Bytes {
    let data = NestedData { request_id: "a-1", data: OtpVerifiedData { message: "Thank you, that worked." } };
    Frame::OtpVerified { request_id: "a-1", timestamp: now().timestamp_millis(), data }.to_bytes()
}

fn otp_invalid() -> Bytes {
    let data = OtpInvalidData {
        error: Some(OtpError::InvalidCode),
        attempts_remaining: 2,
        message: "This code is not right.",
    };
    let data = NestedData { request_id: "a-1", data };
    Frame::OtpInvalid { request_id: "a-1", timestamp: now().timestamp_millis(), data }.to_bytes()
}

/// Returns an answer with its text alone.
fn plain_answer() -> Bytes {
    let Event::TurnCompleted(completed) = event("turn.completed") else { panic!("the sample is of another event") };
    let plain = Event::TurnCompleted(TurnCompleted { citations: vec![], usage: None, ..completed });
    render(REQUEST, true, &plain, now()).swap_remove(0).1
}

/// Returns the answers to actions.
fn answers() -> [(&'static str, Bytes); 10] {
    let record: SessionRecord =
        serde_json::from_value(json_file("spec/samples/session.json")["payload"].clone()).unwrap();
    let view = || SessionView {
        session_id: record.session,
        conversation_id: record.conversation,
        agent_id: &record.agent_id,
        agent_name: &record.agent.name,
        user_participant_id: record.user.id,
        agent_participant_id: record.agent.id,
        thread_id: record.conversation,
        status: SessionStatus::Active,
    };
    let created = SessionCreated {
        session_id: record.session,
        conversation_id: record.conversation,
        agent_id: &record.agent_id,
        agent_name: &record.agent.name,
        user_participant_id: record.user.id,
        agent_participant_id: record.agent.id,
    };
    let resumed =
        ResumeReply { session: view(), turn: Some(TurnView { request_id: REQUEST, state: TurnState::Parked }) };
    let confirmed = ConfirmReply { session_id: record.session, approved: true };
    let values = json!({ "email": "ada@example.com" });
    let submitted = SubmitReply {
        session_id: record.session,
        interaction_id: record.user.id,
        kind: "identity_intake",
        values: values.as_object().unwrap(),
    };
    let declined = DeclineReply { session_id: record.session, interaction_id: record.user.id, declined: true };
    let listed = ListedConversation {
        conversation_id: record.conversation,
        title: "Please refund ORD-1234.".into(),
        updated_at: frames::shown_time(now()),
        message_count: 2,
    };
    let list = ConversationPage { conversations: vec![listed], next_cursor: Some("c1-1-2".into()), has_more: true };
    let renamed = RenameReply { conversation_id: record.conversation, title: "A refund" };
    let answer = |message, data: Value| frames::immediate(Some("a-1"), 200, message, data, now());
    [
        ("immediate_response.create_conversation_session", answer("Session created", json!(created))),
        ("immediate_response.get_session", answer("Session", json!(view()))),
        ("immediate_response.get_conversation_messages", answer("ConversationMessages", json!(page()))),
        ("immediate_response.list_conversations", answer("Conversations", json!(list))),
        ("immediate_response.rename_conversation", answer("Conversation renamed", json!(renamed))),
        (
            "immediate_response.send_message",
            frames::immediate(Some(REQUEST), 202, "Processing your request...", json!({}), now()),
        ),
        ("immediate_response.confirm_tool_action", answer("Tool action approved", json!(confirmed))),
        ("immediate_response.submit_interaction", answer("Interaction submitted", json!(submitted))),
        ("immediate_response.submit_interaction.declined", answer("Interaction declined", json!(declined))),
        ("immediate_response.resume_session", answer("Session resumed", json!(resumed))),
    ]
}

fn page() -> MessagePage {
    let messages = ["turn.completed", "turn.requested"].map(|kind| {
        let (envelope, event) = events::sample(kind).decode().unwrap();
        let recorded = RecordedEvent {
            seq: envelope.prev + 1,
            time: envelope.time,
            stored_at: envelope.time,
            digest: Digest::default(),
            event,
        };
        HistoryMessage::from(&Message::of(&recorded).unwrap()).to_json()
    });
    MessagePage { messages: messages.into(), next_cursor: Some("m1-66".into()), has_more: true }
}

#[test]
fn the_samples_match_the_rendered_frames() {
    let samples = json_files("spec/samples/frames");
    let rendered = rendered();
    for (name, frame) in &rendered {
        let frame: Value = serde_json::from_slice(frame).unwrap();
        assert_eq!(samples.get(*name), Some(&frame), "spec/samples/frames/{name}.json");
    }
    assert_eq!(samples.len(), rendered.len());
}

#[test]
fn every_kind_of_frame_has_a_sample() {
    let schema = json_file("spec/frames.schema.json");
    let samples = json_files("spec/samples/frames");
    let kinds = schema["$defs"]["Frame"]["oneOf"].as_array().unwrap();
    for kind in kinds.iter().map(|one| &one["properties"]["type"]["const"]) {
        assert!(samples.values().any(|sample| sample["type"] == *kind), "{kind}");
    }
}

#[test]
fn the_schema_accepts_the_samples_and_no_additional_field() {
    let schema = json_file("spec/frames.schema.json");
    let frame = validator(&schema);
    for (name, sample) in json_files("spec/samples/frames") {
        assert_valid(&frame, &sample, &name);
        let data = name.strip_prefix("immediate_response.").map(|action| match action.split_once('.') {
            Some((action, form)) => format!("{action}.data.{form}"),
            None => format!("{action}.data"),
        });
        let data = data.filter(|data| schema["$defs"].get(data).is_some());
        if let Some(data) = &data {
            assert_valid(&definition(&schema, data), &sample["data"], &name);
        }
        for place in objects(&sample, String::new()) {
            let mut more = sample.clone();
            more.pointer_mut(&place).unwrap()["extra"] = json!(1);
            let of_answer = data.as_ref().is_some_and(|data| !definition(&schema, data).is_valid(&more["data"]));
            // The 202's data has no fixed shape, and forms define their own fields.
            let free = [("immediate_response.send_message", "/data"), (name.as_str(), "/data/values")]
                .contains(&(name.as_str(), place.as_str()))
                || place.starts_with("/data/data/spec");
            assert!(free || of_answer || !frame.is_valid(&more), "{name}: a field more in `{place}` is not noticed");
        }
    }
}

/// Returns the JSON pointers of all objects in a value.
fn objects(value: &Value, place: String) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let inner = map.iter().flat_map(|(name, value)| objects(value, format!("{place}/{name}")));
            inner.chain([place.clone()]).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(n, value)| objects(value, format!("{place}/{n}"))).collect()
        }
        _ => vec![],
    }
}

#[test]
fn a_cursor_is_the_only_addition_of_the_resume_extension() {
    let frame = render::token(REQUEST, "Order", now());
    let mut resumed: Value = serde_json::from_slice(&frames::with_seq(&frame, "a.1.2.0.5")).unwrap();
    assert_eq!(resumed.as_object_mut().unwrap().remove("seq"), Some(json!("a.1.2.0.5")));
    assert_eq!(resumed, serde_json::from_slice::<Value>(&frame).unwrap());
}
