//! The plan of a turn's output: written into the user's message by the client, read back by the fake gateway, and checked token
//! by token on arrival.
//!
//! Contract: `TurnPlan::find` finds the output of `TurnPlan`'s `Display` in any text around it; `marks` finds the output of
//! `write_token` in any run of tokens.

use std::fmt::{self, Write};

use uuid::Uuid;

/// The first word of a plan in a message.
const WORD: &str = "bench";

/// The radix of the send time inside a token: short, and without characters that JSON escapes.
const RADIX: u32 = 36;

/// The output of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnPlan {
    /// The turn's id in the gateway's records, and its request id.
    pub id: Uuid,
    pub tokens: u32,
    /// Tokens a second; 0 = as fast as the socket takes them.
    pub rate: u32,
    /// Filler bytes in each token, for turns that are heavy rather than long.
    pub pad: u32,
}

impl TurnPlan {
    /// Creates a plan with a fresh id.
    pub fn new(tokens: u32, rate: u32) -> TurnPlan {
        TurnPlan { id: Uuid::new_v4(), tokens, rate, pad: 0 }
    }

    /// Reads the last plan in `text`.
    pub fn find(text: &str) -> Option<TurnPlan> {
        let start = text.rfind(&format!("{WORD} id="))?;
        let mut plan = TurnPlan { id: Uuid::nil(), tokens: 0, rate: 0, pad: 0 };
        for word in text[start + WORD.len()..].split_whitespace() {
            let Some((key, value)) = word.split_once('=') else { break };
            match key {
                "id" => plan.id = value.parse().ok()?,
                "tokens" => plan.tokens = value.parse().ok()?,
                "rate" => plan.rate = value.parse().ok()?,
                "pad" => plan.pad = value.parse().ok()?,
                _ => break,
            }
        }
        Some(plan)
    }
}

impl fmt::Display for TurnPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TurnPlan { id, tokens, rate, pad } = self;
        write!(f, "{WORD} id={id} tokens={tokens} rate={rate} pad={pad}")
    }
}

/// Appends the text of a token, ` t{index}:{time in base 36}`, and the filler if there is any.
pub fn write_token(out: &mut String, index: u32, sent_ns: u64, pad: u32) {
    let mut digits = [0_u8; 13];
    let mut rest = sent_ns;
    let mut first = digits.len();
    loop {
        first -= 1;
        let digit = u32::try_from(rest % u64::from(RADIX)).unwrap_or(0);
        digits[first] = char::from_digit(digit, RADIX).unwrap_or('0') as u8;
        rest /= u64::from(RADIX);
        if rest == 0 {
            break;
        }
    }
    // Writing to a String cannot fail.
    let _ = write!(out, " t{index}:");
    out.extend(digits[first..].iter().copied().map(char::from));
    if pad > 0 {
        out.push(':');
        out.extend(std::iter::repeat_n('x', pad as usize));
    }
}

/// An arrived token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenArrival {
    pub index: u32,
    pub sent_ns: u64,
}

/// Parses the tokens in `text`; `None` = a word that is not a token.
pub fn marks(text: &str) -> impl Iterator<Item = Option<TokenArrival>> {
    text.split_ascii_whitespace().map(|word| {
        let mut parts = word.strip_prefix('t')?.splitn(3, ':');
        let index = parts.next()?.parse().ok()?;
        let sent_ns = u64::from_str_radix(parts.next()?, RADIX).ok()?;
        Some(TokenArrival { index, sent_ns })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_found_in_the_servers_prompt() {
        let plan = TurnPlan { pad: 7, ..TurnPlan::new(100, 20) };
        assert_eq!(TurnPlan::find(&plan.to_string()), Some(plan));
        let wrapped = format!("Relevant: bench id=x\n\nQuestion: {plan}\nAnswer briefly = yes");
        assert_eq!(TurnPlan::find(&wrapped), Some(plan));
        assert_eq!(TurnPlan::find("how long is your return window?"), None);
    }

    #[test]
    fn tokens_are_read_back_from_a_coalesced_frame() {
        let mut text = String::new();
        write_token(&mut text, 0, 0, 0);
        write_token(&mut text, 41, 123_456_789_012, 5);
        write_token(&mut text, 42, u64::MAX, 0);
        let mark = |index, sent_ns| Some(TokenArrival { index, sent_ns });
        let expected = [mark(0, 0), mark(41, 123_456_789_012), mark(42, u64::MAX)];
        assert_eq!(marks(&text).collect::<Vec<_>>(), expected);
        assert_eq!(marks(" t1 x2:5").collect::<Vec<_>>(), [None, None]);
    }
}
