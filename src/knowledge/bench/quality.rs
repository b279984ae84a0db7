//! The quality benchmark: finds the documents of labelled questions, by every way of ranking.
//!
//! The built-in set is small: answers of an imaginary shop, and questions as customers ask them. A larger one, in nine
//! languages, is in `tests/data/retrieval`. Sets tell rankings apart; they say nothing about other documents.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use walkdir::WalkDir;

use crate::{
    extract::{DocumentFormat, ExtractedText, TextChunk, chunks, extract},
    knowledge::{
        Acl, DEFAULT_SET, Document, KnowledgeIndex, KnowledgeReader,
        document::{Chunk, Vector},
        document_fold::{DocumentChange, DocumentKey, WholeDocument},
        index::PassageQuery,
    },
    model::Gateway,
    subjects,
};

const ORG: &str = "bench";
const RECALL_AT: usize = 3;
const NDCG_AT: usize = 10;
/// The number of passages that are retrieved to find `NDCG_AT` different documents.
const PASSAGES: usize = 50;
/// The grade of a document that answers a question.
const ANSWERS: u32 = 2;
/// The number of texts in one request for embeddings.
const AT_ONCE: usize = 16;
/// Components of the built-in embedding.
const TRIGRAMS: usize = 512;

/// The quality of a ranking.
#[derive(Clone, Debug, Serialize)]
pub struct RankingQuality {
    pub ranking: &'static str,
    /// The scope of the figures: all questions, those of a language, or those of a kind.
    pub of: String,
    pub questions: usize,
    /// Recall at three over all questions: the share of the answering documents among the first three.
    pub recall: f64,
    /// Normalised discounted cumulative gain of the first ten documents.
    pub ndcg: f64,
}

/// Documents, and questions about them.
pub struct LabelledSet {
    documents: Vec<(String, ExtractedText, Vec<TextChunk>)>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    kind: String,
    /// The grades of documents, by id.
    relevant: BTreeMap<String, u32>,
}

impl Question {
    fn language(&self) -> &str {
        &self.language
    }

    fn kind(&self) -> &str {
        &self.kind
    }
}

impl LabelledSet {
    /// Returns the texts that the passages' embeddings are made of, as ingest makes them.
    fn texts(&self) -> Vec<String> {
        self.documents.iter().flat_map(|(_, extracted, pieces)| embedded(extracted, pieces)).collect()
    }

    fn asked(&self) -> Vec<String> {
        self.questions.iter().map(|question| question.question.clone()).collect()
    }

    /// Returns the set that is compiled into this program.
    pub fn built_in() -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct BuiltIn {
            documents: Vec<Labelled>,
            questions: Vec<Asked>,
        }
        #[derive(Deserialize)]
        struct Labelled {
            id: String,
            title: String,
            text: String,
        }
        #[derive(Deserialize)]
        struct Asked {
            question: String,
            document: String,
        }
        let BuiltIn { documents, questions } = serde_json::from_str(include_str!("support.json"))?;
        let documents = documents.into_iter().map(|Labelled { id, title, text }| {
            let piece = TextChunk { headings: vec![], text: text.clone() };
            (id, ExtractedText { title: Some(title), text, ..ExtractedText::default() }, vec![piece])
        });
        let questions = questions.into_iter().map(|Asked { question, document }| Question {
            question,
            language: String::new(),
            kind: String::new(),
            relevant: BTreeMap::from([(document, ANSWERS)]),
        });
        Ok(Self { documents: documents.collect(), questions: questions.collect() })
    }

    /// Reads a set from a folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let (root, list) = (folder.join("documents"), folder.join("questions.jsonl"));
        let mut documents = Vec::new();
        for entry in WalkDir::new(&root).sort_by_file_name() {
            let entry = entry.with_context(|| format!("{} can't be read", root.display()))?;
            let Some(form) =
                DocumentFormat::of_name(&entry.file_name().to_string_lossy()).filter(|_| entry.file_type().is_file())
            else {
                continue;
            };
            let id = entry.path().strip_prefix(&root)?.to_string_lossy().into_owned();
            let extracted = extract(form, &fs::read(entry.path())?).with_context(|| id.clone())?;
            let pieces = chunks(form, &extracted.text);
            documents.push((id, extracted, pieces));
        }
        let lines = fs::read_to_string(&list).with_context(|| format!("{} can't be read", list.display()))?;
        let questions = lines.lines().map(serde_json::from_str::<Question>).collect::<Result<Vec<_>, _>>();
        let set = Self { documents, questions: questions.with_context(|| format!("{} is odd", list.display()))? };
        let ids: HashSet<&str> = set.documents.iter().map(|(id, ..)| id.as_str()).collect();
        let unknown =
            set.questions.iter().flat_map(|asked| asked.relevant.keys()).find(|id| !ids.contains(id.as_str()));
        if let Some(id) = unknown {
            bail!("a question names the document {id}, which is not there");
        }
        Ok(set)
    }
}

