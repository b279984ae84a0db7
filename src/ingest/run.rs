//! A run of ingest: compares a source with the stored documents, writes the differences, deletes removed documents.
//!
//! A run may be interrupted anywhere: each document is written all or nothing, and the decisions of a run depend only
//! on the source and on the stored documents, so running it again ends in the same state.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::Arc,
};

use chrono::Utc;
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    access::WebAccess,
    args::{IngestArgs, IngestPlan, Prune, parse_acl},
    origin::{ItemReadError, load},
    report::IngestReport,
    source::{SourceItem, SourceListing},
};
use crate::{
    extract::{self, DocumentFormat, SandboxReader, sandbox::SandboxError},
    knowledge::{
        Document, KnowledgeStore, KnowledgeStoreError, NewChunk, NewDocument,
        runs::{RunEvent, RunLog},
    },
    limits,
};

/// The version of the conversion, part of every document's hash: a new number has every document read again.
const MAKING: u32 = 2;
/// The number of failures that are kept in a run's event.
const ERRORS_KEPT: usize = 20;

/// The vectors of some texts, or the reason why there are none.
pub type EmbedFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, String>> + Send + 'a>>;

/// A model that makes vectors of texts.
pub trait EmbedFn: Send + Sync {
    /// Returns the model's name; documents that another model embedded are embedded again.
    fn model(&self) -> &str;
    /// Returns one vector for each text, in their order.
    fn embed(&self, texts: Vec<String>) -> EmbedFuture<'_>;
}

/// Ingests documents into the knowledge of one NATS server.
pub struct Ingester {
    pub store: KnowledgeStore,
    pub runs: RunLog,
    pub web: WebAccess,
    pub embed: Option<Arc<dyn EmbedFn>>,
    pub reader: SandboxReader,
}

/// The outcome for one document.
enum DocumentOutcome {
    Added,
    Updated,
    Unchanged,
    Failed(String),
    /// The document can't be ingested, and its earlier version was deleted: its readers are unknown now.
    Withdrawn(String),
}

/// The reason why a document is not written.
enum DocumentError {
    /// The cause lies elsewhere, so the earlier version stays.
    Later(String),
    /// The content or the readers have changed.
    Refused(String),
}

impl Ingester {
    /// Runs once.
    pub async fn run(&self, args: &IngestArgs, plan: &IngestPlan) -> Result<IngestReport, KnowledgeStoreError> {
        self.run_as(Uuid::new_v4(), args, plan).await
    }

    /// Runs once, under an id that the caller chose.
    pub async fn run_as(
        &self,
        run: Uuid,
        args: &IngestArgs,
        plan: &IngestPlan,
    ) -> Result<IngestReport, KnowledgeStoreError> {
        let there = self.store.heads(&args.org).await?;
        if !args.dry_run {
            let started = RunEvent::Started { run, at: Utc::now() };
            self.runs.record(&args.org, &plan.source, &started).await?;
        }
        let mut report = IngestReport::new(args, plan);
        let listing = self.list(plan).await;
        let bar = progress(listing.items.len());
        let ids: Vec<String> = listing.items.iter().map(|item| id_of(item, plan, &there)).collect();
        let ones = listing.items.iter().zip(&ids).map(|(item, id)| async {
            let outcome = self.one(args, plan, item, id, there.get(id)).await;
            bar.inc(1);
            (id.clone(), outcome)
        });
        let mut outcomes = stream::iter(ones).buffer_unordered(limits::INGEST_PARALLEL);
        while let Some((id, outcome)) = outcomes.next().await {
            match outcome? {
                DocumentOutcome::Added => report.counts.added += 1,
                DocumentOutcome::Updated => report.counts.updated += 1,
                DocumentOutcome::Unchanged => report.counts.unchanged += 1,
                DocumentOutcome::Failed(why) => report.fail(id, why),
                DocumentOutcome::Withdrawn(why) => {
                    report.counts.deleted += 1;
                    report.fail(id, format!("{why}; its earlier version was taken out"));
                }
            }
        }
        drop(outcomes);
        bar.finish_and_clear();
        self.prune(args, plan, (&listing, &ids), &there, &mut report).await?;
        for (what, why) in listing.failures {
            report.fail(what, why);
        }
        report.notes.extend(listing.notes);
        report.failures.sort();
        if !args.dry_run {
            let errors = report.failures.iter().take(ERRORS_KEPT).map(|failure| failure.to_string()).collect();
            let (at, counts) = (Utc::now(), report.counts.clone());
            let finished = RunEvent::Finished { run, at, counts, cursor: listing.cursor, errors };
            self.runs.record(&args.org, &plan.source, &finished).await?;
        }
        Ok(report)
    }

