//! The source files, for tests that read them as text.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file.
pub struct Source {
    /// The path from the repository's root, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// Returns the text without comments and without the tests at its end.
    pub fn product(&self) -> String {
        let tests = concat!("#[cfg(te", "st)]\nmod tests {");
        let text = self.text.split(tests).next().unwrap_or_default();
        let code = |line: &str| line.split(" // ").next().unwrap_or_default().to_string();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(code);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the first part of the path below `src`.
    pub fn room(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Returns the number of `super::` that lead from this file to the crate's root.
    pub fn depth(&self) -> usize {
        let parts = self.path.strip_prefix("src/").unwrap_or(&self.path).split('/').count();
        if self.path.ends_with("/mod.rs") { parts - 1 } else { parts }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the sources of some folders, sorted by path.
pub fn sources(folders: &[&str]) -> Vec<Source> {
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

/// Fails with all offenders at once.
pub fn expect_none(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}
