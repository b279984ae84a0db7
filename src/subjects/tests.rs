//! Subjects parse back to their values, and no other text parses.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_becomes_one_legal_token_and_back(text in ".{0,40}") {
        let token = encode_token(&text);
        prop_assert!(!token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
        prop_assert_eq!(decode_token(&token), Some(text));
    }

    #[test]
    fn an_event_subject_names_its_conversation(org in ".{0,20}", bytes in any::<[u8; 16]>()) {
        let key = ConversationKey { region: "eu".into(), org, conversation: Uuid::new_v8(bytes) };
        prop_assert_eq!(ConversationKey::parse_event(&key.event("turn.started")), Some(key.clone()));
        prop_assert_eq!(ConversationKey::parse_event(&key.work_item("turn.requested", "default")), Some(key));
    }

    #[test]
    fn parsing_never_panics(subject in ".{0,60}") {
        let _ = (ConversationKey::parse_event(&subject), parse_stop(&subject), decode_token(&subject));
    }
}

#[test]
fn a_text_has_exactly_one_token() {
    assert_eq!(decode_token("a=2Eb"), Some("a.b".into()));
    for other in ["a=2eb", "=41", "=+1", "==", "=2", ""] {
        assert_eq!(decode_token(other), None, "{other}");
    }
}

#[test]
fn a_hosts_event_names_its_target() {
    for (to, _) in PushTo::ALL {
        assert_eq!(parse_push(&push("eu", to, "a b.", "*.>")), Some((to, "a b.".into(), "*.>".into())));
    }
    assert_eq!(parse_push("push.eu.everybody.a.b"), None);
}

#[test]
fn a_stop_hint_names_its_conversation() {
    let id = Uuid::new_v4();
    assert_eq!(parse_stop(&stop("eu", id)), Some(id));
}

#[test]
fn a_privacy_subject_names_its_deed() {
    for (what, _) in PrivacySubject::ALL {
        assert_eq!(parse_audit_privacy(&audit_privacy("eu", what)), Some(what));
    }
    for other in ["audit.eu.checkpoint", "audit.eu.privacy.forgotten", "audit.eu.x.privacy.hold_lifted"] {
        assert_eq!(parse_audit_privacy(other), None, "{other}");
    }
}