    /// Lists the documents of all origins. An id that two of them have is a failure: one would hide the other.
    async fn list(&self, plan: &IngestPlan) -> SourceListing {
        let mut all = SourceListing::default();
        let mut seen = HashSet::new();
        for origin in &plan.origins {
            let listing = origin.list(&self.web).await;
            all.failures.extend(listing.failures);
            all.notes.extend(listing.notes);
            all.cursor = all.cursor.or(listing.cursor);
            for item in listing.items {
                if seen.insert(item.id.clone()) {
                    all.items.push(item);
                } else {
                    all.failures.push((item.id, "the source has another document of this name".into()));
                }
            }
        }
        all
    }

    /// Brings one document up to date. An error ends the run.
    async fn one(
        &self,
        args: &IngestArgs,
        plan: &IngestPlan,
        item: &SourceItem,
        id: &str,
        head: Option<&Document>,
    ) -> Result<DocumentOutcome, KnowledgeStoreError> {
        let is_current = |hash: &str| head.is_some_and(|head| head.hash == hash);
        let known = item.content.as_ref().map(|content| self.hash(args, plan, item, content.as_bytes()));
        if known.as_ref().is_some_and(|hash| is_current(hash)) {
            return Ok(DocumentOutcome::Unchanged);
        }
        let (form, bytes) = match load(item, &self.web).await {
            Ok(loaded) => loaded,
            Err(ItemReadError::Away(why)) => return self.keep_or_withdraw(args, plan, item, head, why).await,
            Err(ItemReadError::Refused(why)) => return self.withdraw(args, head, why).await,
        };
        let hash = known.unwrap_or_else(|| self.hash(args, plan, item, &Sha256::digest(&bytes)));
        if is_current(&hash) {
            return Ok(DocumentOutcome::Unchanged);
        }
        let (document, chunks) = match self.make(args, plan, item, (form, bytes), hash, head).await {
            Ok((document, chunks)) => (NewDocument { id: id.into(), ..document }, chunks),
            Err(DocumentError::Later(why)) => return self.keep_or_withdraw(args, plan, item, head, why).await,
            Err(DocumentError::Refused(why)) => return self.withdraw(args, head, why).await,
        };
        if !args.dry_run {
            match self.store.put(&args.org, document, chunks).await {
                Err(error @ (KnowledgeStoreError::TooLarge { .. } | KnowledgeStoreError::Refused(_))) => {
                    return self.withdraw(args, head, error.to_string()).await;
                }
                written => written?,
            }
        }
        Ok(if head.is_some() { DocumentOutcome::Updated } else { DocumentOutcome::Added })
    }

    /// Keeps the earlier version of a document that is unreachable now, unless the command names other readers for it.
    ///
    /// A Markdown file keeps its version in any case: the file may have named those readers itself.
    async fn keep_or_withdraw(
        &self,
        args: &IngestArgs,
        plan: &IngestPlan,
        item: &SourceItem,
        head: Option<&Document>,
        why: String,
    ) -> Result<DocumentOutcome, KnowledgeStoreError> {
        let names_readers = DocumentFormat::of_name(&item.id).is_none_or(|form| form == DocumentFormat::Markdown);
        match head.is_some_and(|head| head.acl != plan.acl) && !names_readers {
            true => self.withdraw(args, head, why).await,
            false => Ok(DocumentOutcome::Failed(why)),
        }
    }

    /// Deletes the earlier version of a document that can't be ingested.
    async fn withdraw(
        &self,
        args: &IngestArgs,
        head: Option<&Document>,
        why: String,
    ) -> Result<DocumentOutcome, KnowledgeStoreError> {
        let Some(head) = head else { return Ok(DocumentOutcome::Failed(why)) };
        if !args.dry_run {
            self.store.delete(&args.org, head.clone()).await?;
        }
        Ok(DocumentOutcome::Withdrawn(why))
    }

    /// Returns the hash over everything that determines the stored document.
    fn hash(&self, args: &IngestArgs, plan: &IngestPlan, item: &SourceItem, content: &[u8]) -> String {
        let model = self.embed.as_ref().map(|embed| embed.model().to_string());
        let making = serde_json::json!([MAKING, args.set, plan.acl, item.url, model]).to_string();
        let digest = Sha256::new().chain_update(making).chain_update(content).finalize();
        HEXLOWER.encode(&digest)
    }

