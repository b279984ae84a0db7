//! The strict check of server frames: exactly the fields that the published clients accept.

use serde_json::Value;

type Checked = Result<(), String>;
type Check = fn(&Value) -> Checked;
type Fields = &'static [(&'static str, Check)];

pub fn frame(frame: &Value) -> Checked {
    let kind = frame["type"].as_str().ok_or("a frame without a type")?;
    let (required, optional): (Fields, Fields) = match kind {
        "pong" => (&[("data", pong)], &[("requestId", text)]),
        "immediate_response" => {
            (&[("status", integer), ("message", text), ("data", any_object)], &[("requestId", text)])
        }
        "stream_token" | "stream_reasoning" | "stream_preamble" => {
            (&[("requestId", text), ("token", text), ("data", token)], &[])
        }
        "stream_chunk" => (&[("requestId", text), ("node", text), ("data", chunk)], &[]),
        "eventual_response" => (&[("requestId", text), ("status", ok), ("data", eventual)], &[]),
        "cancelled" => (&[("requestId", text), ("status", client_closed), ("data", cancelled)], &[]),
        "write_confirmation_required" => (&[("requestId", text), ("data", confirmation)], &[]),
        "interaction_required" => (&[("requestId", text), ("data", interaction)], &[]),
        "interaction_invalid" => (&[("requestId", text), ("data", interaction_invalid)], &[]),
        "otp_verification_required" => (&[("requestId", text), ("data", otp_required)], &[]),
        "otp_sent" => (&[("requestId", text), ("data", otp_sent)], &[]),
        "otp_verified" => (&[("requestId", text), ("data", otp_verified)], &[]),
        "otp_invalid" => (&[("requestId", text), ("data", otp_invalid)], &[]),
        "keepalive" => (&[("requestId", text), ("data", only_request_id)], &[]),
        "error" => (&[("error", error), ("data", error_data)], &[("requestId", text)]),
        other => return Err(format!("a frame of the unknown type `{other}`")),
    };
    let common: Fields = &[("type", text), ("timestamp", milliseconds)];
    object(frame, &[common, required].concat(), optional)?;
    if kind == "immediate_response" {
        immediate(frame)?;
    }
    same_request_id(frame)?;
    super::schema::frame(frame)
}

/// Checks `data` of the answers, by their message.
fn immediate(frame: &Value) -> Checked {
    let (status, data) = (&frame["status"], &frame["data"]);
    let expected = match frame["message"].as_str().unwrap_or_default() {
        "Processing your request..." => {
            object(data, &[], &[])?;
            202
        }
        "Session created" => {
            object(data, SESSION, &[])?;
            200
        }
        "Session" => {
            object(data, &[SESSION, SESSION_MORE].concat(), &[])?;
            200
        }
        "ConversationMessages" => {
            object(data, &[("messages", messages), ("nextCursor", text_or_null), ("hasMore", boolean)], &[])?;
            200
        }
        "Conversations" => {
            let fields: Fields =
                &[("conversations", conversations), ("nextCursor", text_or_null), ("hasMore", boolean)];
            object(data, fields, &[])?;
            200
        }
        "Conversation renamed" => {
            object(data, &[("conversationId", uuid), ("title", text)], &[])?;
            200
        }
        "Session resumed" => {
            let session: Check = |data| object(data, &[SESSION, SESSION_MORE].concat(), &[]);
            object(data, &[("session", session), ("turn", turn_or_null)], &[])?;
            200
        }
        "Tool action approved" | "Tool action rejected" => {
            object(data, &[("sessionId", uuid), ("approved", boolean)], &[])?;
            200
        }
        "Interaction submitted" => {
            let values: Check = any_object;
            object(
                data,
                &[("sessionId", uuid), ("interactionId", uuid), ("kind", interaction_kind), ("values", values)],
                &[],
            )?;
            200
        }
        "Interaction declined" => {
            let yes: Check = |value| check(*value == true, value, "true");
            object(data, &[("sessionId", uuid), ("interactionId", uuid), ("declined", yes)], &[])?;
            200
        }
        other => return Err(format!("an answer with the unknown message `{other}`")),
    };
    if *status == expected { Ok(()) } else { Err(format!("status {status} where {expected} belongs")) }
}

