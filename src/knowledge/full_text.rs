//! The text index: BM25 over words, in memory, filtered by the reader's permissions before ranking.

use std::sync::{Mutex, MutexGuard};

use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term,
    collector::TopDocs,
    query::{BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery},
    schema::{FAST, Field, INDEXED, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value},
    tokenizer::{PreTokenizedString, Token},
};

use super::{
    document::Acl,
    document_fold::{DocumentKey, WholeDocument},
    reader::KnowledgeReader,
    tokenizer::{Tokenizer, Word, WordKind},
};
use crate::limits;

/// The weights of a word in the title, and in a heading above the passage, against one in the passage.
const TITLE_WEIGHT: f32 = 2.0;
const HEADINGS_WEIGHT: f32 = 1.5;
/// The part of a question that is searched for, and the number of its words: the rarest.
const QUERY_MAX_CHARS: usize = 10_000;
const QUERY_WORDS: usize = 128;
/// The most terms of a filter that are looked up one by one.
const FEW_TERMS: usize = 256;
/// The ACL entry of a public document.
const EVERYBODY: &str = "*";

/// A passage: its document, and its number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextHit {
    pub key: DocumentKey,
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

pub struct FullTextIndex {
    fields: Fields,
    words: Tokenizer,
    writer: Mutex<IndexWriter>,
    reader: IndexReader,
}

impl FullTextIndex {
    pub fn new() -> Result<Self, TantivyError> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default().set_index_option(IndexRecordOption::WithFreqs);
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
        let writer = index.writer_with_num_threads(1, limits::INDEX_WRITER_BYTES)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { fields, words: Tokenizer::default(), writer: Mutex::new(writer), reader })
    }

    /// Adds a document in place of its earlier version. It can be found after the next [`Self::commit`].
    pub fn put(&self, whole: &WholeDocument) -> Result<(), TantivyError> {
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
            entry.add_pre_tokenized_text(self.fields.title, self.taken_apart(&whole.head.title));
            for heading in &chunk.headings {
                entry.add_pre_tokenized_text(self.fields.headings, self.taken_apart(heading));
            }
            entry.add_pre_tokenized_text(self.fields.text, self.taken_apart(&chunk.text));
            writer.add_document(entry)?;
        }
        Ok(())
    }

    /// Removes a document.
    pub fn remove(&self, key: &DocumentKey) {
        self.writer().delete_term(Term::from_field_text(self.fields.token, &unique(key)));
    }

    /// Makes additions and removals visible.
    pub fn commit(&self) -> Result<(), TantivyError> {
        self.writer().commit()?;
        self.reader.reload()
    }

    /// Removes all documents.
    pub fn clear(&self) -> Result<(), TantivyError> {
        self.writer().delete_all_documents()?;
        self.commit()
    }

    fn writer(&self) -> MutexGuard<'_, IndexWriter> {
        self.writer.lock().expect("no panic happens under this lock")
    }

    fn taken_apart(&self, text: &str) -> PreTokenizedString {
        let words = self.words.of(text).into_iter().enumerate();
        let tokens = words.map(|(position, word)| Token { position, text: word.text, ..Token::default() });
        // The text itself is not stored: passages are shown from the documents.
        PreTokenizedString { text: String::new(), tokens: tokens.collect() }
    }

    /// Returns the best matching passages that the reader may read, best first.
    ///
    /// The score of a passage is the share of the question that it holds, with rare words weighted more: 1 is a passage
    /// of usual length with all of its words.
    pub fn search(
        &self,
        query: &str,
        reader: &KnowledgeReader,
        limit: usize,
    ) -> Result<Vec<(TextHit, f32)>, TantivyError> {
        let query: String = query.chars().take(QUERY_MAX_CHARS).collect();
        let words = self.words.different(&query).into_iter().filter(|word| word.kind != WordKind::Letter);
        let searcher = self.reader.searcher();
        let passages = searcher.num_docs() as f32;
        let mut weighed: Vec<(Word, f32)> = Vec::new();
        for word in words {
            let holders = searcher.doc_freq(&Term::from_field_text(self.fields.text, &word.text))? as f32;
            // A pair across the boundary of two words occurs in no passage, which must not lower any score.
            if holders == 0.0 && word.kind == WordKind::Pair {
                continue;
            }
            let weight = word.kind.weight() * (1.0 + (passages - holders + 0.5).max(0.0) / (holders + 0.5)).ln();
            weighed.push((word, weight));
        }
        weighed.sort_by(|a, b| b.1.total_cmp(&a.1));
        weighed.truncate(QUERY_WORDS);
        let whole: f32 = weighed.iter().map(|(_, weight)| weight).sum();
        let words: Vec<Word> = weighed.into_iter().map(|(word, _)| word).collect();
        if words.is_empty() {
            return Ok(vec![]);
        }
        let found = searcher.search(&self.query(&words, reader), &TopDocs::with_limit(limit).order_by_score())?;
        let mut hits = Vec::with_capacity(found.len());
        for (score, address) in found {
            let entry: TantivyDocument = searcher.doc(address)?;
            let text = |field| entry.get_first(field).and_then(|value| value.as_str().map(str::to_string));
            let (Some(org), Some(token)) = (text(self.fields.org), text(self.fields.token)) else { continue };
            let chunk = entry.get_first(self.fields.chunk).and_then(|value| value.as_u64()).unwrap_or_default();
            let token = token.split(' ').next().unwrap_or_default().to_string();
            hits.push((
                TextHit { key: DocumentKey { org, token }, chunk: chunk as usize },
                score / whole.max(f32::MIN_POSITIVE),
            ));
        }
        Ok(hits)
    }

    fn query(&self, words: &[Word], reader: &KnowledgeReader) -> BooleanQuery {
        let Fields { org, set, readers, title, headings, text, .. } = self.fields;
        let mut any: Vec<(Occur, Box<dyn Query>)> = Vec::new();
        for word in words {
            for (field, weight) in [(title, TITLE_WEIGHT), (headings, HEADINGS_WEIGHT), (text, 1.0)] {
                let of_word = TermQuery::new(Term::from_field_text(field, &word.text), IndexRecordOption::WithFreqs);
                any.push((Occur::Should, Box::new(BoostQuery::new(Box::new(of_word), weight * word.kind.weight()))));
            }
        }
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

    /// Returns the distinct words of a text.
    pub fn words(&self, text: &str) -> Vec<String> {
        self.words.different(text).into_iter().map(|word| word.text).collect()
    }
}

