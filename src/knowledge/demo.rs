//! The two documents of `SMOOTH_AGENT_SEED_KB`.

use super::{
    document::{Acl, NewChunk, NewDocument},
    store::{KnowledgeStore, KnowledgeStoreError},
};

/// The ingest source of the demo documents.
const SOURCE: &str = "demo";

/// Writes the demo documents of an organisation, unless they are there.
pub async fn seed(store: &KnowledgeStore, org: &str) -> Result<(), KnowledgeStoreError> {
    let there = store.heads(org).await?;
    let documents = [
        ("returns.md", "Returns policy", include_str!("demo/returns.md")),
        ("shipping.md", "Shipping", include_str!("demo/shipping.md")),
    ];
    for (id, title, text) in documents {
        let hash = crate::subjects::knowledge_document(text);
        if there.get(id).is_some_and(|document| document.hash == hash) {
            continue;
        }
        let paragraphs = text.split("\n\n").map(str::trim).filter(|p| !p.is_empty() && !p.starts_with('#'));
        let chunks = paragraphs.map(|paragraph| NewChunk {
            headings: vec![],
            text: paragraph.split_whitespace().collect::<Vec<_>>().join(" "),
            vector: None,
        });
        let document = NewDocument {
            id: id.into(),
            title: title.into(),
            url: None,
            set: super::DEFAULT_SET.into(),
            source: SOURCE.into(),
            acl: Acl::Public,
            hash,
            embedding_model: None,
        };
        store.put(org, document, chunks.collect()).await?;
    }
    Ok(())
}
