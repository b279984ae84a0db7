//! How an index takes what it is given: writing, building, asking.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use async_nats::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use super::{
    KnowledgeArgs,
    corpus::{self, Random},
};
use crate::{
    knowledge::{Acl, Index, NewChunk, NewDocument, Reader, Store, follow, index::Query, store::KNOWLEDGE},
    subjects,
};

const ORG: &str = "bench";
/// Documents that are written at one time; each is an atomic batch, of which a stream takes fifty.
const WRITING_AT_ONCE: usize = 16;
const WORDS_OF_QUERY: usize = 5;
const PASSAGES: usize = 3;
/// Documents that are written one by one to see when they are found.
const UPDATES: u32 = 20;
const UPDATE_WAIT: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// What was found out. Names carry their unit last.
#[derive(Debug, Serialize)]
pub struct Figures {
    documents: u32,
    dimensions: u32,
    write_s: f64,
    documents_per_s: f64,
    write: Times,
    stream_mib: f64,
    stream_messages: u64,
    catch_up_s: f64,
    passages: usize,
    rss_before_mib: f64,
    rss_after_mib: f64,
    queries: Vec<(&'static str, Times)>,
    update_found: Times,
}

/// A summary of times.
#[derive(Debug, Serialize)]
struct Times {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Times {
    fn of(times: &[Duration]) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u64>::new(3)?;
        times.iter().try_for_each(|time| histogram.record(time.as_micros() as u64))?;
        let ms = |micros: u64| micros as f64 / 1e3;
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile));
        Ok(Self { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: ms(histogram.max()) })
    }
}

/// Runs the measurement.
pub async fn run(args: &KnowledgeArgs, client: Client) -> anyhow::Result<Figures> {
    if stream_state(&client).await?.0 > 0 {
        bail!("the stream {KNOWLEDGE} holds documents: this measurement wants a server of its own");
    }
    let store = Store::new(client.clone());
    let begun = Instant::now();
    let write = write_all(args, &store).await?;
    let write_s = begun.elapsed().as_secs_f64();
    let (stream_messages, bytes) = stream_state(&client).await?;

    let rss_before_mib = rss_mib()?;
    let (index, catch_up) = build(client).await?;
    let rss_after_mib = rss_mib()?;
    let (documents, passages) = index.size();
    if documents != args.documents as usize {
        bail!("{documents} documents of {} are in the index", args.documents);
    }
    let queries = ask(args, &index)?;
    let update_found = update(&store, &index).await?;
    Ok(Figures {
        documents: args.documents,
        dimensions: args.dimensions,
        write_s,
        documents_per_s: f64::from(args.documents) / write_s,
        write: Times::of(&write)?,
        stream_mib: bytes as f64 / 1_048_576.0,
        stream_messages,
        catch_up_s: catch_up.as_secs_f64(),
        passages,
        rss_before_mib,
        rss_after_mib,
        queries,
        update_found,
    })
}

async fn write_all(args: &KnowledgeArgs, store: &Store) -> anyhow::Result<Vec<Duration>> {
    let numbers = stream::iter(0..u64::from(args.documents));
    let writing = numbers.map(|n| async move {
        let (document, chunks) = corpus::document(args.seed, n, args.dimensions as usize);
        let begun = Instant::now();
        store.put(ORG, document, chunks).await.map(|()| begun.elapsed())
    });
    Ok(writing.buffer_unordered(WRITING_AT_ONCE).try_collect().await?)
}

/// A fresh index, as a worker builds it at its start. It is followed until the process ends.
async fn build(client: Client) -> anyhow::Result<(Arc<Index>, Duration)> {
    let index = Arc::new(Index::new()?);
    let (caught_up, mut has_caught_up) = watch::channel(false);
    let begun = Instant::now();
    tokio::spawn(follow::run(client, index.clone(), caught_up));
    has_caught_up.wait_for(|caught_up| *caught_up).await.context("the index does not follow its stream")?;
    Ok((index, begun.elapsed()))
}