const SESSION: Fields = &[
    ("sessionId", uuid),
    ("conversationId", uuid),
    ("agentId", text),
    ("agentName", text),
    ("userParticipantId", uuid),
    ("agentParticipantId", uuid),
];

/// The further fields of an existing session.
const SESSION_MORE: &[(&str, Check)] = &[("threadId", uuid), ("status", session_status)];

fn turn_or_null(turn: &Value) -> Checked {
    let state: Check = |value| one_of(value, &["queued", "running", "parked"]);
    if turn.is_null() { Ok(()) } else { object(turn, &[("requestId", text), ("state", state)], &[]) }
}

/// Checks that a requestId in `data` repeats the frame's own.
fn same_request_id(frame: &Value) -> Checked {
    let (outer, inner) = (frame.get("requestId"), frame["data"].get("requestId"));
    if inner.is_some() && inner != outer { Err("two different requestIds".into()) } else { Ok(()) }
}

fn pong(data: &Value) -> Checked {
    object(data, &[("timestamp", milliseconds)], &[])
}

fn token(data: &Value) -> Checked {
    object(data, &[("requestId", text), ("token", text)], &[])
}

fn chunk(data: &Value) -> Checked {
    object(data, &[("requestId", text), ("node", text), ("state", state)], &[])
}

fn state(state: &Value) -> Checked {
    object(state, &[("rawResponse", raw_response)], &[])
}

fn raw_response(raw: &Value) -> Checked {
    let optional: Fields = &[
        ("toolCall", |call| object(call, &[("name", text), ("arguments", text)], &[])),
        ("toolResult", |result| object(result, &[("name", text), ("isError", boolean), ("result", text)], &[])),
        ("turnRestarted", |marker| object(marker, &[], &[])),
    ];
    object(raw, &[], optional)?;
    match raw.as_object().map_or(0, |map| map.len()) {
        1 => Ok(()),
        n => Err(format!("{n} activities in one chunk")),
    }
}

fn eventual(data: &Value) -> Checked {
    object(data, &[("requestId", text), ("status", ok), ("data", answer)], &[])
}

fn answer(answer: &Value) -> Checked {
    let required: Fields = &[("messageId", uuid), ("response", response), ("needsEscalation", boolean)];
    let optional: Fields = &[
        ("escalationReason", text),
        ("citations", |list| not_empty(list).and_then(|()| items(list, citation))),
        ("usage", usage),
    ];
    object(answer, required, optional)
}

fn response(response: &Value) -> Checked {
    let required: &[(&str, Check)] = &[
        ("responseParts", |parts| not_empty(parts).and_then(|()| items(parts, not_blank))),
        ("customerHappinessScore", score),
        ("needsSatisfactionScore", score),
        ("requestSummary", text),
        ("resolutionStatus", |value| {
            one_of(value, &["resolved", "in_progress", "requires_escalation", "needs_more_info", "blocked"])
        }),
        ("suggestedNextActions", |actions| items(actions, text)),
    ];
    object(response, required, &[])
}

fn citation(citation: &Value) -> Checked {
    let required: Fields = &[("id", not_blank), ("title", not_blank), ("snippet", snippet), ("score", score)];
    object(citation, required, &[("url", text)])
}

fn snippet(value: &Value) -> Checked {
    let length = value.as_str().map(|text| text.chars().count());
    check(length.is_some_and(|chars| chars <= 280), value, "a snippet")
}

fn usage(usage: &Value) -> Checked {
    let cost: Check = |value| check(value.as_f64().is_some_and(|cost| cost >= 0.0), value, "a cost");
    object(usage, &[("promptTokens", integer), ("completionTokens", integer)], &[("costUsd", cost)])
}

fn cancelled(data: &Value) -> Checked {
    object(data, &[("requestId", text), ("status", client_closed)], &[])
}

