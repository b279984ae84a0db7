//! The load benchmark: many generated documents through the real stream into a fresh index.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use async_nats::{Client, jetstream};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::sync::watch;

use super::KnowledgeBenchOptions;
use crate::knowledge::{
    Acl, DEFAULT_SET, KnowledgeIndex, KnowledgeReader, KnowledgeStore, NewChunk, NewDocument, cursor::KNOWLEDGE,
    index::PassageQuery, indexer,
};

const ORG: &str = "bench";
const VOCABULARY: usize = 20_000;
const PASSAGES: usize = 3;
const WORDS: usize = 120;
const WRITERS: usize = 16;
const QUERIES: usize = 300;
const FRESH: usize = 30;

/// The measured figures.
#[derive(Serialize)]
pub struct LoadFigures {
    pub documents: usize,
    pub passages: usize,
    pub dimensions: usize,
    pub write_s: f64,
    pub stream_bytes: u64,
    pub catch_up_s: f64,
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub words: LatencyQuantiles,
    pub vectors: LatencyQuantiles,
    pub both: LatencyQuantiles,
    pub fresh: LatencyQuantiles,
}

/// Quantiles, in milliseconds.
#[derive(Serialize)]
pub struct LatencyQuantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl LatencyQuantiles {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |q: f64| times.get(((times.len().saturating_sub(1)) as f64 * q).round() as usize);
        let ms = |q: f64| at(q).map_or(0.0, |time| time.as_secs_f64() * 1_000.0);
        Self { p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

impl fmt::Display for LatencyQuantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} / {:.2} ms", self.p50_ms, self.p99_ms)
    }
}

pub async fn measure(
    client: Client,
    options: &KnowledgeBenchOptions,
    progress: impl Fn(),
) -> anyhow::Result<LoadFigures> {
    let store = KnowledgeStore::new(client.clone());
    let made = Instant::now();
    let writes = (0..options.documents).map(|n| {
        let (document, chunks) = document(n, options);
        store.put(ORG, document, chunks)
    });
    stream::iter(writes)
        .buffer_unordered(WRITERS)
        .try_for_each(async |()| {
            progress();
            Ok(())
        })
        .await?;
    let write_s = made.elapsed().as_secs_f64();
    let mut info = jetstream::new(client.clone()).get_stream(KNOWLEDGE).await?;
    let stream_bytes = info.info().await?.state.bytes;

    let before_bytes = memory();
    let index = Arc::new(KnowledgeIndex::new()?);
    let (says, mut caught_up) = watch::channel(false);
    let begun = Instant::now();
    let indexer = tokio::spawn(indexer::run(client, index.clone(), says));
    caught_up.wait_for(|caught_up| *caught_up).await.context("the index does not follow")?;
    let catch_up_s = begun.elapsed().as_secs_f64();
    let (documents, passages) = index.size();
    let after_bytes = memory();

    let words = queries(&index, options, true, false)?;
    let vectors = queries(&index, options, false, true)?;
    let both = queries(&index, options, true, true)?;
    let fresh = fresh(&store, &index, options).await?;
    indexer.abort();
    let dimensions = options.dimensions;
    Ok(LoadFigures {
        documents,
        passages,
        dimensions,
        write_s,
        stream_bytes,
        catch_up_s,
        before_bytes,
        after_bytes,
        words,
        vectors,
        both,
        fresh,
    })
}

/// Generates the document with this number, always the same for one seed.
fn document(n: usize, options: &KnowledgeBenchOptions) -> (NewDocument, Vec<NewChunk>) {
    let rng = &mut StdRng::seed_from_u64(options.seed.wrapping_add(n as u64));
    let chunks = (0..PASSAGES).map(|_| NewChunk {
        headings: vec![text(rng, 3)],
        text: text(rng, WORDS),
        vector: (options.dimensions > 0).then(|| vector(rng, options.dimensions)),
    });
    let chunks = chunks.collect();
    let document = NewDocument {
        id: format!("{n}.md"),
        title: text(rng, 5),
        url: None,
        set: DEFAULT_SET.into(),
        source: "bench".into(),
        acl: Acl::Public,
        hash: n.to_string(),
        embedding_model: (options.dimensions > 0).then(|| "made up".into()),
    };
    (document, chunks)
}

/// Generates words of an artificial language with the frequencies of natural ones: few are frequent and most are rare.
fn text(rng: &mut impl Rng, words: usize) -> String {
    let word = |rng: &mut _| word(zipf(rng));
    (0..words).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

fn zipf(rng: &mut impl Rng) -> usize {
    let uniform: f64 = rng.random_range(0.0..1.0);
    ((VOCABULARY as f64).powf(uniform) as usize).min(VOCABULARY - 1)
}

fn word(mut number: usize) -> String {
    const SYLLABLES: [&str; 12] = ["ba", "do", "fi", "ge", "ko", "lu", "ma", "ne", "ri", "so", "tu", "wa"];
    let mut word = String::from("x");
    loop {
        word.push_str(SYLLABLES[number % SYLLABLES.len()]);
        number /= SYLLABLES.len();
        if number == 0 {
            return word;
        }
    }
}

fn vector(rng: &mut impl Rng, dimensions: usize) -> Vec<f32> {
    (0..dimensions).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn reader() -> KnowledgeReader {
    KnowledgeReader { org: ORG.into(), ..KnowledgeReader::default() }
}

/// Measures the durations of queries, one after the other.
fn queries(
    index: &KnowledgeIndex,
    options: &KnowledgeBenchOptions,
    words: bool,
    vectors: bool,
) -> anyhow::Result<LatencyQuantiles> {
    let (mut times, reader) = (Vec::new(), reader());
    if vectors && options.dimensions == 0 {
        return Ok(LatencyQuantiles::of(times));
    }
    let rng = &mut StdRng::seed_from_u64(options.seed ^ 0x5EED);
    for _ in 0..QUERIES {
        let text = if words { text(rng, 6) } else { String::new() };
        let vector = vectors.then(|| vector(rng, options.dimensions));
        let begun = Instant::now();
        index.search(&PassageQuery { text: &text, vector: vector.as_deref(), rerank: false }, &reader, 3)?;
        times.push(begun.elapsed());
    }
    Ok(LatencyQuantiles::of(times))
}

/// Measures the time from a document's write until a query finds it.
async fn fresh(
    store: &KnowledgeStore,
    index: &KnowledgeIndex,
    options: &KnowledgeBenchOptions,
) -> anyhow::Result<LatencyQuantiles> {
    let (mut times, reader) = (Vec::new(), reader());
    for n in 0..FRESH {
        let (document, mut chunks) = document(n, options);
        let mark = format!("yfresh{n}");
        chunks[0].text.push_str(&format!(" {mark}"));
        store.put(ORG, document, chunks).await?;
        let begun = Instant::now();
        while index.search(&PassageQuery { text: &mark, vector: None, rerank: false }, &reader, 1)?.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.push(begun.elapsed());
    }
    Ok(LatencyQuantiles::of(times))
}

/// Returns the resident memory of this process; 0 where the system does not report it.
fn memory() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}
