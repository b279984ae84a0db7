//! `turnstream ingest` on folders: documents written, skipped, deleted and failed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use serde_json::{Value, json};
use turnstream::{
    knowledge::{Acl, Document, cursor::KnowledgeCursor, store::KnowledgeStore},
    subjects,
};

use crate::support::{Stage, gateway::Reply, processes::Process};

pub const ORG: &str = "acme";

/// Runs ingest to its end; returns its summary and its success.
pub async fn ingest(stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> (Value, bool) {
    let mut process = start(stage, arguments, variables);
    let content = process.ended().await.success();
    let output = process.output();
    let summary = output.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    (summary.unwrap_or_else(|| panic!("no summary in: {output}")), content)
}

fn start(stage: &Stage, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    stage.run("ingest", &[&["ingest", "--org", ORG, "--json"], arguments].concat(), variables)
}

/// Returns `[added, updated, unchanged, deleted, failed]`.
pub fn counts(summary: &Value) -> [u64; 5] {
    ["added", "updated", "unchanged", "deleted", "failed"].map(|name| summary["counts"][name].as_u64().unwrap())
}

pub async fn heads(stage: &Stage) -> BTreeMap<String, Document> {
    KnowledgeStore::new(stage.nats.client().await).heads(ORG).await.unwrap().into_iter().collect()
}

/// Returns each document with its texts as a reader sees them, without the fields that change on every write.
pub async fn content(stage: &Stage) -> BTreeMap<String, Value> {
    let mut reading = KnowledgeCursor::new(stage.nats.client().await, subjects::KNOWLEDGE_ALL.into());
    let mut chunks: BTreeMap<(String, usize), Value> = BTreeMap::new();
    loop {
        let batch = reading.next().await.unwrap();
        for message in batch.messages {
            let (_, document, chunk) = subjects::parse_knowledge(&message.subject).unwrap();
            if let Some(chunk) = chunk {
                chunks.insert((document.to_owned(), chunk), serde_json::from_slice(&message.payload).unwrap());
            }
        }
        if batch.is_last {
            break;
        }
    }
    let shown = |(id, head): (String, Document)| {
        let token = subjects::knowledge_document(&id);
        let texts: Vec<Value> = (0..head.chunks as usize)
            .map(|n| {
                let chunk = &chunks[&(token.clone(), n)];
                assert_eq!(chunk["version"], json!(head.version), "{id} is whole");
                json!([chunk["headings"], chunk["text"], chunk["vector"]])
            })
            .collect();
        let value = json!([head.title, head.url, head.set, head.source, head.acl, head.hash, texts]);
        (id, value)
    };
    heads(stage).await.into_iter().map(shown).collect()
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Returns a PDF of one page with a line of text.
pub fn small_pdf(line: &str) -> Vec<u8> {
    let content = format!("BT /F1 24 Tf 72 700 Td ({line}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
    ];
    let mut pdf = "%PDF-1.4\n".to_owned();
    let mut table = "0000000000 65535 f \n".to_owned();
    for (number, object) in (1..).zip(&objects) {
        table.push_str(&format!("{:010} 00000 n \n", pdf.len()));
        pdf.push_str(&format!("{number} 0 obj\n{object}\nendobj\n"));
    }
    let (at, size) = (pdf.len(), objects.len() + 1);
    pdf.push_str(&format!("xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n"));
    pdf.into_bytes()
}

/// Makes a folder with a document of each form.
fn library() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "guide/returns.md", "# Returns\n\nGoods come back within 17 days.\n\n## How\n\nPack them well.\n");
    write(root, "notes.txt", "Plain notes about lamps.");
    write(root, "page.html", "<title>A page</title><nav>Menu</nav><main><h1>Head</h1><p>Body of it.</p></main>");
    write(root, "paper.pdf", small_pdf("A printed sentence"));
    let front =
        "---\ntitle: Salaries\nset: hr\nurl: https://intranet.example/pay\nacl:\n  users: [ann]\n  groups: [hr]\n---\n";
    write(root, "secret.md", format!("{front}Everybody earns alike."));
    write(root, "picture.png", [1, 2, 3]);
    write(root, ".hidden/x.md", "hidden");
    folder
}