fn confirmation(data: &Value) -> Checked {
    let tool: Check = |data| object(data, &[("toolId", not_blank), ("actionDescription", not_blank)], &[]);
    object(data, &[("requestId", text), ("data", tool)], &[])
}

fn nested(data: &Value, inner: Check) -> Checked {
    object(data, &[("requestId", text), ("data", inner)], &[])
}

fn interaction_kind(value: &Value) -> Checked {
    one_of(value, &["identity_intake", "choices", "elicitation"])
}

fn interaction(data: &Value) -> Checked {
    nested(data, |data| {
        object(
            data,
            &[("interactionId", uuid), ("kind", interaction_kind), ("spec", any_object), ("reason", not_blank)],
            &[],
        )
    })
}

fn interaction_invalid(data: &Value) -> Checked {
    nested(data, |data| {
        let errors: Check = |list| {
            not_empty(list)?;
            items(list, |error| object(error, &[("field", not_blank), ("message", not_blank)], &[]))
        };
        let required: &[(&str, Check)] =
            &[("interactionId", uuid), ("kind", interaction_kind), ("errors", errors), ("message", not_blank)];
        object(data, required, &[])
    })
}

fn channel(value: &Value) -> Checked {
    one_of(value, &["email", "sms"])
}

fn otp_required(data: &Value) -> Checked {
    nested(data, |data| {
        let channels: Check = |list| not_empty(list).and_then(|()| items(list, channel));
        let level: Check = |value| one_of(value, &["none", "end_user", "admin"]);
        let required: &[(&str, Check)] = &[
            ("toolId", not_blank),
            ("actionDescription", not_blank),
            ("availableChannels", channels),
            ("authLevel", level),
        ];
        object(data, required, &[])
    })
}

fn otp_sent(data: &Value) -> Checked {
    nested(data, |data| object(data, &[("channel", channel), ("maskedDestination", not_blank)], &[]))
}

fn otp_verified(data: &Value) -> Checked {
    nested(data, |data| object(data, &[("message", not_blank)], &[]))
}

fn otp_invalid(data: &Value) -> Checked {
    nested(data, |data| {
        let error: Check = |value| one_of(value, &["INVALID_CODE", "MAX_ATTEMPTS", "NOT_FOUND", "EXPIRED"]);
        object(data, &[("attemptsRemaining", integer), ("message", not_blank)], &[("error", error)])
    })
}

fn only_request_id(data: &Value) -> Checked {
    object(data, &[("requestId", text)], &[])
}

fn error(error: &Value) -> Checked {
    object(error, &[("code", error_code), ("message", not_blank)], &[])
}

fn error_data(data: &Value) -> Checked {
    let details: Check = |details| object(details, &[("retryAfterSeconds", integer)], &[]);
    object(data, &[("error", error)], &[("requestId", text), ("details", details)])
}

fn error_code(code: &Value) -> Checked {
    const CODES: &[&str] = &[
        "VALIDATION_ERROR",
        "RATE_LIMITED",
        "AGENT_NOT_AUTHORIZED",
        "ORIGIN_NOT_ALLOWED",
        "AUTH_CONTEXT_INVALID",
        "INVALID_TOKEN",
        "UNSUPPORTED_ACTION",
        "SESSION_NOT_FOUND",
        "CONVERSATION_NOT_FOUND",
        "CONVERSATION_READ_ONLY",
        "TURN_IN_PROGRESS",
        "NO_PENDING_CONFIRMATION",
        "NO_PENDING_INTERACTION",
        "INTERACTION_MISMATCH",
        "SKILL_NOT_FOUND",
        "LLM_UNAVAILABLE",
        "AGENT_ERROR",
        "OTP_SEND_FAILED",
        "STORAGE_ERROR",
        "INTERNAL_ERROR",
    ];
    one_of(code, CODES)
}

fn conversations(list: &Value) -> Checked {
    items(list, |conversation| {
        let required: Fields = &[
            ("conversationId", uuid),
            ("title", text),
            ("updatedAt", date),
            ("messageCount", |count| check(count.as_u64() > Some(0), count, "a number from 1")),
        ];
        object(conversation, required, &[])
    })
}

