//! The schema of actions accepts the same input as the program, as far as a schema can say.
//!
//! A schema can't say: a text that is not blank, a `requestId` limited in bytes, a message that is required unless pictures or
//! files come with it. And the program is milder than the schema where it ignores a wrong type in an unneeded field.

use serde_json::{Value, json};
use turnstream::wire::actions::{self, Action, BadFrame, ClientRequest};

use crate::{json_file, validator};

const SESSION: &str = "004be7d2-91aa-8c0e-a7f3-5de28d0c1b96";

/// Runs the checks that each action makes of its fields.
fn check(request: &ClientRequest) -> Result<(), BadFrame> {
    let fields = &request.fields;
    match request.action {
        Action::Ping | Action::Cancel => {}
        Action::CreateConversationSession => {
            if fields.text("agentId")?.is_some_and(|id| id.trim().is_empty()) {
                return Err(actions::invalid("`agentId` must not be blank"));
            }
            for name in ["userName", "userEmail", "browserFingerprint", "conversationId"] {
                fields.text(name)?;
            }
            fields.object("metadata")?;
            fields.texts("supports")?;
        }
        Action::GetSession => drop(fields.required_session()?),
        Action::GetConversationMessages => {
            fields.required_session()?;
            fields.text("cursor")?;
            fields.text("before")?;
        }
        Action::ListConversations => {
            fields.text("cursor")?;
            fields.text("query")?;
        }
        Action::RenameConversation => {
            fields.required_text("conversationId")?;
            fields.required_text("title")?;
        }
        Action::SendMessage => {
            fields.required_text("requestId")?;
            fields.required_session()?;
            let message = fields.text("message")?.unwrap_or_default();
            if message.chars().count() > turnstream::limits::MESSAGE_MAX_CHARS {
                return Err(actions::invalid("`message` is too long"));
            }
            fields.bool_or("stream", true)?;
            fields.text("model")?;
            fields.text("skill")?;
        }
        Action::ConfirmToolAction => {
            fields.required_bool("approved")?;
            fields.required_session()?;
        }
        Action::SubmitInteraction => {
            fields.required_text("requestId")?;
            fields.required_session()?;
            if !fields.has("interactionId") {
                return Err(actions::invalid("`interactionId` is missing"));
            }
            fields.text("interactionId")?;
            fields.text("kind")?;
            fields.bool_or("declined", false)?;
            fields.object("values")?;
        }
        Action::VerifyOtp => {
            fields.required_text("requestId")?;
            fields.required_session()?;
            fields.required_text("code")?;
        }
        Action::ResumeSession => {
            fields.required_session()?;
            fields.text("seq")?;
        }
    }
    Ok(())
}

fn accepted() -> Vec<Value> {
    let message = |fields: Value| {
        let mut frame = json!({"action": "send_message", "requestId": "r", "sessionId": SESSION, "message": "hello"});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame
    };
    vec![
        json!({"action": "ping"}),
        json!({"action": "ping", "requestId": "p-1", "unknown": {"field": 1}}),
        json!({"action": "create_conversation_session"}),
        json!({"action": "create_conversation_session", "agentId": null, "metadata": null, "supports": null}),
        json!({
            "action": "create_conversation_session", "agentId": "support", "userName": "Ada", "userEmail": "a@b.c",
            "browserFingerprint": "f", "metadata": {"plan": {"name": "pro"}}, "supports": ["resume"], "conversationId": "?",
        }),
        json!({"action": "get_session", "sessionId": SESSION}),
        json!({"action": "get_session", "sessionId": "not a UUID: it is not found"}),
        json!({"action": "get_conversation_messages", "sessionId": SESSION}),
        json!({"action": "get_conversation_messages", "sessionId": SESSION, "limit": "many", "cursor": "m1-3"}),
        json!({"action": "get_conversation_messages", "sessionId": SESSION, "limit": -1, "before": "m1-3"}),
        json!({"action": "list_conversations"}),
        json!({"action": "list_conversations", "limit": "many", "cursor": "c1-3-4", "query": ""}),
        json!({"action": "rename_conversation", "conversationId": "it is not found", "title": "Refund"}),
        message(json!({})),
        message(json!({"message": "é".repeat(10_000), "stream": false, "model": "small", "skill": ""})),
        message(json!({"images": [{"url": "https://example.com/a.png"}, 7], "files": "none", "stream": null})),
        json!({"action": "confirm_tool_action", "sessionId": SESSION, "approved": false}),
        json!({"action": "submit_interaction", "requestId": "r", "sessionId": SESSION, "interactionId": SESSION, "declined": true}),
        json!({"action": "submit_interaction", "requestId": "r", "sessionId": SESSION, "interactionId": SESSION, "values": {}}),
        json!({"action": "verify_otp", "requestId": "r", "sessionId": SESSION, "code": "123456"}),
        json!({"action": "cancel"}),
        json!({"action": "cancel", "sessionId": SESSION, "requestId": "c"}),
        json!({"action": "resume_session", "sessionId": SESSION}),
        json!({"action": "resume_session", "sessionId": SESSION, "seq": "6eeba1f770d2811d8c21185f36278268.103.4.0.77"}),
    ]
}