/// Asks all questions with every ranking.
pub async fn measure(embedder: Option<&(Gateway, String)>, set: &LabelledSet) -> anyhow::Result<Vec<RankingQuality>> {
    let (texts, questions) = (set.texts(), set.asked());
    let (of_texts, of_questions) = (embed(embedder, &texts).await?, embed(embedder, &questions).await?);
    figures(set, of_texts, of_questions)
}

/// Returns the figures, with vectors for the texts and the questions.
fn figures(
    set: &LabelledSet,
    of_texts: Vec<Vec<f32>>,
    of_questions: Vec<Vec<f32>>,
) -> anyhow::Result<Vec<RankingQuality>> {
    let index = KnowledgeIndex::new()?;
    let mut vectors = of_texts.into_iter();
    let changes = set.documents.iter().map(|document| whole(document, &mut vectors)).collect();
    index.apply(changes)?;

    let mut figures = Vec::new();
    for (ranking, words, vectors, rerank) in [
        ("words (BM25)", true, false, false),
        ("vectors", false, true, false),
        ("both, fused", true, true, false),
        ("words, reranked by words", true, false, true),
        ("both, fused, reranked by words", true, true, true),
    ] {
        let mut scores = Vec::new();
        for (question, vector) in set.questions.iter().zip(&of_questions) {
            let text = if words { question.question.as_str() } else { "" };
            let query = PassageQuery { text, vector: vectors.then_some(vector), rerank };
            let reader = KnowledgeReader { org: ORG.into(), ..KnowledgeReader::default() };
            let mut documents: Vec<String> = Vec::new();
            for passage in index.search(&query, &reader, PASSAGES)? {
                if !documents.contains(&passage.document) {
                    documents.push(passage.document);
                }
            }
            scores.push((question, recall(question, &documents), ndcg(question, &documents)));
        }
        figures.extend(summed(ranking, &scores));
    }
    Ok(figures)
}

/// Returns the figures over all questions, and by language and kind where there are several.
fn summed(ranking: &'static str, scores: &[(&Question, f64, f64)]) -> Vec<RankingQuality> {
    let one = |of: &str, fits: &dyn Fn(&Question) -> bool| {
        let fitting: Vec<_> = scores.iter().filter(|(question, ..)| fits(question)).collect();
        let mean = |sum: f64| sum / fitting.len() as f64;
        let recall = mean(fitting.iter().map(|(_, recall, _)| recall).sum());
        let ndcg = mean(fitting.iter().map(|(.., ndcg)| ndcg).sum());
        RankingQuality { ranking, of: of.into(), questions: fitting.len(), recall, ndcg }
    };
    let mut figures = vec![one("all", &|_| true)];
    let names =
        |name: fn(&Question) -> &str| scores.iter().map(|(question, ..)| name(question)).collect::<BTreeSet<_>>();
    for name in [Question::language, Question::kind] {
        let names = names(name);
        if names.len() > 1 {
            figures.extend(names.into_iter().map(|wanted| one(wanted, &|question| name(question) == wanted)));
        }
    }
    figures
}

fn recall(question: &Question, found: &[String]) -> f64 {
    let answers: Vec<&String> =
        question.relevant.iter().filter(|(_, grade)| **grade >= ANSWERS).map(|(id, _)| id).collect();
    let among = answers.iter().filter(|id| found.iter().take(RECALL_AT).any(|found| found == **id)).count();
    among as f64 / answers.len().max(1) as f64
}

fn ndcg(question: &Question, found: &[String]) -> f64 {
    let gain = |grade: u32| f64::from(2u32.pow(grade.min(16))) - 1.0;
    let discounted = |grades: &mut dyn Iterator<Item = u32>| {
        grades.take(NDCG_AT).enumerate().map(|(rank, grade)| gain(grade) / (rank as f64 + 2.0).log2()).sum::<f64>()
    };
    let mut ideal: Vec<u32> = question.relevant.values().copied().collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let grade = |id: &String| question.relevant.get(id).copied().unwrap_or(0);
    let best = discounted(&mut ideal.into_iter());
    if best > 0.0 { discounted(&mut found.iter().map(grade)) / best } else { 0.0 }
}

/// Returns the texts that vectors are made of, as ingest makes them.
fn embedded(extracted: &ExtractedText, pieces: &[TextChunk]) -> Vec<String> {
    let text = |piece: &TextChunk| match (&extracted.title, piece.headings.as_slice()) {
        (Some(title), []) => format!("{title}\n{}", piece.text),
        (None, []) => piece.text.clone(),
        (_, headings) => format!("{}\n{}", headings.join(" > "), piece.text),
    };
    pieces.iter().map(text).collect()
}

async fn embed(embedder: Option<&(Gateway, String)>, texts: &[String]) -> anyhow::Result<Vec<Vec<f32>>> {
    let Some((gateway, model)) = embedder else { return Ok(texts.iter().map(|text| trigrams(text)).collect()) };
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(AT_ONCE) {
        vectors.extend(gateway.embed(model, batch).await?);
    }
    Ok(vectors)
}