fn ask(args: &KnowledgeArgs, index: &Index) -> anyhow::Result<Vec<(&'static str, Times)>> {
    let reader = Reader { org: ORG.into(), groups: vec!["group1".into()], ..Reader::default() };
    let mut ways = vec![("words", true, false)];
    if args.dimensions > 0 {
        ways.extend([("vectors", false, true), ("both", true, true)]);
    }
    let mut asked = Vec::new();
    for (name, by_words, by_vector) in ways {
        let mut random = Random(args.seed ^ 0x5eed);
        let mut times = Vec::new();
        for _ in 0..args.queries {
            let (text, vector) = (random.words(WORDS_OF_QUERY), random.vector(args.dimensions as usize));
            let query = Query {
                text: if by_words { &text } else { "" },
                vector: by_vector.then_some(&vector[..]),
                rerank: false,
            };
            let begun = Instant::now();
            let found = index.search(&query, &reader, PASSAGES)?;
            times.push(begun.elapsed());
            if found.is_empty() {
                bail!("nothing was found for `{text}` by {name}");
            }
        }
        asked.push((name, Times::of(&times)?));
    }
    Ok(asked)
}

/// How long after its writing has begun a document is found.
async fn update(store: &Store, index: &Index) -> anyhow::Result<Times> {
    let reader = Reader { org: ORG.into(), ..Reader::default() };
    let mut times = Vec::new();
    for n in 0..UPDATES {
        let word = format!("xylophone{n}q");
        let document = NewDocument {
            id: word.clone(),
            title: word.clone(),
            url: None,
            set: "default".into(),
            source: "bench".into(),
            acl: Acl::Public,
            hash: word.clone(),
            embedding_model: None,
        };
        let chunk = NewChunk { headings: vec![], text: word.clone(), vector: None };
        let query = Query { text: &word, vector: None, rerank: false };
        let begun = Instant::now();
        store.put(ORG, document, vec![chunk]).await?;
        while index.search(&query, &reader, 1)?.is_empty() {
            if begun.elapsed() > UPDATE_WAIT {
                bail!("a document was not found after {} s", UPDATE_WAIT.as_secs());
            }
            sleep(LOOK_PAUSE).await;
        }
        times.push(begun.elapsed());
    }
    Times::of(&times)
}

/// Messages and bytes of the stream.
async fn stream_state(client: &Client) -> anyhow::Result<(u64, u64)> {
    let reply = client.request(subjects::stream_api("INFO", KNOWLEDGE), "".into()).await?;
    let info: Value = serde_json::from_slice(&reply.payload)?;
    let number = |name: &str| info["state"][name].as_u64();
    let state = number("messages").zip(number("bytes"));
    state.with_context(|| format!("there is no stream {KNOWLEDGE}: run `turnstream streams apply`"))
}

/// Memory of this process, which holds the index.
fn rss_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is read from /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no memory in /proc")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

pub fn table(f: &Figures) -> String {
    let mut table = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{name:<28} {value}");
    };
    let times = |t: &Times| format!("p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", t.p50_ms, t.p99_ms, t.max_ms);
    row("documents", format!("{} of {} passages in all, vectors of {}", f.documents, f.passages, f.dimensions));
    row("written in", format!("{:.1} s, {:.0} documents a second", f.write_s, f.documents_per_s));
    row("one document", times(&f.write));
    row("stream", format!("{:.1} MiB, {} messages", f.stream_mib, f.stream_messages));
    row("a fresh index", format!("{:.1} s", f.catch_up_s));
    row("memory before / after", format!("{:.0} / {:.0} MiB", f.rss_before_mib, f.rss_after_mib));
    for (name, asked) in &f.queries {
        row(&format!("a query by {name}"), times(asked));
    }
    row("written until found", times(&f.update_found));
    table
}
