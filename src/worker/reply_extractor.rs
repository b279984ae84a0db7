//! Suggested replies: extracted from the model's text while it streams in.
//!
//! Contract: the concatenated output of [`ReplyExtractor`] is the text that the visitor reads: the model's text without any
//! `<suggested_replies>` block, closed or not, and without a list under "Suggested replies:" at its end. No part of a block
//! or list is output even if it arrives letter by letter, and nothing else is withheld at the end.

use crate::limits;

/// Instruction for the model.
pub const CONTRACT: &str = "When it helps, end your answer with up to four short replies that the visitor may want to send \
    next, written from the visitor's view, as a JSON list in this block and nowhere else: \
    <suggested_replies>[\"…\"]</suggested_replies>";

const OPEN: &str = "<suggested_replies>";
const CLOSE: &str = "</suggested_replies>";
const HEADING: &str = "suggested replies:";

/// Extracts suggested replies from streamed text.
#[derive(Default)]
pub struct ReplyExtractor {
    /// Withheld text, which may belong to a block or list.
    held: String,
    /// Content of the open block.
    block: Option<String>,
    /// Replies of the last block.
    replies: Vec<String>,
    /// The output so far ends within a line.
    in_line: bool,
}

impl ReplyExtractor {
    /// Takes new text; returns the part that is surely for the visitor.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut out = String::new();
        loop {
            if let Some(block) = &mut self.block {
                match self.held.find(CLOSE) {
                    Some(at) => {
                        block.push_str(&self.held[..at]);
                        self.replies = read_block(block);
                        self.block = None;
                        self.held.drain(..at + CLOSE.len());
                    }
                    None => {
                        let keep = overlap(&self.held, CLOSE);
                        block.extend(self.held.drain(..self.held.len() - keep));
                        return out;
                    }
                }
            } else if let Some(at) = self.held.find(OPEN) {
                // A list with text after it is not a list at the end.
                self.give(at, &mut out);
                self.held.drain(..OPEN.len());
                self.block = Some(String::new());
            } else {
                let sure = self.sure();
                self.give(sure, &mut out);
                return out;
            }
        }
    }

    /// Ends the text: returns the rest of the visitor's text, and the replies.
    pub fn finish(mut self) -> (String, Vec<String>) {
        if self.block.is_some() {
            return (String::new(), self.replies);
        }
        match self.list_at() {
            Some(at) => {
                let replies = bullets(&self.held[at..]);
                self.held.truncate(at);
                (self.held, if self.replies.is_empty() { replies } else { self.replies })
            }
            None => (self.held, self.replies),
        }
    }

    fn give(&mut self, bytes: usize, out: &mut String) {
        if bytes > 0 {
            self.in_line = !self.held[..bytes].ends_with('\n');
            out.extend(self.held.drain(..bytes));
        }
    }

    /// Returns the bytes of the withheld text that are surely for the visitor.
    fn sure(&self) -> usize {
        let mut from = if self.in_line { self.held.find('\n').map_or(self.held.len(), |at| at + 1) } else { 0 };
        while from < self.held.len() {
            let rest = &self.held[from..];
            if may_become_list(rest) {
                break;
            }
            from += rest.find('\n').map_or(rest.len(), |at| at + 1);
        }
        from.min(self.held.len() - overlap(&self.held, OPEN))
    }

    /// Returns the start of a list of replies at the end of the withheld text.
    fn list_at(&self) -> Option<usize> {
        let starts = self.held.match_indices('\n').map(|(at, _)| at + 1);
        let starts = Some(0).filter(|_| !self.in_line).into_iter().chain(starts);
        starts.into_iter().find(|at| may_become_list(&self.held[*at..]) && !bullets(&self.held[*at..]).is_empty())
    }
}

/// Returns whether a text at the start of a line is a heading with bullets, or may become one.
fn may_become_list(text: &str) -> bool {
    let mut lines = text.split('\n');
    let heading = plain(lines.next().unwrap_or_default());
    let is_open = !text.contains('\n');
    if is_open && heading.len() < HEADING.len() {
        return HEADING.starts_with(&heading);
    }
    heading == HEADING && lines.all(|line| line.trim().is_empty() || bullet(line).is_some())
}

