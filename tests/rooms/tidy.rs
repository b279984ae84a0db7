//! The house rules that a compiler does not check: which room may import which, where names may stand, how large files get.
//!
//! Each check reads the source as text and names all offenders at once.

use crate::support::source::{Source, expect_none, sources};

/// Rooms, from the ground up, with the rooms that each may import. A room may stand only on rooms before it.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("ids", &[]),
    ("metrics", &[]),
    ("subjects", &["limits"]),
    ("secrets", &["limits", "subjects"]),
    ("encryption", &[]),
    ("widget", &[]),
    ("model", &["metrics"]),
    ("host", &["model"]),
    ("demo", &[]),
    ("bench", &[]),
    ("domain", &["limits"]),
    ("signing", &["domain"]),
    ("fetch", &["limits"]),
    ("config", &["fetch", "encryption", "host"]),
    ("extract", &["limits"]),
    ("wire", &["limits", "domain"]),
    ("auth", &["limits", "config", "domain"]),
    ("nats", &["limits", "metrics", "subjects", "config", "domain"]),
    ("calls", &["limits", "subjects", "signing", "nats"]),
    ("log", &["limits", "metrics", "subjects", "encryption", "domain", "wire", "nats"]),
    ("live", &["limits", "metrics", "subjects", "wire", "nats", "log"]),
    ("lists", &["limits", "subjects", "domain", "wire", "nats", "log"]),
    ("knowledge", &["limits", "subjects", "model", "domain", "calls", "nats", "log", "extract"]),
    ("otp", &["limits", "subjects", "config", "domain", "nats", "log", "calls"]),
    ("permissions", &["subjects", "nats", "log"]),
    ("agents", &["limits", "ids", "subjects", "domain", "nats", "log"]),
    ("history", &["limits", "subjects", "domain", "wire", "nats", "log", "agents"]),
    ("playback", &["limits", "domain", "wire"]),
    ("telemetry", &["config", "domain", "wire", "log"]),
    ("evidence", &["limits", "subjects", "domain", "signing", "wire", "nats", "log", "history"]),
    (
        "privacy",
        &["limits", "ids", "subjects", "encryption", "config", "domain", "live", "nats", "log", "lists", "history"],
    ),
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
            "nats",
            "log",
            "knowledge",
            "agents",
        ],
    ),
    ("ingest", &["limits", "subjects", "secrets", "fetch", "extract", "nats", "log", "knowledge"]),
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
            "nats",
            "log",
            "knowledge",
        ],
    ),
    (
        "edge",
        &[
            "limits", "metrics", "ids", "subjects", "config", "extract", "fetch", "domain", "auth", "wire", "lists",
            "live", "nats", "log", "otp", "agents", "calls", "widget",
        ],
    ),
    (
        "worker",
        &[
            "limits",
            "metrics",
            "ids",
            "subjects",
            "secrets",
            "model",
            "host",
            "domain",
            "wire",
            "knowledge",
            "tools",
            "lists",
            "live",
            "nats",
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
            "ids",
            "metrics",
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
            "host",
            "knowledge",
            "tools",
            "ingest",
            "nats",
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
            "telemetry",
            "limits",
            "widget",
            "ids",
            "config",
            "auth",
            "nats",
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
    "src/knowledge/bench/load.rs",
    "src/nats/connection.rs",
    "src/nats/core.rs",
    "src/nats/counters.rs",
    "src/nats/direct_get.rs",
    "src/nats/jetstream.rs",
    "src/nats/streams.rs",
    "src/nats/work_queue.rs",
    "src/tools/demo.rs",
];

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
