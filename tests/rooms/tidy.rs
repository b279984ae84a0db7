//! The house rules that a compiler does not check: which room may import which, where names may stand, how large files get.
//!
//! Each check reads the source as text and names all offenders at once.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rooms, from the ground up, with the rooms that each may import. A room may stand only on rooms before it.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("ids", &[]),
    ("subjects", &["limits"]),
    ("secrets", &["limits", "subjects"]),
    ("encryption", &[]),
    ("model", &[]),
    ("demo", &[]),
    ("bench", &[]),
    ("domain", &["limits"]),
    ("signing", &["domain"]),
    ("calls", &["limits", "subjects", "signing"]),
    ("fetch", &["limits"]),
    ("config", &["fetch", "encryption"]),
    ("extract", &["limits"]),
    ("wire", &["limits", "domain"]),
    ("auth", &["limits", "config", "domain"]),
    ("log", &["limits", "subjects", "encryption", "config", "domain", "wire"]),
    ("live", &["limits", "subjects", "wire", "log"]),
    ("lists", &["limits", "subjects", "domain", "wire", "log"]),
    ("knowledge", &["limits", "subjects", "model", "domain", "calls", "log", "extract"]),
    ("otp", &["limits", "subjects", "config", "domain", "log", "calls"]),
    ("permissions", &["subjects", "log"]),
    ("agents", &["limits", "ids", "subjects", "domain", "log"]),
    ("history", &["limits", "subjects", "domain", "wire", "log", "agents"]),
    ("playback", &["limits", "domain", "wire"]),
    ("evidence", &["limits", "subjects", "domain", "signing", "wire", "log", "history"]),
    ("privacy", &["limits", "ids", "subjects", "encryption", "config", "domain", "live", "log", "lists", "history"]),
    (
        "tools",
        &[
            "limits",
            "subjects",
            "config",
            "domain",
            "signing",
            "calls",
            "fetch",
            "extract",
            "log",
            "knowledge",
            "agents",
        ],
    ),
    ("ingest", &["limits", "subjects", "secrets", "fetch", "extract", "log", "knowledge"]),
    (
        "admin",
        &[
            "agents",
            "history",
            "evidence",
            "limits",
            "ids",
            "subjects",
            "config",
            "domain",
            "auth",
            "wire",
            "lists",
            "log",
            "knowledge",
        ],
    ),
    (
        "edge",
        &[
            "limits", "ids", "subjects", "config", "extract", "fetch", "domain", "auth", "wire", "lists", "live",
            "log", "otp", "agents", "calls",
        ],
    ),
    (
        "worker",
        &[
            "limits",
            "ids",
            "subjects",
            "secrets",
            "model",
            "domain",
            "wire",
            "knowledge",
            "tools",
            "lists",
            "live",
            "log",
            "otp",
            "agents",
            "calls",
        ],
    ),
    (
        "app",
        &[
            "limits",
            "otp",
            "admin",
            "history",
            "config",
            "extract",
            "fetch",
            "otp",
            "auth",
            "secrets",
            "model",
            "knowledge",
            "tools",
            "ingest",
            "log",
            "agents",
            "edge",
            "worker",
            "calls",
            "signing",
            "subjects",
        ],
    ),
    ("dev", &["config", "demo", "signing", "app"]),
    (
        "cli",
        &[
            "limits",
            "ids",
            "config",
            "auth",
            "log",
            "permissions",
            "signing",
            "subjects",
            "wire",
            "live",
            "history",
            "playback",
            "evidence",
            "privacy",
            "domain",
            "agents",
            "model",
            "knowledge",
            "tools",
            "ingest",
            "bench",
            "app",
            "dev",
        ],
    ),
    ("main", &["extract", "cli"]),
];

/// Files that name the NATS client.
const NATS_FILES: &[&str] = &[
    "src/admin/mod.rs",
    "src/admin/publish.rs",
    "src/calls.rs",
    "src/edge/mod.rs",
    "src/edge/push.rs",
    "src/knowledge/bench/load.rs",
    "src/knowledge/bench/mod.rs",
    "src/knowledge/indexer.rs",
    "src/knowledge/cursor.rs",
    "src/knowledge/runs.rs",
    "src/knowledge/store.rs",
    "src/ingest/serve.rs",
    "src/lists/indexer.rs",
    "src/live/hub.rs",
    "src/live/relay.rs",
    "src/live/replay.rs",
    "src/log/batch.rs",
    "src/log/connection.rs",
    "src/log/counters.rs",
    "src/log/nats.rs",
    "src/log/pull.rs",
    "src/log/streams.rs",
    "src/permissions/mod.rs",
    "src/tools/demo.rs",
    "src/tools/discovery.rs",
    "src/tools/files.rs",
    "src/worker/consumer.rs",
    "src/worker/mod.rs",
    "src/worker/run.rs",
];

