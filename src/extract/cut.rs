//! Cuts a text into passages at its own seams: sections, paragraphs, sentences.

use text_splitter::{MarkdownSplitter, TextSplitter};

use super::Form;
use crate::limits;

/// A passage of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The headings above it, outermost first.
    pub headings: Vec<String>,
    pub text: String,
}

/// A line that opens a section.
pub struct Heading {
    at: usize,
    level: usize,
    pub text: String,
}

/// The passages of a text, in order.
pub fn pieces(form: Form, text: &str) -> Vec<Piece> {
    let size = limits::PASSAGE_CHARS;
    if matches!(form, Form::Plain | Form::Pdf) {
        let splitter = TextSplitter::new(size);
        return splitter.chunks(text).map(|chunk| Piece { headings: vec![], text: chunk.to_string() }).collect();
    }
    let headings = headings(text);
    let splitter = MarkdownSplitter::new(size);
    let chunks = splitter.chunk_indices(text);
    let piece = |(at, chunk): (usize, &str)| Piece { headings: path(&headings, at), text: chunk.to_string() };
    // A heading that stands alone says nothing that the path of the next passage does not say.
    chunks.map(piece).filter(|piece| !is_heading_only(&piece.text)).collect()
}

fn is_heading_only(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || heading(line).is_some())
}

/// The headings that are open at an offset.
fn path(headings: &[Heading], at: usize) -> Vec<String> {
    let mut open: Vec<&Heading> = Vec::new();
    for heading in headings.iter().take_while(|heading| heading.at <= at) {
        while open.last().is_some_and(|above| above.level >= heading.level) {
            open.pop();
        }
        open.push(heading);
    }
    open.into_iter().map(|heading| heading.text.clone()).collect()
}

/// The `#` headings of a Markdown text, those in code blocks left out.
pub fn headings(markdown: &str) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    let mut at = 0;
    for line in markdown.split_inclusive('\n') {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => {
                found.extend(heading(line).map(|(level, text)| Heading { at, level, text: text.to_string() }));
            }
            _ => {}
        }
        at += line.len();
    }
    found
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    let rest = line.get(level..)?;
    let legal = (1..=6).contains(&level) && rest.starts_with([' ', '\t']);
    legal.then(|| (level, rest.trim().trim_end_matches('#').trim()))
}
