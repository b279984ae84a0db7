//! The text index: BM25 over stemmed words, in memory, filtered by who may read before anything is ranked.

use std::sync::{Mutex, MutexGuard};

use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term,
    collector::TopDocs,
    query::{BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value},
    tokenizer::{
        AsciiFoldingFilter, Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter,
        TextAnalyzer,
    },
};

use super::{
    document::Acl,
    reader::Reader,
    shelf::{Key, Whole},
};
use crate::limits;

const ANALYZER: &str = "words";
/// A longer word is no word.
const WORD_MAX_BYTES: usize = 64;
/// What a word in the title, or in a heading above the passage, counts against one in the passage.
const TITLE_WEIGHT: f32 = 2.0;
const HEADINGS_WEIGHT: f32 = 1.5;
/// Entry of a public document among the readers.
const EVERYBODY: &str = "*";

/// A passage: its document, and its number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hit {
    pub key: Key,
    pub chunk: usize,
}

#[derive(Clone, Copy)]
struct Fields {
    org: Field,
    token: Field,
    chunk: Field,
    set: Field,
    readers: Field,
    title: Field,
    headings: Field,
    text: Field,
}

/// The index.
pub struct TextIndex {
    fields: Fields,
    analyzer: TextAnalyzer,
    writer: Mutex<IndexWriter>,
    reader: IndexReader,
}