/// Calls of the NATS library that wait: for room in its queue, which has no time limit of its own, or for an answer.
const WAITING_CALLS: &[&str] = &[
    "client.subscribe(",
    "client.queue_subscribe(",
    "client.publish(",
    "client.publish_with_reply(",
    "client.publish_with_headers(",
    "client.publish_with_reply_and_headers(",
    "client.request(",
    "client.send_request(",
    "client.flush(",
    "client.drain(",
    "client.force_reconnect(",
    ".get_consumer_from_stream(",
    "jetstream::new(self.client.clone()).",
    "batch().max_messages(",
    "message.ack(",
    "message.ack_with(",
];
/// The wrappers that bound such calls in time.
const BOUNDS: &[&str] = &["soon(", "within(", "within_append(", "timeout("];
/// Rooms for measurements and demos, which serve no client.
const UNBOUNDED: &[&str] = &["src/knowledge/bench/", "src/tools/demo.rs"];

/// First tokens of subjects, with the continuations that are harmless.
const SUBJECT_TOKENS: &[(&str, &[&str])] = &[
    ("chat.", &["completion"]),
    ("audit.", &[]),
    ("session.", &["opened\"", "identified\""]),
    ("live.", &[]),
    ("stop.", &[]),
    ("sched.", &[]),
    ("due.", &[]),
    ("dead.", &[]),
    ("push.", &[]),
    ("tool.", &[]),
    ("file.", &[]),
    ("kb.", &[]),
    ("kb-run.", &[]),
    ("retrieve.", &[]),
    ("count.", &[]),
    ("otp.", &[]),
    ("ingest.", &["item\""]),
    ("$JS", &[]),
    ("$KV", &[]),
    ("$O", &[]),
    ("$SRV", &[]),
    ("$SYS", &[]),
    ("_INBOX", &[]),
];

const FILE_MAX_LINES: usize = 500;

/// Words that mean "not finished" or "not looked at", put together here so that this file contains none of them.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!"),
    concat!("#[ign", "ore"),
    concat!("allow(dead", "_code)"),
];

