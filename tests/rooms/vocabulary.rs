//! The house language: type names, and the words of comments. Each figure is printed; the limits only shrink.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Names of public types that several modules use. Entries come off this list when they are unique; none is added.
const NOT_UNIQUE: &[&str] = &[];

/// Participles that name a state, not a thing: no public type is called one of them alone.
const PARTICIPLES: &[&str] = &[
    "Admitted",
    "Answered",
    "Appended",
    "Asked",
    "Attached",
    "Cached",
    "Challenged",
    "Checked",
    "Closed",
    "Confirmed",
    "Counted",
    "Declared",
    "Declined",
    "Delivered",
    "Entered",
    "Erased",
    "Executed",
    "Extracted",
    "Fetched",
    "Followed",
    "Found",
    "Given",
    "Heard",
    "Held",
    "Judged",
    "Kept",
    "Known",
    "Looped",
    "Measured",
    "Noted",
    "Opened",
    "Proved",
    "Published",
    "Pushed",
    "Read",
    "Recorded",
    "Refused",
    "Renamed",
    "Rendered",
    "Replied",
    "Requested",
    "Resumed",
    "Said",
    "Sealed",
    "Seen",
    "Sent",
    "Shown",
    "Stored",
    "Streamed",
    "Submitted",
    "Swept",
    "Told",
    "Wanted",
    "Watched",
    "Wrapped",
    "Written",
];

/// Most comment lines in a hundred that hold one of [`VAGUE`].
const VAGUE_MAX_PERCENT: f64 = 3.0;
const VAGUE: &[&str] = &["what", "whoever", "whose", "somebody", "nobody"];

/// Most doc comments in a hundred that open with one of [`OPENERS`].
const OPENERS_MAX_PERCENT: f64 = 3.0;
const OPENERS: &[&str] =
    &["what", "who", "whose", "whoever", "how", "when", "where", "which", "why", "whether", "somebody", "nobody"];

/// Rust files below some folders: path from the repository's root, and text.
fn rust_files(folders: &[&str]) -> BTreeMap<String, String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = BTreeMap::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(relative(&path, &root), fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!files.is_empty());
    files
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")
}

/// Names of the types that a text makes public, in whatever degree.
fn public_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub")?;
        let rest = rest.strip_prefix('(').map_or(rest, |scoped| scoped.split_once(')').map_or("", |(_, rest)| rest));
        let (keyword, rest) = rest.trim_start().split_once(' ')?;
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        ["struct", "enum", "trait", "type", "union"].contains(&keyword).then_some(name)
    })
}

#[test]
fn public_type_names_are_unique() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in &rust_files(&["src"]) {
        for name in public_types(text) {
            places.entry(name.to_string()).or_default().insert(path.clone());
        }
    }
    places.retain(|_, paths| paths.len() > 1);
    println!("{} names of public types are not unique", places.len());
    let new: Vec<_> = places.iter().filter(|(name, _)| !NOT_UNIQUE.contains(&name.as_str())).collect();
    assert!(new.is_empty(), "these names are taken; say of what they are: {new:#?}");
    let gone: Vec<_> = NOT_UNIQUE.iter().filter(|name| !places.contains_key(**name)).collect();
    assert!(gone.is_empty(), "these names are unique now; take them off the list: {gone:?}");
}

#[test]
fn no_public_type_is_named_by_a_participle_alone() {
    let mut offenders = Vec::new();
    for (path, text) in &rust_files(&["src"]) {
        let named = public_types(text).filter(|name| PARTICIPLES.contains(name));
        offenders.extend(named.map(|name| format!("{path}: {name}")));
    }
    assert!(offenders.is_empty(), "a type's name is a noun:\n  {}", offenders.join("\n  "));
}

/// Lines of comments and doc comments, and those of each that the rules count.
#[derive(Debug, Default, PartialEq)]
struct Wording {
    lines: usize,
    vague: usize,
    docs: usize,
    openers: usize,
}

impl Wording {
    fn add(&mut self, text: &str) {
        let mut in_doc = false;
        for line in text.lines() {
            let Some(comment) = line.trim().strip_prefix("//") else {
                in_doc = false;
                continue;
            };
            let is_doc = comment.starts_with(['/', '!']);
            let words: Vec<String> = comment
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .map(str::to_ascii_lowercase)
                .collect();
            self.lines += 1;
            self.vague += usize::from(words.iter().any(|word| VAGUE.contains(&word.as_str())));
            if is_doc && !in_doc {
                self.docs += 1;
                self.openers += usize::from(words.first().is_some_and(|word| OPENERS.contains(&word.as_str())));
            }
            in_doc = is_doc;
        }
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

#[test]
fn comments_name_their_nouns() {
    let mut wording = Wording::default();
    rust_files(&["src", "tests"]).values().for_each(|text| wording.add(text));
    let (vague, openers) = (percent(wording.vague, wording.lines), percent(wording.openers, wording.docs));
    println!("{vague:.1} % of {} comment lines hold one of {VAGUE:?}", wording.lines);
    println!("{openers:.1} % of {} doc comments open with one of {OPENERS:?}", wording.docs);
    assert!(vague <= VAGUE_MAX_PERCENT, "{vague:.1} % of comment lines hold one of {VAGUE:?}");
    assert!(openers <= OPENERS_MAX_PERCENT, "{openers:.1} % of doc comments open with one of {OPENERS:?}");
}

#[test]
fn wording_is_counted_by_line_and_by_doc_comment() {
    let mut wording = Wording::default();
    wording.add(
        "//! Whose keys.\n//! What is there.\n\nfn f() {} // what\n    // Nobody's.\n/// A key.\n/// Why.\nstruct S;\n",
    );
    assert_eq!(wording, Wording { lines: 5, vague: 3, docs: 2, openers: 1 });
    let types: Vec<_> =
        public_types("pub(in crate::a) struct A<'a>;\npub enum B {\n    pub type C: D;\nstruct E;\npub fn f").collect();
    assert_eq!(types, ["A", "B", "C"]);
}
