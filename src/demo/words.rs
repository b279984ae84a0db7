//! Words of a text, made comparable.
//!
//! Contract: two forms of one English word mostly get the same stem; words without a meaning in a question are left out. Good
//! enough to choose a sentence, no more.

use std::collections::HashSet;

/// Words that carry no topic.
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "am", "an", "and", "any", "are", "as", "at", "be", "by", "can", "could", "do", "does", "for",
    "from", "get", "give", "has", "have", "how", "i", "if", "in", "is", "it", "its", "know", "like", "long", "many",
    "may", "me", "much", "my", "need", "no", "not", "of", "on", "or", "our", "please", "s", "shall", "should", "so",
    "tell", "than", "that", "the", "their", "them", "there", "they", "this", "to", "us", "want", "was", "we", "what",
    "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];

/// Splits a text into lower-case words: runs of letters and digits.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric());
    runs.filter(|word| !word.is_empty()).map(|word| word.to_lowercase())
}

/// Returns the stems of the words that carry a topic.
pub fn stems(text: &str) -> HashSet<String> {
    words(text).filter(|word| !STOP_WORDS.contains(&word.as_str())).map(|word| stem(&word)).collect()
}

/// Strips the commonest endings if three characters remain.
fn stem(word: &str) -> String {
    const LEFT_MIN_CHARS: usize = 3;
    for ending in ["ing", "ies", "ed", "es", "s", "e", "y"] {
        let Some(left) = word.strip_suffix(ending) else {
            continue;
        };
        if left.chars().count() < LEFT_MIN_CHARS {
            continue;
        }
        // "shipping" and "ship" are one word.
        let mut ends = left.chars().rev();
        let doubled = ending == "ing" || ending == "ed";
        return match (ends.next(), ends.next()) {
            (Some(last), Some(before)) if doubled && last == before && !"ls".contains(last) => {
                left[..left.len() - last.len_utf8()].to_owned()
            }
            _ => left.to_owned(),
        };
    }
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflected_words_share_a_stem() {
        for (one, other) in [
            ("return", "returns"),
            ("ship", "shipping"),
            ("shipped", "ships"),
            ("policy", "policies"),
            ("refund", "refunded"),
            ("charge", "charging"),
            ("fee", "fee"),
        ] {
            assert_eq!(stem(one), stem(other));
        }
        assert_ne!(stem("order"), stem("refund"));
    }

    #[test]
    fn a_question_keeps_its_content_words() {
        let mut about: Vec<_> = stems("How long is your return-window, please?").into_iter().collect();
        about.sort();
        assert_eq!(about, ["return", "window"]);
        assert!(stems("What is it?").is_empty());
    }
}