#[tokio::test]
async fn every_format_is_read_with_title_set_and_readers() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    let (summary, content_) =
        ingest(&stage, &[path, "--source", "docs", "--set", "help", "--acl", "group:staff"], &[]).await;
    assert!(content_ && counts(&summary) == [5, 0, 0, 0, 0], "{summary}");
    let (heads, content) = (heads(&stage).await, content(&stage).await);
    let titles: Vec<_> = heads.iter().map(|(id, head)| (id.as_str(), head.title.as_str(), head.set.as_str())).collect();
    let expected = [
        ("guide/returns.md", "Returns", "help"),
        ("notes.txt", "notes.txt", "help"),
        ("page.html", "A page", "help"),
        ("paper.pdf", "paper.pdf", "help"),
        ("secret.md", "Salaries", "hr"),
    ];
    assert_eq!(titles, expected);
    let only = |users: &[&str], groups: &[&str]| Acl::Only {
        users: users.iter().map(|name| name.to_string()).collect(),
        groups: groups.iter().map(|name| name.to_string()).collect(),
    };
    assert_eq!(heads["notes.txt"].acl, only(&[], &["staff"]));
    assert_eq!(heads["secret.md"].acl, only(&["ann"], &["hr"]));
    assert_eq!(heads["secret.md"].url.as_deref(), Some("https://intranet.example/pay"));
    let all = json!(content).to_string();
    for words in ["17 days", "Plain notes", "Body of it", "A printed sentence", "earns alike"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    assert!(!all.contains("Menu") && !all.contains("hidden"));
}

#[tokio::test]
async fn only_changes_are_written_and_missing_documents_are_deleted() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    let arguments = [path, "--source", "docs"];
    assert_eq!(counts(&ingest(&stage, &arguments, &[]).await.0), [5, 0, 0, 0, 0]);
    let first = heads(&stage).await;
    assert_eq!(counts(&ingest(&stage, &arguments, &[]).await.0), [0, 0, 5, 0, 0]);
    assert_eq!(heads(&stage).await, first, "no document was written again");
    write(folder.path(), "notes.txt", "Other notes.");
    fs::remove_file(folder.path().join("page.html")).unwrap();
    let (dry, _) = ingest(&stage, &[&arguments[..], &["--dry-run"]].concat(), &[]).await;
    assert_eq!((counts(&dry), heads(&stage).await == first), ([0, 1, 3, 1, 0], true));
    assert_eq!(counts(&ingest(&stage, &[&arguments[..], &["--no-prune"]].concat(), &[]).await.0), [0, 1, 3, 0, 0]);
    assert_eq!(counts(&ingest(&stage, &arguments, &[]).await.0), [0, 0, 4, 1, 0]);
    let last = heads(&stage).await;
    assert!(!last.contains_key("page.html") && last["notes.txt"] != first["notes.txt"]);
    assert_eq!(last["paper.pdf"], first["paper.pdf"]);
    // Other readers make another document, even with the same file content.
    let private = [&arguments[..], &["--acl", "user:ann"]].concat();
    assert_eq!(counts(&ingest(&stage, &private, &[]).await.0), [0, 4, 0, 0, 0]);
}

#[tokio::test]
async fn an_empty_or_unreadable_source_deletes_nothing() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    ingest(&stage, &[path, "--source", "docs"], &[]).await;
    let empty = tempfile::tempdir().unwrap();
    let other = empty.path().to_str().unwrap();
    let (summary, _) = ingest(&stage, &[other, "--source", "docs"], &[]).await;
    assert!(counts(&summary)[3] == 0 && summary["notes"][0].as_str().unwrap().contains("--prune"), "{summary}");
    // A folder that is gone counts as a part that could not be read.
    symlink(folder.path().join("gone"), folder.path().join("guide/away")).unwrap();
    fs::remove_file(folder.path().join("notes.txt")).unwrap();
    let (summary, content) = ingest(&stage, &[path, "--source", "docs"], &[]).await;
    assert!(!content && counts(&summary) == [0, 0, 4, 0, 1], "{summary}");
    assert!(summary["failures"][0]["id"].as_str().unwrap().contains("guide/away"));
    assert_eq!(heads(&stage).await.len(), 5);
    // A circle of links is skipped, and the files behind it are listed once.
    fs::remove_file(folder.path().join("guide/away")).unwrap();
    symlink(folder.path(), folder.path().join("guide/again")).unwrap();
    let (summary, content) = ingest(&stage, &[path, "--source", "docs"], &[]).await;
    assert!(content && counts(&summary) == [0, 0, 4, 1, 0], "{summary}");
    assert!(summary["notes"][0].as_str().unwrap().contains("guide/again"), "{summary}");
    let (summary, _) = ingest(&stage, &[other, "--source", "docs", "--prune"], &[]).await;
    assert_eq!((counts(&summary), heads(&stage).await.len()), ([0, 0, 0, 4, 0], 0));
}