/// Returns an embedding by the frequency of letter trigrams: it knows spelling and no meaning.
fn trigrams(text: &str) -> Vec<f32> {
    let letters: Vec<char> = format!(" {} ", text.to_lowercase()).chars().collect();
    let mut vector = vec![0.0; TRIGRAMS];
    for run in letters.windows(3) {
        let number = run.iter().fold(7usize, |hash, letter| hash.wrapping_mul(31).wrapping_add(*letter as usize));
        vector[number % TRIGRAMS] += 1.0;
    }
    vector
}

fn whole(
    document: &(String, ExtractedText, Vec<TextChunk>),
    vectors: &mut impl Iterator<Item = Vec<f32>>,
) -> DocumentChange {
    let (id, extracted, pieces) = document;
    let version = Uuid::nil();
    let key = DocumentKey { org: ORG.into(), token: subjects::knowledge_document(id) };
    let chunks: Vec<Chunk> = pieces
        .iter()
        .map(|piece| Chunk {
            version,
            headings: piece.headings.clone(),
            text: piece.text.clone(),
            vector: vectors.next().map(Vector),
        })
        .collect();
    let head = Document {
        id: id.clone(),
        title: extracted.title.clone().unwrap_or_else(|| id.clone()),
        url: None,
        set: DEFAULT_SET.into(),
        source: "bench".into(),
        acl: Acl::Public,
        hash: String::new(),
        version,
        chunks: chunks.len() as u32,
        embedding_model: None,
        updated_at: chrono::DateTime::UNIX_EPOCH,
        deleted: false,
    };
    DocumentChange::Put(Box::new(WholeDocument { key, head, chunks }))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/retrieval");

    fn of<'a>(figures: &'a [RankingQuality], ranking: &str, of: &str) -> &'a RankingQuality {
        figures.iter().find(|figures| figures.ranking == ranking && figures.of == of).unwrap()
    }

    /// The figures of the labelled set with recorded vectors. Measured once, since that takes seconds of a processor.
    static RECORDED: LazyLock<Vec<RankingQuality>> =
        LazyLock::new(|| recorded(&LabelledSet::read(Path::new(FOLDER)).unwrap()));

    /// The figures with recorded vectors of all-MiniLM-L6-v2: those of the set's texts, then of its questions.
    fn recorded(set: &LabelledSet) -> Vec<RankingQuality> {
        const COMPONENTS: usize = 384;
        let record = fs::read(Path::new(FOLDER).join("minilm.i8")).unwrap();
        let mut vectors = record.chunks_exact(COMPONENTS).map(|v| v.iter().map(|c| f32::from(*c as i8)).collect());
        let of_texts: Vec<Vec<f32>> = vectors.by_ref().take(set.texts().len()).collect();
        let of_questions: Vec<Vec<f32>> = vectors.collect();
        assert_eq!(of_questions.len(), set.questions.len(), "the record is of this set, as it is cut now");
        figures(set, of_texts, of_questions).unwrap()
    }

    /// Figures move with the index; the bounds are some way below the figures on the day that they were written.
    #[test]
    fn questions_of_every_language_find_their_documents() {
        for language in ["en", "de", "fr", "es", "zh", "ja", "ko", "th", "ar"] {
            let words = of(&RECORDED, "words (BM25)", language);
            assert!(words.questions >= 20 && words.recall > 0.5, "{words:?}");
        }
        for (kind, least) in [("words", 0.9), ("code", 0.85), ("name", 0.85)] {
            let words = of(&RECORDED, "words (BM25)", kind);
            assert!(words.recall > least, "{words:?}");
        }
    }

    #[test]
    fn fused_rankings_are_no_worse_than_the_better_one() {
        for group in ["all", "en", "de", "fr", "es"] {
            let [words, vectors, both] =
                ["words (BM25)", "vectors", "both, fused"].map(|ranking| of(&RECORDED, ranking, group));
            assert!(both.recall >= words.recall.max(vectors.recall), "{words:?} {vectors:?} {both:?}");
            assert!(both.ndcg >= words.ndcg.max(vectors.ndcg), "{words:?} {vectors:?} {both:?}");
        }
    }

    #[tokio::test]
    async fn letter_trigrams_find_misspelt_words() {
        let figures = measure(None, &LabelledSet::built_in().unwrap()).await.unwrap();
        let recall = |ranking: &str| of(&figures, ranking, "all").recall;
        assert!(recall("both, fused") >= recall("words (BM25)").max(recall("vectors")), "{figures:?}");
    }

    #[test]
    fn grades_and_ranks_both_count() {
        let relevant = BTreeMap::from([("a".into(), 2), ("b".into(), 1)]);
        let question = Question { question: String::new(), language: String::new(), kind: String::new(), relevant };
        let found = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
        assert_eq!(
            (recall(&question, &found(&["x", "y", "a"])), recall(&question, &found(&["x", "y", "z", "a"]))),
            (1.0, 0.0)
        );
        assert_eq!((ndcg(&question, &found(&["a", "b"])), ndcg(&question, &found(&[]))), (1.0, 0.0));
        let (worse, worst) = (ndcg(&question, &found(&["b", "a"])), ndcg(&question, &found(&["x", "b", "a"])));
        assert!(1.0 > worse && worse > worst && worst > 0.0);
    }
}