struct Source {
    /// The path from the repository's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Returns the text without comments and without the tests at its end.
    fn product(&self) -> String {
        let tests = concat!("#[cfg(te", "st)]\nmod tests {");
        let text = self.text.split(tests).next().unwrap_or_default();
        let code = |line: &str| line.split(" // ").next().unwrap_or_default().to_string();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(code);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the first part of the path below `src`.
    fn room(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Returns the number of `super::` that lead from this file to the crate's root.
    fn depth(&self) -> usize {
        let parts = self.path.strip_prefix("src/").unwrap_or(&self.path).split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    assert!(!found.is_empty());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

fn expect_none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

/// Returns the names directly below the crate's root that a text imports or uses.
fn crate_names(source: &Source) -> Vec<String> {
    let text = source.product();
    let to_root = "super::".repeat(source.depth());
    let mut names = Vec::new();
    for prefix in ["crate::", "turnstream::", to_root.as_str()] {
        for (at, _) in text.match_indices(prefix) {
            // The match is part of a longer word, or of a longer chain of `super`s.
            let before = &text[..at];
            if before.ends_with("super::") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            names.extend(first_names(&text[at + prefix.len()..]));
        }
    }
    names
}

/// Returns the first name of a path, or of each path in a braced group.
fn first_names(text: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if !text.starts_with('{') {
        return vec![name(text)];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            names.push(name(text[at + 1..].trim_start()));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn every_module_opens_with_a_doc_comment() {
    let silent = sources(&["src", "tests"]).into_iter().filter(|source| !source.text.starts_with("//! "));
    expect_none(silent.map(|source| source.path).collect(), "a module opens with `//!`");
}

#[test]
fn rooms_import_only_permitted_rooms() {
    let mut offenders = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test() && source.path != "src/lib.rs") {
        let room = source.room();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            offenders.push(format!("{}: the room `{room}` is not in the table", source.path));
            continue;
        };
        for name in crate_names(source) {
            if name != room && !allowed.contains(&name.as_str()) {
                offenders.push(format!("{} imports `{name}`", source.path));
            }
        }
    }
    expect_none(offenders, "rooms import only the rooms that the table allows");
}

#[test]
fn the_table_of_rooms_is_acyclic_and_complete() {
    let mut offenders = Vec::new();
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        for name in *allowed {
            if !ROOMS[..at].iter().any(|(earlier, _)| earlier == name) {
                offenders.push(format!("{room} imports {name}, which does not come before it"));
            }
        }
        if !sources(&["src"]).iter().any(|source| source.room() == *room) {
            offenders.push(format!("{room} does not exist"));
        }
    }
    expect_none(offenders, "a room imports only rooms below it");
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let text = "use crate::{a, b::{c, d},\n    e::f,\n};\nuse crate::g::h;\nlet x: crate::i::J;\nuse super::super::k;\n\
                use super::l;\n// crate::comment\nfn f() {} // crate::comment\n";
    let source = Source { path: "src/room/file.rs".into(), text: text.into() };
    assert_eq!(crate_names(&source), ["a", "b", "e", "g", "i", "k"]);
    let top = Source { path: "src/room/mod.rs".into(), text: "use super::other;".into() };
    assert_eq!(crate_names(&top), ["other"]);
}

#[test]
fn the_nats_client_is_named_only_in_permitted_files() {
    let named: Vec<String> = sources(&["src"])
        .iter()
        .filter(|source| !source.is_test() && source.product().contains("async_nats::"))
        .map(|source| source.path.clone())
        .collect();
    let strangers = named.iter().filter(|path| !NATS_FILES.contains(&path.as_str()));
    expect_none(strangers.cloned().collect(), "these files name `async_nats`");
    let gone = NATS_FILES.iter().filter(|path| !named.iter().any(|name| name == *path));
    expect_none(
        gone.map(|path| path.to_string()).collect(),
        "these files no longer name `async_nats`; take them off the list",
    );
}

/// Returns the calls in a text that have no bound in time.
fn unbounded_calls(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for call in WAITING_CALLS {
        for (at, _) in text.match_indices(call) {
            let begins = text[..at].rfind([';', '{', '}']).map_or(0, |at| at + 1);
            if !BOUNDS.iter().any(|bound| text[begins..at].contains(bound)) {
                found.push(text[begins..at + call.len()].split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    found
}

#[test]
fn every_nats_call_has_a_time_limit() {
    let is_serving =
        |source: &&Source| !source.is_test() && !UNBOUNDED.iter().any(|path| source.path.starts_with(path));
    let mut offenders = Vec::new();
    for source in sources(&["src"]).iter().filter(is_serving) {
        let calls = unbounded_calls(&source.product());
        offenders.extend(calls.iter().map(|call| format!("{}: {call}", source.path)));
    }
    expect_none(offenders, "every call of NATS has a time limit: wrap it in `soon` or `within`");
}

#[test]
fn calls_without_a_time_limit_are_found() {
    let bare = "let a = self.client.publish(x).await;\nif let Err(e) = message\n    .ack() {}";
    assert_eq!(unbounded_calls(&bare.replace("message\n    .ack", "message.ack")).len(), 2);
    assert!(unbounded_calls("match soon(\n  self.client.publish(x, y),\n).await {}").is_empty());
}

#[test]
fn subjects_are_built_in_one_file() {
    let mut offenders = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| !source.is_test() && source.room() != "subjects") {
        for (token, harmless) in SUBJECT_TOKENS {
            let text = source.product();
            for (at, _) in text.match_indices(&format!("\"{token}")) {
                let rest = &text[at + 1 + token.len()..];
                if !harmless.iter().any(|harmless| rest.starts_with(harmless)) {
                    let shown: String = text[at..].chars().take_while(|c| *c != '\n').take(60).collect();
                    offenders.push(format!("{}: {shown}", source.path));
                }
            }
        }
    }
    expect_none(offenders, "subject literals stand only in the room `subjects`");
}

#[test]
fn files_stay_short() {
    let long = sources(&["src", "tests"]).into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_MAX_LINES).then(|| format!("{}: {lines} lines", source.path))
    });
    expect_none(long.collect(), "a file has 500 lines at most");
}

#[test]
fn no_unfinished_code_is_left() {
    let mut offenders = Vec::new();
    for source in sources(&["src", "tests"]) {
        for (n, line) in source.text.lines().enumerate() {
            if UNFINISHED.iter().any(|word| line.contains(word)) {
                offenders.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    expect_none(offenders, "no unfinished, ignored or dead code");
}