/// The earlier version of a document is not readable once it is emptied, or once its readers are unclear.
#[tokio::test]
async fn an_unreadable_document_loses_its_earlier_version() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for name in ["empty.md", "acl.md", "open.md", "text.txt", "large.txt", "stays.md"] {
        write(folder.path(), name, format!("# {name}\n\nfor everybody"));
    }
    assert_eq!(counts(&ingest(&stage, &[path, "--source", "docs"], &[]).await.0), [6, 0, 0, 0, 0]);
    write(folder.path(), "empty.md", " \n");
    write(folder.path(), "acl.md", "---\nacl: everybody\n---\nfor few");
    write(folder.path(), "open.md", "---\nacl: group:hr\n\nfor few");
    write(folder.path(), "text.txt", [0xfe, 0xdc, 0xba]);
    fs::File::create(folder.path().join("large.txt")).unwrap().set_len(1 << 30).unwrap();
    let dry = ingest(&stage, &[path, "--source", "docs", "--dry-run"], &[]).await.0;
    assert_eq!((counts(&dry), heads(&stage).await.len()), ([0, 0, 1, 5, 5], 6), "{dry}");
    let (summary, content) = ingest(&stage, &[path, "--source", "docs"], &[]).await;
    assert!(!content && counts(&summary) == [0, 0, 1, 5, 5], "{summary}");
    assert!(summary["failures"].to_string().matches("its earlier version was taken out").count() == 5, "{summary}");
    assert_eq!(heads(&stage).await.keys().collect::<Vec<_>>(), ["stays.md"]);
    // The document is back as soon as it can be read.
    write(folder.path(), "acl.md", "---\nacl: group:hr\n---\nfor few");
    let (summary, _) = ingest(&stage, &[path, "--source", "docs"], &[]).await;
    assert_eq!(counts(&summary), [1, 0, 1, 0, 4], "{summary}");
}

/// While the passages of a document for fewer readers can't be embedded, its earlier version is not readable either.
#[tokio::test]
async fn a_document_for_fewer_readers_removes_its_earlier_version() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for name in ["few.md", "all.md"] {
        write(folder.path(), name, "for everybody");
    }
    assert_eq!(counts(&ingest(&stage, &[path, "--source", "docs"], &[]).await.0), [2, 0, 0, 0, 0]);
    write(folder.path(), "few.md", "---\nacl: group:hr\n---\nfor few");
    write(folder.path(), "all.md", "for everybody, still");
    // No gateway listens there.
    let variables = [
        ("SMOOTH_AGENT_EMBEDDING_MODEL", "model"),
        ("SMOOAI_GATEWAY_URL", "http://127.0.0.1:9/v1"),
        ("SMOOAI_GATEWAY_KEY", "key"),
    ];
    let (summary, content) = ingest(&stage, &[path, "--source", "docs"], &variables).await;
    assert!(!content && counts(&summary) == [0, 0, 0, 1, 2], "{summary}");
    assert_eq!(heads(&stage).await.keys().collect::<Vec<_>>(), ["all.md"]);
}

