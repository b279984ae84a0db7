//! Processes with a wrong clock.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use tempfile::TempDir;

/// Returns the environment of a process with a clock that is off by this number of seconds.
pub fn by(seconds: i64) -> [(&'static str, String); 2] {
    [("LD_PRELOAD", library().display().to_string()), ("SKEW_SECONDS", seconds.to_string())]
}

/// Compiles the library with the linker's driver, which every machine with Rust has.
fn library() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/support/skew.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", source, "-ldl", "-o"]).arg(folder.path().join("skew.so"));
        let made = compiler.output().expect("cc runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder
    });
    folder.path().join("skew.so")
}
