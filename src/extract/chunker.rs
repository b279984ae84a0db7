//! The chunker: cuts a text into passages at its natural boundaries: sections, paragraphs, sentences.

use std::{iter::Peekable, ops::Range, vec::IntoIter};

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use text_splitter::{MarkdownSplitter, TextSplitter};

use super::DocumentFormat;
use crate::limits;

/// The longest header of a table that is repeated in each of its passages, beyond the passage's own length.
const TABLE_HEADER_MAX_BYTES: usize = 400;

/// A passage of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextChunk {
    /// The headings above the passage, outermost first.
    pub headings: Vec<String>,
    pub text: String,
}

/// A line that opens a section.
pub struct Heading {
    at: usize,
    level: HeadingLevel,
    pub text: String,
}

/// A table in a Markdown text.
struct MarkdownTable {
    /// The range of the rows, without the header.
    rows: Range<usize>,
    /// The header and the delimiter row; empty where they are too long to repeat in a passage.
    header: String,
}

/// The headings and tables of a Markdown text, with their positions.
pub struct Outline {
    pub headings: Vec<Heading>,
    tables: Vec<MarkdownTable>,
}

impl Outline {
    pub fn of(markdown: &str) -> Self {
        let mut outline = Self { headings: Vec::new(), tables: Vec::new() };
        let mut heading: Option<Heading> = None;
        for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
            match (event, &mut heading) {
                (Event::Start(Tag::Heading { level, .. }), _) => {
                    heading = Some(Heading { at: range.start, level, text: String::new() });
                }
                (Event::End(TagEnd::Heading(_)), _) => {
                    outline.headings.extend(heading.take().map(|h| Heading { text: h.text.trim().to_string(), ..h }));
                }
                (Event::Text(text) | Event::Code(text), Some(heading)) => heading.text.push_str(&text),
                (Event::SoftBreak | Event::HardBreak, Some(heading)) => heading.text.push(' '),
                (Event::Start(Tag::Table(_)), _) => {
                    let lines: usize = markdown[range.clone()].split_inclusive('\n').take(2).map(str::len).sum();
                    let header = &markdown[range.start..range.start + lines];
                    let fits = header.len() <= TABLE_HEADER_MAX_BYTES;
                    let header = if fits { header.trim_end().to_string() } else { String::new() };
                    outline.tables.push(MarkdownTable { rows: range.start + lines..range.end, header });
                }
                _ => {}
            }
        }
        outline
    }
}

/// Returns the passages of a text, in order.
pub fn chunks(form: DocumentFormat, text: &str) -> Vec<TextChunk> {
    match form {
        DocumentFormat::Plain | DocumentFormat::Pdf => plain(text),
        DocumentFormat::Table => table(text),
        DocumentFormat::Markdown | DocumentFormat::Html => markdown(text),
    }
}

fn plain(text: &str) -> Vec<TextChunk> {
    let splitter = TextSplitter::new(limits::PASSAGE_CHARS);
    let chunks = portions(text).into_iter().flat_map(|(_, portion)| splitter.chunks(portion));
    chunks.map(|chunk| TextChunk { headings: vec![], text: chunk.to_string() }).collect()
}

/// Cuts a table: each passage after the first begins with the table's first line, which names the columns.
fn table(text: &str) -> Vec<TextChunk> {
    let mut chunks = plain(text);
    let header = text.lines().next().unwrap_or_default();
    if header.len() <= TABLE_HEADER_MAX_BYTES {
        chunks.iter_mut().skip(1).for_each(|chunk| chunk.text = format!("{header}\n{}", chunk.text));
    }
    chunks
}

fn markdown(text: &str) -> Vec<TextChunk> {
    let Outline { headings, tables } = Outline::of(text);
    let (mut path, mut tables) = (HeadingPath::new(headings), tables.into_iter().peekable());
    let splitter = MarkdownSplitter::new(limits::PASSAGE_CHARS);
    let portions = portions(text).into_iter();
    let chunks =
        portions.flat_map(|(from, portion)| splitter.chunk_indices(portion).map(move |(at, chunk)| (from + at, chunk)));
    let mut all: Vec<TextChunk> = Vec::new();
    for (at, chunk) in chunks {
        while tables.next_if(|table| table.rows.end <= at).is_some() {}
        let cut = tables.peek().filter(|table| table.rows.start <= at && !table.header.is_empty());
        let text = cut.map_or_else(|| chunk.to_string(), |table| format!("{}\n{chunk}", table.header));
        all.push(TextChunk { headings: path.at(at), text });
    }
    // The next passage shows the same headings, so a heading alone is dropped, unless the text has nothing else.
    match all.iter().all(|chunk| is_heading_only(&chunk.text)) {
        true => all,
        false => all.into_iter().filter(|chunk| !is_heading_only(&chunk.text)).collect(),
    }
}

fn is_heading_only(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || is_heading(line))
}

fn is_heading(line: &str) -> bool {
    let rest = line.trim_start_matches('#');
    (1..=6).contains(&(line.len() - rest.len())) && rest.starts_with([' ', '\t'])
}

/// Splits a text into portions for the splitter, each with its offset: the splitter's cost grows faster than the text.
///
/// A portion ends with a line where there is one, else anywhere.
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

/// The open headings at the current position of a text.
struct HeadingPath {
    coming: Peekable<IntoIter<Heading>>,
    open: Vec<Heading>,
}

impl HeadingPath {
    fn new(headings: Vec<Heading>) -> Self {
        Self { coming: headings.into_iter().peekable(), open: Vec::new() }
    }

    /// Returns the headings that are open at an offset, which is not before the previous one.
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