#[tokio::test]
async fn one_bad_file_fails_alone_and_with_its_reason() {
    let stage = Stage::start().await;
    let folder = library();
    write(folder.path(), "a.pdf", "no pdf");
    write(folder.path(), "b.md", "---\nacl: everybody\n---\nx");
    write(folder.path(), "c.txt", [0xff, 0xfe, 0xfd]);
    write(folder.path(), "d.md", "  \n");
    symlink("nowhere", folder.path().join("e.md")).unwrap();
    let path = folder.path().to_str().unwrap();
    let (summary, content) = ingest(&stage, &[path, "--source", "docs"], &[]).await;
    assert!(!content && counts(&summary) == [5, 0, 0, 0, 5], "{summary}");
    let failures: Vec<&str> =
        summary["failures"].as_array().unwrap().iter().map(|failure| failure["id"].as_str().unwrap()).collect();
    assert_eq!(failures, ["a.pdf", "b.md", "c.txt", "d.md", "e.md"]);
    // The same file name in another source is another document, which stays the same on the next run.
    for expected in [[5, 0, 0, 0, 5], [0, 0, 5, 0, 5]] {
        let (summary, content) = ingest(&stage, &[path, "--source", "other"], &[]).await;
        assert!(!content && counts(&summary) == expected, "{summary}");
    }
    let heads = heads(&stage).await;
    let others = heads.iter().filter(|(id, head)| id.starts_with("other:") && head.source == "other");
    assert_eq!((heads.len(), others.count()), (10, 5));
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_their_problem() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    for (arguments, words) in [
        (&["/no/such/place"][..], "there is no such file or folder"),
        (&[path, "--acl", "everybody"], "--acl"),
        (&[path, "https://example.com/"], "--source"),
        (&["github:acme"], "github:OWNER/REPO"),
        (&[], "name something to ingest"),
        (&["https://example.com/", "--watch"], "--watch"),
    ] {
        let mut process = start(&stage, arguments, &[]);
        assert!(!process.ended().await.success());
        assert!(process.output().contains(words), "{arguments:?}: {}", process.output());
    }
}

#[tokio::test]
async fn an_interrupted_run_is_finished_by_the_next_one() {
    let (stage, undisturbed) = tokio::join!(Stage::start(), Stage::start());
    let folder = tempfile::tempdir().unwrap();
    for number in 0..150 {
        let sections = (0..number % 7).map(|n| format!("\n\n## Part {n}\n\n{}", "Words of it. ".repeat(60)));
        write(
            folder.path(),
            &format!("{number:03}.md"),
            format!("# Number {number}{}", sections.collect::<String>()) + "\n\nEnd.",
        );
    }
    let arguments = [folder.path().to_str().unwrap(), "--source", "docs"];
    let client = stage.nats.client().await;
    // Ingest is killed after this many written messages, at three places of the run.
    for seed in [1, 40, 333] {
        let mut written = client.subscribe("kb.>").await.unwrap();
        client.flush().await.unwrap();
        let mut process = start(&stage, &arguments, &[]);
        for _ in 0..seed {
            written.next().await.unwrap();
        }
        process.kill().await;
    }
    let interrupted = heads(&stage).await.len();
    assert!(interrupted > 0 && interrupted < 150, "{interrupted}");
    let (summary, _) = ingest(&stage, &arguments, &[]).await;
    let [added, updated, unchanged, deleted, failed] = counts(&summary);
    assert!(added > 0 && unchanged > 0 && added + unchanged == 150 && updated + deleted + failed == 0, "{summary}");
    ingest(&undisturbed, &arguments, &[]).await;
    assert_eq!(content(&stage).await, content(&undisturbed).await);
}

/// The document has more passages than one batch, so its messages mix with those of other documents.
#[tokio::test]
async fn a_large_document_is_complete_among_others() {
    let stage = Stage::start().await;
    let folder = tempfile::tempdir().unwrap();
    let sections = |count: usize| (0..count).map(|n| format!("## Part {n}\n\n{}\n\n", "Words of it. ".repeat(60)));
    write(folder.path(), "0-large.md", sections(1_200).collect::<String>());
    for number in 0..100 {
        write(folder.path(), &format!("{number}.md"), sections(5).collect::<String>());
    }
    let arguments = [folder.path().to_str().unwrap(), "--source", "docs"];
    assert_eq!(counts(&ingest(&stage, &arguments, &[]).await.0), [101, 0, 0, 0, 0]);
    assert_eq!(content(&stage).await.len(), 101);
    assert!(heads(&stage).await["0-large.md"].chunks >= 1_000);
}