/// Strips the marks that make a line bold or a heading.
fn plain(line: &str) -> String {
    let line: String = line.chars().filter(|c| !"*#_".contains(*c)).collect();
    line.trim().to_lowercase()
}

/// Returns the text of a bullet; empty for an unfinished one.
fn bullet(line: &str) -> Option<&str> {
    let line = line.trim();
    let unnumbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = match unnumbered.len() < line.len() {
        true if unnumbered.is_empty() => Some(""),
        true => unnumbered.strip_prefix(['.', ')']),
        false => None,
    };
    line.strip_prefix(['-', '*', '•']).or(numbered).map(str::trim)
}

fn bullets(list: &str) -> Vec<String> {
    tidy(list.split('\n').skip(1).filter_map(bullet).map(|text| text.trim_matches('"').to_string()))
}

fn read_block(block: &str) -> Vec<String> {
    tidy(serde_json::from_str::<Vec<String>>(block.trim()).unwrap_or_default().into_iter())
}

fn tidy(replies: impl Iterator<Item = String>) -> Vec<String> {
    let replies = replies.map(|reply| reply.trim().to_string()).filter(|reply| !reply.is_empty());
    replies.take(limits::SUGGESTED_REPLIES).collect()
}

/// Returns the length of the longest suffix of `text` that is a proper prefix of `marker`.
fn overlap(text: &str, marker: &str) -> usize {
    (1..marker.len().min(text.len() + 1)).rev().find(|len| text.ends_with(&marker[..*len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&str]) -> (String, Vec<String>) {
        let mut cutter = ReplyExtractor::default();
        let mut text: String = pieces.iter().map(|piece| cutter.push(piece)).collect();
        let (rest, replies) = cutter.finish();
        text.push_str(&rest);
        (text, replies)
    }

    #[test]
    fn blocks_are_cut_in_every_position() {
        let table: &[(&str, &str, &[&str])] = &[
            ("Hi.", "Hi.", &[]),
            ("Hi. <suggested_replies>[\" Yes \",\"\",\"No\"]</suggested_replies>", "Hi. ", &["Yes", "No"]),
            (
                "a<suggested_replies>[\"1\"]</suggested_replies>b<suggested_replies>[\"2\"]</suggested_replies>",
                "ab",
                &["2"],
            ),
            ("a<suggested_replies>not json</suggested_replies>", "a", &[]),
            ("a<suggested_replies>[\"1\"", "a", &[]),
            ("a <suggested", "a <suggested", &[]),
            ("x<suggested_replies>[\"1\",\"2\",\"3\",\"4\",\"5\"]</suggested_replies>", "x", &["1", "2", "3", "4"]),
            ("Hi.\n\n**Suggested replies:**\n- Yes\n- \"No\"\n", "Hi.\n\n", &["Yes", "No"]),
            ("Suggested replies:\n1. Yes\n2) No", "", &["Yes", "No"]),
            ("Suggested replies:\n- Yes\nAnd more.", "Suggested replies:\n- Yes\nAnd more.", &[]),
            ("Suggested replies: none", "Suggested replies: none", &[]),
            ("Suggested replies:", "Suggested replies:", &[]),
            ("These are suggested replies:\n- a", "These are suggested replies:\n- a", &[]),
        ];
        for (text, shown, replies) in table {
            let (whole, found) = cut(&[text]);
            assert_eq!((whole.as_str(), found), (*shown, replies.iter().map(|r| r.to_string()).collect()), "{text}");
        }
    }

    #[test]
    fn ordinary_text_is_not_held_back() {
        let mut cutter = ReplyExtractor::default();
        assert_eq!(cutter.push("One line\nand an"), "One line\nand an");
        assert_eq!(cutter.push("other <b"), "other <b");
        assert_eq!(cutter.push("\n- a bullet"), "\n- a bullet");
    }

    proptest! {
        #[test]
        fn blocks_are_cut_at_every_split_of_the_text(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("<suggested_replies>"), Just("</suggested_replies>"), Just("[\"a\", \"b\"]"), Just("\n"),
                    Just("Suggested replies:"), Just("- c"), Just("<sug"), Just("é"), Just(" "), Just("text"),
                ],
                0..12,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let text: String = parts.concat();
            let mut at: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&pieces), cut(&[&text]));
        }
    }
}