fn messages(list: &Value) -> Checked {
    items(list, |message| {
        let required: &[(&str, Check)] = &[
            ("id", uuid),
            ("direction", |value| one_of(value, &["inbound", "outbound"])),
            ("content", |content| object(content, &[("text", text)], &[("structuredResponse", response)])),
            ("from", participant),
            ("to", participant),
            ("createdAt", date),
        ];
        object(message, required, &[])?;
        let structured = message["content"].get("structuredResponse").is_some();
        let by_agent = message["from"]["type"] == "ai-agent" && message["direction"] == "outbound";
        check(structured == by_agent, message, "a message whose direction fits its content")
    })
}

fn participant(participant: &Value) -> Checked {
    let kind: Check = |value| one_of(value, &["user", "ai-agent", "human-agent"]);
    object(participant, &[("id", uuid), ("type", kind)], &[("name", text)])
}

fn session_status(value: &Value) -> Checked {
    one_of(value, &["active", "idle", "ended"])
}

fn object(value: &Value, required: &[(&str, Check)], optional: &[(&str, Check)]) -> Checked {
    let map = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    for (name, check) in required {
        let field = map.get(*name).ok_or_else(|| format!("`{name}` is missing"))?;
        check(field).map_err(|problem| format!("{name}: {problem}"))?;
    }
    for (name, field) in map {
        if required.iter().any(|(known, _)| known == name) {
            continue;
        }
        let (_, check) = optional.iter().find(|(known, _)| known == name).ok_or(format!("`{name}` is unknown"))?;
        check(field).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}

fn items(list: &Value, check: Check) -> Checked {
    list.as_array().ok_or_else(|| format!("{list} is no list"))?.iter().try_for_each(check)
}

fn not_empty(list: &Value) -> Checked {
    check(list.as_array().is_some_and(|list| !list.is_empty()), list, "a list that is not empty")
}

fn one_of(value: &Value, known: &[&str]) -> Checked {
    check(value.as_str().is_some_and(|text| known.contains(&text)), value, "a known value")
}

fn check(fits: bool, value: &Value, what: &str) -> Checked {
    if fits { Ok(()) } else { Err(format!("{value} is not {what}")) }
}

fn any_object(value: &Value) -> Checked {
    check(value.is_object(), value, "an object")
}

fn text(value: &Value) -> Checked {
    check(value.is_string(), value, "a text")
}

fn not_blank(value: &Value) -> Checked {
    check(value.as_str().is_some_and(|text| !text.trim().is_empty()), value, "a text that is not blank")
}

fn text_or_null(value: &Value) -> Checked {
    check(value.is_string() || value.is_null(), value, "a text or null")
}

fn boolean(value: &Value) -> Checked {
    check(value.is_boolean(), value, "a boolean")
}

fn integer(value: &Value) -> Checked {
    check(value.is_u64(), value, "a whole number")
}

/// Checks for Unix milliseconds of this century: seconds or microseconds would be out of range.
fn milliseconds(value: &Value) -> Checked {
    let range = 946_684_800_000..4_102_444_800_000;
    check(value.as_u64().is_some_and(|ms| range.contains(&ms)), value, "Unix milliseconds")
}

fn score(value: &Value) -> Checked {
    check(value.as_f64().is_some_and(|score| (0.0..=1.0).contains(&score)), value, "between 0 and 1")
}

fn ok(value: &Value) -> Checked {
    check(*value == 200, value, "200")
}

fn client_closed(value: &Value) -> Checked {
    check(*value == 499, value, "499")
}

fn uuid(value: &Value) -> Checked {
    check(value.as_str().is_some_and(|text| text.parse::<uuid::Uuid>().is_ok()), value, "a UUID")
}

fn date(value: &Value) -> Checked {
    let fits = value.as_str().is_some_and(|text| chrono::DateTime::parse_from_rfc3339(text).is_ok());
    check(fits, value, "an RFC 3339 time")
}
