//! Subjects of external services: tools, one-time passwords, an organisation's own search.

use uuid::Uuid;

use super::{decode_token, encode_token};

/// Prefix of tool subjects. Publishers: workers' connections for tool calls. Subscribers: NATS micro services. Not kept.
pub const TOOL_CALLS: &str = "tool.";
/// Prefix of the subjects of [`otp`]. Publishers: workers' and edges' connections for passwords.
pub const OTP_CALLS: &str = "otp.";
/// Prefix of the subjects of [`retrieve`]. Publishers: workers' connections for retrieval.
pub const RETRIEVE_CALLS: &str = "retrieve.";
/// Prefix of the tool subjects of one organisation: `tool.org.{org}.`.
const TOOL_OF_ORG: &str = "tool.org.";

/// Longest subject that a service may name for its calls: far below the server's control line of 4 KiB.
const CALL_SUBJECT_MAX_BYTES: usize = 256;

/// Subject of the demo tool's endpoint.
pub const DEMO_REFUND: &str = "tool.demo.issue_refund";

/// `$SRV.INFO`: asks every NATS micro service to describe itself.
pub const SERVICES_INFO: &str = "$SRV.INFO";

/// `$SRV.PING.{name}.{id}`: pings one instance of a micro service.
pub fn service_ping(name: &str, id: &str) -> String {
    format!("$SRV.PING.{name}.{id}")
}

/// Returns whether a text can stand unencoded as one token of a subject: the names and ids of micro services.
pub fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Returns whether a subject is a literal one below a prefix: without wildcards, empty tokens, or bytes that a protocol
/// line can't hold.
pub fn is_call(beginning: &str, subject: &str) -> bool {
    subject.len() <= CALL_SUBJECT_MAX_BYTES
        && subject.strip_prefix(beginning).is_some_and(|rest| {
            let is_plain = |token: &str| {
                !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'>'))
            };
            rest.split('.').all(is_plain)
        })
}

/// Parses the organisation of a tool's subject: `tool.org.{org}.…`.
///
/// `None`: the subject names no organisation; an error: its organisation token is invalid.
pub fn org_of_tool(subject: &str) -> Option<Result<String, ()>> {
    let (org, _) = subject.strip_prefix(TOOL_OF_ORG)?.split_once('.')?;
    Some(decode_token(org).ok_or(()))
}

/// `tool.org.{org}.>`: all tools of an organisation.
pub fn tools_of_org(org: &str) -> String {
    format!("{TOOL_OF_ORG}{}.>", encode_token(org))
}

/// `otp.{org}.{verb}`: asks the host's service to send a one-time password to a session's visitor (`send`, by a worker) or
/// to verify one (`verify`, by an edge). Answered by a NATS micro service; not kept.
pub fn otp(org: &str, verb: &str) -> String {
    format!("{OTP_CALLS}{}.{verb}", encode_token(org))
}

/// `retrieve.{org}`: asks an organisation's own search for passages. Publishers: workers told to use it. Subscriber: a NATS
/// micro service. Not kept.
pub fn retrieve(org: &str) -> String {
    format!("{RETRIEVE_CALLS}{}", encode_token(org))
}

/// `file.{process}.{token}`: a request for a piece of a call's file, by the called tool; without a token, the filter of all
/// files that a worker lends. Publishers: services of tools. Subscriber: the calling worker, which answers only to inboxes.
pub fn file(process: Uuid, token: Option<Uuid>) -> String {
    let token = token.map_or_else(|| "*".to_string(), |token| token.to_string());
    format!("file.{process}.{token}")
}

/// Returns a provider subscription, narrowed to the services of one organisation.
pub fn of_one_org(subscription: &str, org: &str) -> String {
    let token = encode_token(org);
    match subscription {
        "tool.>" => tools_of_org(org),
        "otp.*.*" => format!("{OTP_CALLS}{token}.*"),
        "retrieve.*" => format!("{RETRIEVE_CALLS}{token}"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_needs_a_literal_subject_of_its_kind() {
        for subject in ["tool.a", "tool.test.look_up", "tool.org.acme.x=20y"] {
            assert!(is_call(TOOL_CALLS, subject), "{subject}");
        }
        let long = format!("tool.{}", "a".repeat(CALL_SUBJECT_MAX_BYTES));
        for subject in [
            "tool",
            "tool.",
            "tool.>",
            "tool.*",
            "tool.a.>",
            "tool.a*",
            "tool..a",
            "tool.a.",
            "tool.a b",
            "tool.a\r\nPUB x",
            "tool.ü",
            "tools.a",
            "chat.local.x",
            "$JS.API.STREAM.PURGE.KNOWLEDGE",
            "$KV.KEYS.a",
            "otp.acme.send",
            "",
            &long,
        ] {
            assert!(!is_call(TOOL_CALLS, subject), "{subject}");
        }
        assert!(is_call(OTP_CALLS, &otp("acme inc.", "send")) && is_call(RETRIEVE_CALLS, &retrieve("acme inc.")));
    }

    #[test]
    fn a_subject_below_an_organisation_belongs_to_it() {
        assert_eq!(org_of_tool("tool.org.acme=20inc.look_up"), Some(Ok("acme inc".into())));
        assert_eq!(org_of_tool("tool.org.acme=2.look_up"), Some(Err(())));
        assert_eq!(org_of_tool("tool.demo.issue_refund"), None);
    }
}
