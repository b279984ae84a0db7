//! The ending of a reply, classified by its finish reason.
//!
//! Contract: only known words mean that the model had finished. After an unknown word the text may be an answer, but
//! calls are not made, for they may be incomplete.

/// The ending of a reply, by its finish reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FinishReason {
    /// The model had finished.
    #[default]
    Whole,
    /// The reply was cut at a limit, or by a failure at the provider.
    Cut,
    /// A content filter stopped the reply.
    Filtered,
    /// The model refused.
    Refused,
    /// The stream ended in order, with no finish reason or an unknown one.
    Unmarked,
}

/// Finish reasons of a complete reply, in lower case, letters and digits alone.
const WHOLE: [&str; 13] = [
    "stop",
    "toolcall",
    "toolcalls",
    "functioncall",
    "functioncalls",
    "tooluse",
    "endturn",
    "endofturn",
    "stopsequence",
    "eos",
    "eostoken",
    "complete",
    "completed",
];
const CUT: [&str; 35] = [
    "length",
    "maxtokens",
    "maxtoken",
    "maxoutputtokens",
    "maxcompletiontokens",
    "modellength",
    "tokenlimit",
    "maxlength",
    "incomplete",
    "modelcontextwindowexceeded",
    "contextlengthexceeded",
    "contextlength",
    "contextwindowexceeded",
    "error",
    "errorlimit",
    "errortoxic",
    "networkerror",
    "abort",
    "aborted",
    "cancel",
    "cancelled",
    "canceled",
    "failed",
    "insufficientsystemresource",
    "malformedfunctioncall",
    "malformedtooluse",
    "malformedtoolcall",
    "malformedmodeloutput",
    "malformedresponse",
    "unexpectedtoolcall",
    "toomanytoolcalls",
    "missingthoughtsignature",
    "pauseturn",
    "timeout",
    "timelimit",
];
const FILTERED: [&str; 19] = [
    "contentfilter",
    "contentfiltered",
    "filter",
    "filtered",
    "safety",
    "sensitive",
    "blocklist",
    "blocked",
    "prohibitedcontent",
    "spii",
    "recitation",
    "imagesafety",
    "imageprohibitedcontent",
    "imagerecitation",
    "language",
    "modelarmor",
    "guardrailintervened",
    "guardrails",
    "moderation",
];

impl FinishReason {
    /// Returns whether the calls of the reply may be made: only when the model certainly had finished.
    pub fn is_whole(self) -> bool {
        self == Self::Whole
    }

    pub(super) fn of(finish_reason: Option<&str>) -> Self {
        let word: String = finish_reason.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
        let word = word.to_ascii_lowercase();
        let word = word.strip_prefix("finishreason").unwrap_or(&word);
        match word {
            word if WHOLE.contains(&word) => Self::Whole,
            word if CUT.contains(&word) => Self::Cut,
            word if FILTERED.contains(&word) => Self::Filtered,
            "refusal" | "refused" => Self::Refused,
            _ => Self::Unmarked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finish_reason_maps_to_an_ending_and_an_unknown_one_to_none() {
        for (words, expected) in [
            (
                "stop STOP tool_calls tool-calls toolUse function_call end_turn stop_sequence eos eos_token",
                FinishReason::Whole,
            ),
            ("COMPLETE completed FinishReason.STOP FINISH_REASON_STOP", FinishReason::Whole),
            (
                "length max_tokens MAX_TOKENS maxTokens pause_turn error error_limit too_many_tool_calls",
                FinishReason::Cut,
            ),
            (
                "MALFORMED_FUNCTION_CALL malformed_tool_use malformed_model_output UNEXPECTED_TOOL_CALL",
                FinishReason::Cut,
            ),
            ("content_filter content-filter SAFETY IMAGE_SAFETY guardrail_intervened", FinishReason::Filtered),
            ("refusal", FinishReason::Refused),
            ("new_word 7 other OTHER FINISH_REASON_UNSPECIFIED unknown", FinishReason::Unmarked),
        ] {
            for word in words.split(' ') {
                assert_eq!(FinishReason::of(Some(word)), expected, "{word}");
            }
        }
        assert_eq!(FinishReason::of(None), FinishReason::Unmarked);
    }
}