/// Returns a clause that lets through passages with one of these texts in a field, and does not contribute to the score.
fn filter(field: Field, texts: &[String]) -> (Occur, Box<dyn Query>) {
    let terms = texts.iter().map(|text| Term::from_field_text(field, text));
    // A set is compiled to an automaton, which takes milliseconds for however few terms.
    let any: Box<dyn Query> = if texts.len() > FEW_TERMS {
        Box::new(TermSetQuery::new(terms))
    } else {
        let one = |term| (Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>);
        Box::new(BooleanQuery::new(terms.map(one).collect()))
    };
    (Occur::Must, Box::new(ConstScoreQuery::new(any, 0.0)))
}

/// Returns a document's token with its organisation: two organisations may have documents of the same id.
fn unique(key: &DocumentKey) -> String {
    format!("{} {}", key.token, key.org)
}

/// Returns the readers of a document, as ACL entries of the index.
fn readers_of(acl: &Acl) -> Vec<String> {
    match acl {
        Acl::Public => vec![EVERYBODY.to_string()],
        Acl::Only { users, groups } => {
            let users = users.iter().map(|user| format!("u:{user}"));
            users.chain(groups.iter().map(|group| format!("g:{group}"))).collect()
        }
    }
}

/// Returns the ACL entries of the index that match a reader.
fn entries_of(reader: &KnowledgeReader) -> Vec<String> {
    let user = reader.user.iter().map(|user| format!("u:{user}"));
    let groups = reader.groups.iter().map(|group| format!("g:{group}"));
    [EVERYBODY.to_string()].into_iter().chain(user).chain(groups).collect()
}
