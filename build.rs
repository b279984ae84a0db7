//! Tells the program its version: the package's, and the commit that it was built from.
//!
//! The commit is looked up again when a file of the program has changed, which compiles the program anyway. A commit that
//! changes none of them causes no build; then the earlier one, with the same files, is told.

use std::process::Command;

/// What the program is made of.
const FILES: [&str; 6] = ["build.rs", "Cargo.toml", "Cargo.lock", "src", "streams", "ops/nats"];

fn main() {
    FILES.iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=TURNSTREAM_VERSION={version} ({})", origin());
}

fn origin() -> String {
    // Where no checkout is at hand, as in the build of an image, the builder tells the commit.
    println!("cargo::rerun-if-env-changed=TURNSTREAM_COMMIT");
    if let Some(commit) = std::env::var("TURNSTREAM_COMMIT").ok().filter(|commit| !commit.is_empty()) {
        return format!("commit {commit}");
    }
    // A repository around an unpacked archive is not this one.
    let is_checkout = std::path::Path::new(".git").exists();
    let Some(commit) = is_checkout.then(|| git(&["rev-parse", "--short=12", "HEAD"])).flatten() else {
        return "built outside a git checkout".into();
    };
    let changes = git(&[&["status", "--porcelain", "--"], FILES.as_slice()].concat());
    match changes.as_deref() {
        Some("") => format!("commit {commit}"),
        _ => format!("commit {commit}, changed since"),
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