fn refused() -> Vec<Value> {
    vec![
        json!([]),
        json!("ping"),
        json!({}),
        json!({"action": 7}),
        json!({"action": "ping_pong"}),
        json!({"action": "create_conversation_session", "agentId": ""}),
        json!({"action": "create_conversation_session", "userName": 7}),
        json!({"action": "create_conversation_session", "metadata": []}),
        json!({"action": "create_conversation_session", "supports": ["resume", 7]}),
        json!({"action": "create_conversation_session", "conversationId": {}}),
        json!({"action": "get_session"}),
        json!({"action": "get_session", "sessionId": ""}),
        json!({"action": "get_session", "sessionId": null}),
        json!({"action": "get_conversation_messages", "sessionId": SESSION, "cursor": 3}),
        json!({"action": "get_conversation_messages", "limit": 3}),
        json!({"action": "list_conversations", "cursor": 3}),
        json!({"action": "list_conversations", "query": ["a"]}),
        json!({"action": "rename_conversation", "title": "Refund"}),
        json!({"action": "rename_conversation", "conversationId": 7, "title": "Refund"}),
        json!({"action": "rename_conversation", "conversationId": SESSION}),
        json!({"action": "rename_conversation", "conversationId": SESSION, "title": ""}),
        json!({"action": "rename_conversation", "conversationId": SESSION, "title": 7}),
        json!({"action": "send_message", "sessionId": SESSION, "message": "hello"}),
        json!({"action": "send_message", "requestId": "", "sessionId": SESSION, "message": "hello"}),
        json!({"action": "send_message", "requestId": 7, "sessionId": SESSION, "message": "hello"}),
        json!({"action": "send_message", "requestId": "r", "message": "hello"}),
        json!({"action": "send_message", "requestId": "r", "sessionId": SESSION, "message": 7}),
        json!({"action": "send_message", "requestId": "r", "sessionId": SESSION, "message": "é".repeat(10_001)}),
        json!({"action": "send_message", "requestId": "r", "sessionId": SESSION, "message": "hello", "stream": "yes"}),
        json!({"action": "send_message", "requestId": "r", "sessionId": SESSION, "message": "hello", "model": 7}),
        json!({"action": "confirm_tool_action", "sessionId": SESSION}),
        json!({"action": "confirm_tool_action", "sessionId": SESSION, "approved": "true"}),
        json!({"action": "confirm_tool_action", "approved": true}),
        json!({"action": "resume_session", "seq": "x"}),
        json!({"action": "resume_session", "sessionId": SESSION, "seq": 7}),
    ]
}

#[test]
fn the_schema_accepts_the_programs_frames() {
    let schema = validator(&json_file("spec/actions.schema.json"));
    let judge = |frame: &Value, expected: bool| {
        let read = actions::read(&frame.to_string()).map_err(|(_, bad)| bad).and_then(|request| check(&request));
        assert_eq!(read.is_ok(), expected, "by the program: {frame}, {read:?}");
        assert_eq!(schema.is_valid(frame), expected, "by the schema: {frame}");
    };
    accepted().iter().for_each(|frame| judge(frame, true));
    refused().iter().for_each(|frame| judge(frame, false));
}

#[test]
fn every_action_is_in_the_table() {
    for (_, name) in Action::ALL {
        assert!(accepted().iter().any(|frame| frame["action"] == name), "{name}");
    }
}
