//! Titles of conversations.

use crate::limits;

/// The title of a conversation that holds no words.
pub const UNTITLED: &str = "Untitled";

/// Cleans a title that a person or model wrote.
///
/// The result is one line, at most `TITLE_MAX_CHARS` long, without invisible characters and without the quotes and marks
/// that models and people put around titles. `None`: nothing is left.
pub fn clean(text: &str) -> Option<String> {
    let line = one_line(text);
    let marks = |c: char| matches!(c, '"' | '\'' | '“' | '”' | '‘' | '’' | '*' | '`' | '#') || c.is_whitespace();
    let title: String = line.trim_matches(marks).chars().take(limits::TITLE_MAX_CHARS).collect();
    Some(title.trim_end().to_string()).filter(|title| !title.is_empty())
}

/// Derives a title from a message, for a conversation without one.
///
/// `None`: the message has no words.
pub fn of_message(text: &str) -> Option<String> {
    // Only the beginning can matter, so a long message is cut before its whitespace is collapsed.
    let beginning: String = text.chars().take(limits::TITLE_MAX_CHARS * 8).collect();
    let line = one_line(&beginning);
    let is_cut = line.chars().count() > limits::TITLE_MAX_CHARS;
    let mut title: String = line.chars().take(limits::TITLE_MAX_CHARS).collect();
    if is_cut {
        title = format!("{}…", title.trim_end());
    }
    Some(title).filter(|title| !title.is_empty())
}

/// Collapses whitespace and drops characters that would hide or reverse their neighbours in a list.
pub fn one_line(text: &str) -> String {
    let shown: String = text.chars().filter(|c| c.is_whitespace() || !is_hidden(*c)).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether a character is invisible but changes its neighbours: controls, direction marks, invisible ones.
///
/// The joiner and the variation selectors of emoji don't count.
pub fn is_hidden(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(c, '\u{2028}' | '\u{2029}');
    let is_invisible = matches!(c, '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || turns || breaks || is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_one_short_line_without_decoration() {
        for (written, kept) in [
            ("Refunds", Some("Refunds")),
            ("  a \n\t title\u{a0}here ", Some("a title here")),
            ("\"**Refund for `ORD-1`**\"", Some("Refund for `ORD-1")),
            ("# Heading", Some("Heading")),
            ("it's \"so\" simple", Some("it's \"so\" simple")),
            ("a\u{202e}b\u{0}c\u{7}", Some("abc")),
            ("\u{feff}a\u{200b}b\u{e0041}\u{2028}c", Some("ab c")),
            ("\u{1f469}\u{200d}\u{1f4bb}", Some("\u{1f469}\u{200d}\u{1f4bb}")),
            (" \"**` # ", None),
            ("", None),
        ] {
            assert_eq!(clean(written).as_deref(), kept, "{written:?}");
        }
        assert_eq!(clean(&"ü".repeat(61)), Some("ü".repeat(60)));
    }

    #[test]
    fn a_cut_title_is_marked() {
        assert_eq!(of_message("  where\nis it? "), Some("where is it?".into()));
        assert_eq!(of_message(&"é".repeat(60)), Some("é".repeat(60)));
        assert_eq!(of_message(&"é".repeat(61)), Some(format!("{}…", "é".repeat(60))));
        assert_eq!(of_message(" \n"), None);
    }
}