    /// Reads a document's text and cuts it; with a model, gives each passage its vector.
    async fn make(
        &self,
        args: &IngestArgs,
        plan: &IngestPlan,
        item: &SourceItem,
        (form, bytes): (DocumentFormat, Vec<u8>),
        hash: String,
        head: Option<&Document>,
    ) -> Result<(NewDocument, Vec<NewChunk>), DocumentError> {
        let extract::sandbox::SandboxOutput { extracted, chunks: pieces } = match self.reader.read(form, bytes).await {
            Ok(read) => read,
            // The readers that a Markdown document may name are still unknown.
            Err(SandboxError::Reader(why)) if form != DocumentFormat::Markdown => {
                return Err(DocumentError::Later(why));
            }
            Err(SandboxError::Reader(why) | SandboxError::Document(why)) => return Err(DocumentError::Refused(why)),
        };
        if pieces.is_empty() {
            return Err(DocumentError::Refused(extract::ExtractError::Empty.to_string()));
        }
        let acl = match &extracted.front.acl {
            Some(entries) => {
                parse_acl(entries).map_err(|why| DocumentError::Refused(format!("its front matter's acl: {why}")))?
            }
            None => plan.acl.clone(),
        };
        let mut chunks: Vec<NewChunk> = pieces
            .into_iter()
            .map(|piece| NewChunk { headings: piece.headings, text: piece.text, vector: None })
            .collect();
        if !args.dry_run {
            // The earlier version has other readers than this one.
            let is_for_others = head.is_some_and(|head| head.acl != acl);
            let unmade = |why| if is_for_others { DocumentError::Refused(why) } else { DocumentError::Later(why) };
            self.embed_all(&mut chunks).await.map_err(unmade)?;
        }
        let document = NewDocument {
            id: item.id.clone(),
            title: extracted.title.unwrap_or_else(|| item.id.clone()),
            url: extracted.front.url.or_else(|| item.url.clone()),
            set: extracted.front.set.unwrap_or_else(|| args.set.clone()),
            source: plan.source.clone(),
            acl,
            hash,
            embedding_model: self.embed.as_ref().map(|embed| embed.model().to_string()),
        };
        Ok((document, chunks))
    }

    async fn embed_all(&self, chunks: &mut [NewChunk]) -> Result<(), String> {
        let Some(embed) = &self.embed else { return Ok(()) };
        for batch in chunks.chunks_mut(limits::EMBED_BATCH) {
            let texts = batch.iter().map(|chunk| match chunk.headings.as_slice() {
                [] => chunk.text.clone(),
                headings => format!("{}\n{}", headings.join(" > "), chunk.text),
            });
            let vectors = embed.embed(texts.collect()).await.map_err(|why| format!("its embeddings: {why}"))?;
            if vectors.len() != batch.len() {
                return Err("the gateway returned a wrong number of embeddings".into());
            }
            for (chunk, vector) in batch.iter_mut().zip(vectors) {
                chunk.vector = Some(vector);
            }
        }
        Ok(())
    }

    /// Deletes documents that the source no longer has, when the listing is complete enough for that.
    async fn prune(
        &self,
        args: &IngestArgs,
        plan: &IngestPlan,
        (listing, ids): (&SourceListing, &[String]),
        there: &HashMap<String, Document>,
        report: &mut IngestReport,
    ) -> Result<(), KnowledgeStoreError> {
        let listed: HashSet<&str> = ids.iter().map(String::as_str).collect();
        let ours = there.values().filter(|head| head.source == plan.source);
        let gone: Vec<&Document> = ours.filter(|head| !listed.contains(head.id.as_str())).collect();
        let doubt = match plan.prune {
            _ if gone.is_empty() => return Ok(()),
            Prune::Never => return Ok(()),
            _ if !listing.failures.is_empty() => "the listing is incomplete",
            Prune::Usual if listed.is_empty() => {
                "the source has no documents at all; --prune deletes them nevertheless"
            }
            Prune::Usual | Prune::Asked => "",
        };
        if !doubt.is_empty() {
            report.notes.push(format!("{} documents were not found and not deleted: {doubt}", gone.len()));
            return Ok(());
        }
        for document in gone {
            if !args.dry_run {
                self.store.delete(&args.org, document.clone()).await?;
            }
            report.counts.deleted += 1;
        }
        Ok(())
    }
}

/// Returns the id of a source's item: its path or URL, prefixed by the source where another source has a document of
/// that name.
///
/// A stored document keeps its id.
fn id_of(item: &SourceItem, plan: &IngestPlan, there: &HashMap<String, Document>) -> String {
    let is_ours = |id: &str| there.get(id).is_some_and(|head| head.source == plan.source);
    let with_source = format!("{}:{}", plan.source, item.id);
    match there.contains_key(&item.id) && !is_ours(&item.id) || is_ours(&with_source) {
        true => with_source,
        false => item.id.clone(),
    }
}

/// Returns a progress bar, which shows on a terminal only.
fn progress(items: usize) -> ProgressBar {
    let bar = ProgressBar::new(items as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar
}
