//! Every malformed frame gets its code, and the connection goes on.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::support::{
    Edge, Stage,
    client::{Client, Session, message_frame},
    frames::{answer_text, code, kind, request_id},
};

/// Sends a text and returns the answer.
///
/// A ping afterwards shows that the connection goes on and that no other frame came.
async fn answer_to(client: &mut Client, text: &str) -> Value {
    client.send_text(text).await;
    let answer = client.next().await;
    client.ping().await;
    let answers = &client.seen[client.seen.len() - 2..];
    assert_eq!((&answers[0], kind(&answers[1])), (&answer, "pong"), "one answer to {text}");
    answer
}

/// Checks that each frame is refused with the code; `echoed` is the requestId that the answer must have.
async fn expect(client: &mut Client, cases: &[(&str, &str, Option<&str>)]) {
    for (text, expected, echoed) in cases {
        let answer = answer_to(client, text).await;
        assert_eq!((code(&answer), request_id(&answer)), (*expected, *echoed), "{text} -> {answer:#}");
    }
}

#[tokio::test]
async fn a_frame_that_is_no_action_is_refused() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let deep = format!(r#"{{"action":"ping","x":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let deep_objects = format!(r#"{{"action":"ping","x":{}1{}}}"#, r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    let long_id = format!(r#"{{"action":"ping","requestId":"{}"}}"#, "i".repeat(100_000));
    const INVALID: &str = "VALIDATION_ERROR";
    expect(
        &mut client,
        &[
            ("", INVALID, None),
            ("hello", INVALID, None),
            ("{", INVALID, None),
            (r#"{"action":"ping"} and more"#, INVALID, None),
            (&deep, INVALID, None),
            (&deep_objects, INVALID, None),
            (&long_id, INVALID, None),
            (r#"{"action":"ping","x":NaN}"#, INVALID, None),
            (r#"{"action":"ping","x":Infinity}"#, INVALID, None),
            (r#"{"action":"ping","x":1e999}"#, INVALID, None),
            (r#"{"action":"ping","requestId":"\ud800"}"#, INVALID, None),
            ("[]", INVALID, None),
            (r#"[{"action":"ping"}]"#, INVALID, None),
            ("null", INVALID, None),
            ("7", INVALID, None),
            (r#""ping""#, INVALID, None),
            ("{}", INVALID, None),
            (r#"{"requestId":"a"}"#, INVALID, Some("a")),
            (r#"{"action":null,"requestId":"a"}"#, INVALID, Some("a")),
            (r#"{"action":7,"requestId":"a"}"#, INVALID, Some("a")),
            (r#"{"action":["ping"],"requestId":"a"}"#, INVALID, Some("a")),
            (r#"{"action":7,"requestId":8}"#, INVALID, None),
            (r#"{"action":"","requestId":"a"}"#, "UNSUPPORTED_ACTION", Some("a")),
            (r#"{"action":"PING","requestId":"a"}"#, "UNSUPPORTED_ACTION", Some("a")),
            (r#"{"action":"fly","requestId":"a"}"#, "UNSUPPORTED_ACTION", Some("a")),
            (r#"{"action":"fly","requestId":{"a":1}}"#, "UNSUPPORTED_ACTION", None),
        ],
    )
    .await;
    client.send_message(Message::binary(&br#"{"action":"ping"}"#[..])).await;
    let refused = client.next().await;
    assert_eq!((code(&refused), request_id(&refused)), (INVALID, None));
    client.ping().await;
}

#[tokio::test]
async fn unknown_but_harmless_input_is_served() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    for frame in [
        r#"{"action":"ping"}"#,
        r#"{"action":"ping","requestId":7}"#,
        r#"{"action":"ping","requestId":null}"#,
        r#"{"action":"ping","requestId":["a"]}"#,
    ] {
        let pong = answer_to(&mut client, frame).await;
        assert_eq!((kind(&pong), request_id(&pong)), ("pong", None), "{frame}");
    }
    let pong = answer_to(&mut client, r#"{"action":"ping","requestId":"","extra":{"a":[1,null]}}"#).await;
    assert_eq!((kind(&pong), request_id(&pong)), ("pong", Some("")));
    let created = client
        .request(json!({
            "action": "create_conversation_session", "agentId": "agent .>* 7", "userName": "Zoë \u{1F980}",
            "userEmail": "z@example.org", "browserFingerprint": "f", "metadata": {"a": [1, {"b": null}]},
            "supports": ["identity_form"], "conversationId": "no such conversation", "unknown": true,
        }))
        .await;
    assert_eq!(created["data"]["agentId"], "agent .>* 7");
    assert_eq!(created["data"]["agentName"], "smooth-agent");
    let anonymous = client.request(json!({"action": "create_conversation_session", "authContext": null})).await;
    assert!(!anonymous["data"]["agentId"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn fields_that_are_missing_or_of_the_wrong_type_are_named() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    for (fields, field) in [
        (json!({"action": "create_conversation_session", "agentId": ""}), "agentId"),
        (json!({"action": "create_conversation_session", "agentId": " \t"}), "agentId"),
        (json!({"action": "create_conversation_session", "agentId": 7}), "agentId"),
        (json!({"action": "create_conversation_session", "userName": 7}), "userName"),
        (json!({"action": "create_conversation_session", "userEmail": ["a"]}), "userEmail"),
        (json!({"action": "create_conversation_session", "metadata": "a"}), "metadata"),
        (json!({"action": "create_conversation_session", "metadata": [1]}), "metadata"),
        (json!({"action": "create_conversation_session", "supports": "identity_form"}), "supports"),
        (json!({"action": "create_conversation_session", "supports": [7]}), "supports"),
        (json!({"action": "create_conversation_session", "conversationId": 7}), "conversationId"),
        (json!({"action": "get_session"}), "sessionId"),
        (json!({"action": "get_session", "sessionId": null}), "sessionId"),
        (json!({"action": "get_session", "sessionId": ""}), "sessionId"),
        (json!({"action": "get_session", "sessionId": 7}), "sessionId"),
        (json!({"action": "get_conversation_messages"}), "sessionId"),
        (json!({"action": "get_conversation_messages", "sessionId": {"a": 1}}), "sessionId"),
        (json!({"action": "get_conversation_messages", "sessionId": session.id, "cursor": 7}), "cursor"),
        (json!({"action": "get_conversation_messages", "sessionId": session.id, "cursor": "garbage"}), "cursor"),
        (json!({"action": "get_conversation_messages", "sessionId": session.id, "cursor": ""}), "cursor"),
        (json!({"action": "get_conversation_messages", "sessionId": session.id, "before": "m1-zz"}), "cursor"),
        (json!({"action": "send_message"}), "sessionId"),
        (json!({"action": "send_message", "sessionId": 7, "message": "a"}), "sessionId"),
        (json!({"action": "send_message", "sessionId": session.id}), "message"),
        (json!({"action": "send_message", "sessionId": session.id, "message": " \n"}), "message"),
        (json!({"action": "send_message", "sessionId": session.id, "message": 7}), "message"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "é".repeat(10_001)}), "message"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "a", "stream": "no"}), "stream"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "a", "stream": 0}), "stream"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "a", "model": 7}), "model"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "", "images": []}), "message"),
        (json!({"action": "send_message", "sessionId": session.id, "message": "", "images": [{"u": 1}]}), "message"),
        (json!({"action": "confirm_tool_action", "sessionId": session.id}), "approved"),
        (json!({"action": "confirm_tool_action", "sessionId": session.id, "approved": "true"}), "approved"),
        (json!({"action": "confirm_tool_action", "sessionId": session.id, "approved": 1}), "approved"),
        (json!({"action": "confirm_tool_action", "sessionId": session.id, "approved": null}), "approved"),
        (json!({"action": "confirm_tool_action", "sessionId": "unknown", "approved": "yes"}), "approved"),
        (json!({"action": "confirm_tool_action", "approved": true}), "sessionId"),
    ] {
        let refused = client.request(fields.clone()).await;
        assert_eq!(code(&refused), "VALIDATION_ERROR", "{fields} -> {refused:#}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(field), "{fields} -> {message}");
        client.ping().await;
    }
    let no_request_id = json!({"action": "send_message", "sessionId": session.id, "message": "a"}).to_string();
    for text in [no_request_id.clone(), no_request_id.replacen('{', r#"{"requestId":7,"#, 1)] {
        expect(&mut client, &[(&text, "VALIDATION_ERROR", None)]).await;
    }
    assert_eq!(client.history(&session).await, Vec::<String>::new(), "a refused frame is not stored");
}

#[tokio::test]
async fn each_action_answers_an_unknown_session() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let known = client.open_session().await;
    let homeless = uuid::Uuid::new_v4().to_string();
    for id in ["nothing", &homeless, &known.conversation, "a.b", "*", ">", "../x", "\u{0}"] {
        for (fields, expected) in [
            (json!({"action": "get_session"}), "SESSION_NOT_FOUND"),
            (json!({"action": "get_conversation_messages"}), "SESSION_NOT_FOUND"),
            (json!({"action": "send_message", "message": "a"}), "SESSION_NOT_FOUND"),
            (json!({"action": "send_message", "message": "a", "skill": "dance"}), "SKILL_NOT_FOUND"),
            (json!({"action": "send_message"}), "VALIDATION_ERROR"),
            (json!({"action": "confirm_tool_action", "approved": true}), "NO_PENDING_CONFIRMATION"),
        ] {
            let mut action = fields.clone();
            action["sessionId"] = json!(id);
            let refused = client.request(action).await;
            assert_eq!(code(&refused), expected, "{fields} of {id:?}");
        }
        client.send(&json!({"action": "cancel", "sessionId": id, "requestId": "c"})).await;
        let before = client.seen.len();
        client.ping().await;
        assert_eq!(client.seen.len(), before + 1, "a cancel of {id:?} is not answered");
    }
    let nothing_pending = client.confirm(&known, true).await;
    assert_eq!(code(&nothing_pending), "NO_PENDING_CONFIRMATION");
    let other = client.resume(&homeless).await;
    assert_ne!(other.conversation, homeless, "an unknown conversation becomes a fresh one");
}

/// An active turn is reported before any other error of a message to a known session.
#[tokio::test]
async fn a_message_is_checked_in_the_protocols_order() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    let busy = client.open_session().await;
    let free = client.open_session().await;
    client.begin(&busy, "running", "no worker is there, so this waits").await;
    let frame = |session: &Session, fields: Value| {
        let mut frame = json!({"action": "send_message", "sessionId": session.id});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame.to_string()
    };
    for (fields, echoed, when_free) in [
        (json!({"message": "a"}), None, "VALIDATION_ERROR"),
        (json!({"requestId": "x"}), Some("x"), "VALIDATION_ERROR"),
        (json!({"requestId": "x", "message": 7}), Some("x"), "VALIDATION_ERROR"),
        (json!({"requestId": "x", "message": "a", "stream": "no"}), Some("x"), "VALIDATION_ERROR"),
        (json!({"requestId": "x", "message": "a", "skill": "dance"}), Some("x"), "SKILL_NOT_FOUND"),
        (json!({"requestId": "x", "skill": "dance"}), Some("x"), "VALIDATION_ERROR"),
    ] {
        expect(&mut client, &[(&frame(&busy, fields.clone()), "TURN_IN_PROGRESS", echoed)]).await;
        expect(&mut client, &[(&frame(&free, fields), when_free, echoed)]).await;
    }
    let refused = client.say(&busy, "x", "a").await;
    assert_eq!(code(&refused), "TURN_IN_PROGRESS");

    let _worker = stage.worker().await;
    assert_eq!(answer_text(&client.turn("running").await), "ok");
    let longest = "é".repeat(10_000);
    assert_eq!(answer_text(&client.ask(&busy, "x", &longest).await), "ok");
    let mut picture = message_frame(&busy, "y", "");
    picture["images"] = json!([{"url": "https://example.org/a.png", "detail": "low"}, {"no": "url"}]);
    assert_eq!(client.request(picture).await["status"], 202, "a picture needs no words");
    client.turn("y").await;
}

/// Breaks the WebSocket protocol on a new connection and returns the edge's close code.
async fn close_code_after(edge: &Edge, bytes: &[u8]) -> Option<u16> {
    let mut client = Client::connect(edge).await;
    client.ping().await;
    client.send_bytes(bytes).await;
    client.close_code().await
}

#[tokio::test]
async fn a_closed_connection_is_told_the_reason() {
    let stage = Stage::start().await;
    let mut edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    client.send_text(&format!(r#"{{"action":"ping","x":"{}"}}"#, "x".repeat(300_000))).await;
    assert_eq!(client.close_code().await, Some(1009), "too large");

    let mut client = Client::connect(&edge).await;
    let not_utf8 = Frame::message(Bytes::from_static(b"{\"action\":\"\xff\xfe\"}"), OpCode::Data(Data::Text), true);
    client.send_message(Message::Frame(not_utf8)).await;
    assert_eq!(client.close_code().await, Some(1007), "not UTF-8");

    let unmasked = b"\x81\x02{}";
    assert_eq!(close_code_after(&edge, unmasked).await, Some(1002), "unmasked");
    let reserved_opcode = b"\x83\x80\0\0\0\0";
    assert_eq!(close_code_after(&edge, reserved_opcode).await, Some(1002), "reserved opcode");
    let reserved_bit = b"\xc1\x80\0\0\0\0";
    assert_eq!(close_code_after(&edge, reserved_bit).await, Some(1002), "reserved bit");
    let lone_continuation = b"\x80\x80\0\0\0\0";
    assert_eq!(close_code_after(&edge, lone_continuation).await, Some(1002), "a continuation without a first frame");
    let announced_huge = b"\x81\xff\x00\x00\x00\x7f\xff\xff\xff\xff\0\0\0\0";
    assert_eq!(close_code_after(&edge, announced_huge).await, Some(1009), "a length that will not be read");

    let mut idle = Client::connect(&edge).await;
    let mut waiting = Client::connect(&edge).await;
    let session = waiting.open_session().await;
    waiting.begin(&session, "r1", "nobody answers").await;
    idle.ping().await;
    edge.process.signal(libc::SIGTERM);
    assert_eq!(idle.close_code().await, Some(1012), "a restart");
    assert_eq!(waiting.close_code().await, Some(1012), "a restart while a turn waits");
    assert!(edge.process.ended().await.success());
}
