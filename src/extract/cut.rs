//! Cuts a text into passages at its own seams: sections, paragraphs, sentences.

use std::{iter::Peekable, vec::IntoIter};

use serde::{Deserialize, Serialize};
use text_splitter::{MarkdownSplitter, TextSplitter};

use super::Form;
use crate::limits;

/// A passage of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        let chunks = portions(text).into_iter().flat_map(|(_, portion)| splitter.chunks(portion));
        return chunks.map(|chunk| Piece { headings: vec![], text: chunk.to_string() }).collect();
    }
    let mut path = Path::new(headings(text));
    let splitter = MarkdownSplitter::new(size);
    let portions = portions(text).into_iter();
    let chunks =
        portions.flat_map(|(from, portion)| splitter.chunk_indices(portion).map(move |(at, chunk)| (from + at, chunk)));
    let all: Vec<Piece> = chunks.map(|(at, chunk)| Piece { headings: path.at(at), text: chunk.to_string() }).collect();
    // A heading that stands alone says nothing that the headings of the next passage do not say, unless it is all there is.
    match all.iter().all(|piece| is_heading_only(&piece.text)) {
        true => all,
        false => all.into_iter().filter(|piece| !is_heading_only(&piece.text)).collect(),
    }
}

fn is_heading_only(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || heading(line).is_some())
}

/// A text in portions that the splitter can be given, each with its offset: what it needs for one grows faster than the text.
/// They end with a line where there is one, else anywhere.
fn portions(text: &str) -> Vec<(usize, &str)> {
    let mut portions = Vec::new();
    let mut from = 0;
    while text.len() - from > limits::CUT_AT_ONCE_BYTES {
        let most = &text[from..text.floor_char_boundary(from + limits::CUT_AT_ONCE_BYTES)];
        let end = most.rfind('\n').map_or(most.len(), |line| line + 1);
        portions.push((from, &most[..end]));
        from += end;
    }
    portions.push((from, &text[from..]));
    portions
}

/// The headings that are open, on the way through a text.
struct Path {
    coming: Peekable<IntoIter<Heading>>,
    open: Vec<Heading>,
}

impl Path {
    fn new(headings: Vec<Heading>) -> Self {
        Self { coming: headings.into_iter().peekable(), open: Vec::new() }
    }

    /// The headings that are open at an offset, which is not before the last one.
    fn at(&mut self, at: usize) -> Vec<String> {
        while let Some(heading) = self.coming.next_if(|heading| heading.at <= at) {
            while self.open.last().is_some_and(|above| above.level >= heading.level) {
                self.open.pop();
            }
            self.open.push(heading);
        }
        self.open.iter().map(|heading| heading.text.clone()).collect()
    }
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