#[tokio::test]
async fn a_watched_folder_is_ingested_again_when_it_changes() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    let mut process = start(&stage, &[path, "--source", "docs", "--watch"], &[]);
    process.line(|line| line.contains("\"added\":5")).await;
    write(folder.path(), "new.md", "# New\n\nJust written.");
    process.line(|line| line.contains("\"added\":1")).await;
    fs::remove_file(folder.path().join("new.md")).unwrap();
    process.line(|line| line.contains("\"deleted\":1")).await;
    process.signal(libc::SIGTERM);
    assert!(process.ended().await.success());
    assert!(!heads(&stage).await.contains_key("new.md"));
}

#[tokio::test]
async fn runs_are_recorded_with_their_counts() {
    let stage = Stage::start().await;
    let folder = library();
    let path = folder.path().to_str().unwrap();
    ingest(&stage, &[path, "--source", "my docs", "--dry-run"], &[]).await;
    ingest(&stage, &[path, "--source", "my docs"], &[]).await;
    let jetstream = async_nats::jetstream::new(stage.nats.client().await);
    let stream = jetstream.get_stream("KNOWLEDGE_RUNS").await.unwrap();
    let event = async |sequence| -> Value {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(message.subject.as_str(), "kb-run.acme.my=20docs");
        serde_json::from_slice(&message.payload).unwrap()
    };
    let (started, finished) = (event(1).await, event(2).await);
    assert_eq!((&started["type"], &finished["type"]), (&json!("run.started"), &json!("run.finished")));
    assert_eq!((&started["run"], &finished["counts"]["added"]), (&finished["run"], &json!(5)));
    assert!(stream.get_raw_message(3).await.is_err(), "a dry run leaves nothing");
}

#[tokio::test]
async fn passages_are_embedded_once_and_anew_for_another_model() {
    let stage = Stage::start().await;
    let folder = library();
    let root = folder.path().to_str().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    stage.gateway.respond_with(move |request| {
        let texts = request["input"].as_array()?;
        seen.lock().unwrap().extend(texts.iter().map(|text| (request["model"].clone(), text.clone())));
        let data = (0..texts.len()).map(|n| json!({"index": n, "embedding": [n as f32, 0.5]})).collect::<Vec<_>>();
        Some(Reply::json(&json!({"data": data})))
    });
    let url = stage.gateway.base_url();
    let gateway = [("SMOOAI_GATEWAY_URL", url.as_str()), ("SMOOAI_GATEWAY_KEY", "key")];
    let with = |model| [&gateway[..], &[("SMOOTH_AGENT_EMBEDDING_MODEL", model)]].concat();
    let (summary, content_with_it) = ingest(&stage, &[root], &with("one")).await;
    assert!(content_with_it, "{summary}");
    let passages = asked.lock().unwrap().len();
    assert!(content(&stage).await.values().all(|document| document[6][0][2].is_string()), "each passage has a vector");
    assert_eq!(counts(&ingest(&stage, &[root], &with("one")).await.0)[2], 5, "nothing is written again");
    assert_eq!(asked.lock().unwrap().len(), passages, "no passage was embedded again");
    assert_eq!(counts(&ingest(&stage, &[root], &with("two")).await.0)[1], 5, "another model's vectors are others");
    assert_eq!(asked.lock().unwrap().len(), 2 * passages);
    assert!(heads(&stage).await.values().all(|head| head.embedding_model.as_deref() == Some("two")));
}

/// Two folders of the same name, ingested without an explicit source name, are two sources.
#[tokio::test]
async fn folders_of_one_name_do_not_delete_each_others_documents() {
    let stage = Stage::start().await;
    let both = tempfile::tempdir().unwrap();
    write(both.path(), "a/docs/one.md", "# One\n\nThe first.");
    write(both.path(), "b/docs/two.md", "# Two\n\nThe second.");
    for (folder, expected) in [("a/docs", [1, 0, 0, 0, 0]), ("b/docs", [1, 0, 0, 0, 0]), ("a/docs", [0, 0, 1, 0, 0])] {
        let path = both.path().join(folder);
        assert_eq!(counts(&ingest(&stage, &[path.to_str().unwrap()], &[]).await.0), expected, "{folder}");
    }
    assert_eq!(heads(&stage).await.len(), 2);
}