impl TextIndex {
    pub fn new() -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
        let words = TextOptions::default().set_indexing_options(indexing);
        let fields = Fields {
            org: schema.add_text_field("org", STRING | STORED),
            token: schema.add_text_field("token", STRING | STORED),
            chunk: schema.add_u64_field("chunk", INDEXED | FAST | STORED),
            set: schema.add_text_field("set", STRING),
            readers: schema.add_text_field("readers", STRING),
            title: schema.add_text_field("title", words.clone()),
            headings: schema.add_text_field("headings", words.clone()),
            text: schema.add_text_field("text", words),
        };
        let index = Index::create_in_ram(schema.build());
        let analyzer = analyzer();
        index.tokenizers().register(ANALYZER, analyzer.clone());
        let writer = index.writer_with_num_threads(1, limits::INDEX_WRITER_BYTES)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { fields, analyzer, writer: Mutex::new(writer), reader })
    }

    /// Takes a document in, in place of its earlier version. It can be found after the next [`Self::commit`].
    pub fn put(&self, whole: &Whole) -> Result<(), TantivyError> {
        self.remove(&whole.key);
        let writer = self.writer();
        for (n, chunk) in whole.chunks.iter().enumerate() {
            let mut entry = TantivyDocument::default();
            entry.add_text(self.fields.org, &whole.key.org);
            entry.add_text(self.fields.token, unique(&whole.key));
            entry.add_u64(self.fields.chunk, n as u64);
            entry.add_text(self.fields.set, &whole.head.set);
            for reader in readers_of(&whole.head.acl) {
                entry.add_text(self.fields.readers, reader);
            }
            entry.add_text(self.fields.title, &whole.head.title);
            for heading in &chunk.headings {
                entry.add_text(self.fields.headings, heading);
            }
            entry.add_text(self.fields.text, &chunk.text);
            writer.add_document(entry)?;
        }
        Ok(())
    }

    /// Takes a document out.
    pub fn remove(&self, key: &Key) {
        self.writer().delete_term(Term::from_field_text(self.fields.token, &unique(key)));
    }

    /// Makes what was put and removed visible.
    pub fn commit(&self) -> Result<(), TantivyError> {
        self.writer().commit()?;
        self.reader.reload()
    }

    /// Takes everything out.
    pub fn clear(&self) -> Result<(), TantivyError> {
        self.writer().delete_all_documents()?;
        self.commit()
    }

    fn writer(&self) -> MutexGuard<'_, IndexWriter> {
        self.writer.lock().expect("no panic happens under this lock")
    }

    /// The passages that fit best of those that the reader may read, best first.
    pub fn search(&self, query: &str, reader: &Reader, limit: usize) -> Result<Vec<Hit>, TantivyError> {
        let words = self.words(query);
        if words.is_empty() {
            return Ok(vec![]);
        }
        let searcher = self.reader.searcher();
        let found = searcher.search(&self.query(&words, reader), &TopDocs::with_limit(limit).order_by_score())?;
        let mut hits = Vec::with_capacity(found.len());
        for (_, address) in found {
            let entry: TantivyDocument = searcher.doc(address)?;
            let text = |field| entry.get_first(field).and_then(|value| value.as_str().map(str::to_string));
            let (Some(org), Some(token)) = (text(self.fields.org), text(self.fields.token)) else { continue };
            let chunk = entry.get_first(self.fields.chunk).and_then(|value| value.as_u64()).unwrap_or_default();
            let token = token.split(' ').next().unwrap_or_default().to_string();
            hits.push(Hit { key: Key { org, token }, chunk: chunk as usize });
        }
        Ok(hits)
    }

    fn query(&self, words: &[String], reader: &Reader) -> BooleanQuery {
        let Fields { org, set, readers, title, headings, text, .. } = self.fields;
        let mut any: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for word in words {
            for (field, weight) in [(title, TITLE_WEIGHT), (headings, HEADINGS_WEIGHT), (text, 1.0)] {
                let of_word = TermQuery::new(Term::from_field_text(field, word), IndexRecordOption::WithFreqs);
                any.push((Occur::Should, Box::new(BoostQuery::new(Box::new(of_word), weight))));
            }
        }
        // What filters does not count.
        let filter = |field: Field, texts: &[String]| -> (Occur, Box<dyn Query>) {
            let terms = TermSetQuery::new(texts.iter().map(|text| Term::from_field_text(field, text)));
            (Occur::Must, Box::new(ConstScoreQuery::new(Box::new(terms), 0.0)))
        };
        let mut all = vec![
            (Occur::Must, Box::new(BooleanQuery::new(any)) as Box<dyn Query>),
            filter(org, std::slice::from_ref(&reader.org)),
            filter(readers, &entries_of(reader)),
        ];
        if let Some(sets) = &reader.sets {
            all.push(filter(set, sets));
        }
        BooleanQuery::new(all)
    }

    /// The stems of a text's words that carry meaning, each once.
    pub fn words(&self, text: &str) -> Vec<String> {
        let mut analyzer = self.analyzer.clone();
        let mut stream = analyzer.token_stream(text);
        let mut words: Vec<String> = Vec::new();
        stream.process(&mut |token| {
            if !words.contains(&token.text) {
                words.push(token.text.clone());
            }
        });
        words
    }
}

fn analyzer() -> TextAnalyzer {
    let words = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(WORD_MAX_BYTES))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter);
    match StopWordFilter::new(Language::English) {
        Some(common) => words.filter(common).filter(Stemmer::new(Language::English)).build(),
        None => words.filter(Stemmer::new(Language::English)).build(),
    }
}

/// A document's token with its organisation: two organisations may have documents of the same id.
fn unique(key: &Key) -> String {
    format!("{} {}", key.token, key.org)
}

/// Who may read a document, as entries of the index.
fn readers_of(acl: &Acl) -> Vec<String> {
    match acl {
        Acl::Public => vec![EVERYBODY.to_string()],
        Acl::Only { users, groups } => {
            let users = users.iter().map(|user| format!("u:{user}"));
            users.chain(groups.iter().map(|group| format!("g:{group}"))).collect()
        }
    }
}

/// What a reader may read, as entries of the index.
fn entries_of(reader: &Reader) -> Vec<String> {
    let user = reader.user.iter().map(|user| format!("u:{user}"));
    let groups = reader.groups.iter().map(|group| format!("g:{group}"));
    [EVERYBODY.to_string()].into_iter().chain(user).chain(groups).collect()
}
