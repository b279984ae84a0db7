//! The widget that host pages embed: its files, with their digests, compressed.
//!
//! - [`WidgetFiles`]: all files of one release, found by name.   - `js/`: the modules, served as they are written.
//!
//! The loader has a stable URL; modules live under the release, a digest of all files, and never change there. Debug builds
//! read the folder at each request, so that a change of a module needs no build.

use std::{
    borrow::Cow,
    io::Write,
    sync::{Arc, LazyLock},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256, Sha384};

/// The folder of URLs of all versions of the widget that keep its contract with host pages.
pub const PATH: &str = "/widget/v1";
/// The loader, relative to [`PATH`].
pub const LOADER: &str = "widget.js";

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// The modules, in the order of their imports.
        const MODULES: &[(&str, &str)] = &[$(($name, include_str!(concat!("js/", $name)))),*];
    };
}
const LOADER_SOURCE: &str = include_str!("js/widget.js");
modules![
    "dom.js",
    "strings.js",
    "store.js",
    "connection.js",
    "markdown.js",
    "styles.js",
    "cards.js",
    "turn.js",
    "composer.js",
    "view.js",
    "conversation.js",
    "main.js",
];

macro_rules! languages {
    ($($name:literal),* $(,)?) => {
        /// Modules of which a page fetches the one of its language.
        const LANGUAGES: &[(&str, &str)] = &[$(($name, include_str!(concat!("js/", $name)))),*];
    };
}
languages!["lang-ar.js", "lang-de.js", "lang-es.js", "lang-fr.js", "lang-ja.js"];

/// A file as it is served.
#[derive(Debug)]
pub struct StaticFile {
    pub name: &'static str,
    pub text: String,
    pub gzipped: Vec<u8>,
    /// A strong validator of its content.
    pub etag: String,
}

impl StaticFile {
    pub fn new(name: &'static str, text: String) -> Self {
        let etag = format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(&text)[..12]));
        Self { name, gzipped: gzip(text.as_bytes()), etag, text }
    }
}

/// All files of one release.
#[derive(Debug)]
pub struct WidgetFiles {
    /// The digest of all files, part of the modules' URLs.
    pub release: String,
    files: Vec<StaticFile>,
}

impl WidgetFiles {
    /// Returns the files of this program; of the source folder, in debug builds.
    pub fn current() -> Arc<Self> {
        static BUILT_IN: LazyLock<Arc<WidgetFiles>> = LazyLock::new(|| Arc::new(WidgetFiles::read()));
        if cfg!(debug_assertions) { Arc::new(Self::read()) } else { BUILT_IN.clone() }
    }

    /// Returns a file by its name.
    pub fn get(&self, name: &str) -> Option<&StaticFile> {
        self.files.iter().find(|file| file.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &StaticFile> {
        self.files.iter()
    }

    /// Returns the subresource integrity of the loader.
    pub fn integrity(&self) -> String {
        let loader = self.get(LOADER).map_or("", |file| &file.text);
        format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(loader)))
    }

    fn read() -> Self {
        let loader = source(LOADER, LOADER_SOURCE);
        let modules: Vec<_> =
            MODULES.iter().chain(LANGUAGES).map(|(name, built_in)| (*name, source(name, built_in))).collect();
        let mut digest = Sha256::new();
        for text in std::iter::once(&loader).chain(modules.iter().map(|(_, text)| text)) {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        }
        let release = HEXLOWER.encode(&digest.finalize()[..8]);
        let names: Vec<_> = MODULES.iter().map(|(name, _)| format!("'{name}'")).collect();
        let loader = loader.replace("__RELEASE__", &release).replace("__MODULES__", &format!("[{}]", names.join(", ")));
        let files = std::iter::once((LOADER, Cow::Owned(loader))).chain(modules);
        Self { files: files.map(|(name, text)| StaticFile::new(name, text.into_owned())).collect(), release }
    }
}

fn source(name: &str, built_in: &'static str) -> Cow<'static, str> {
    let path = || format!("{}/src/widget/js/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = cfg!(debug_assertions).then(|| std::fs::read_to_string(path()).ok()).flatten();
    Cow::Owned(without_comments(&read.map_or(Cow::Borrowed(built_in), Cow::Owned)))
}

/// Returns a module with empty lines in place of its comments, a third of its size. Lines keep their numbers.
///
/// Only comments on lines of their own count, so that no text in quotes is taken for one.
fn without_comments(source: &str) -> String {
    let mut is_comment = false;
    let lines = source.lines().map(|line| {
        let text = line.trim();
        let is_inside = is_comment;
        if text.starts_with("/*") || is_inside {
            is_comment = !text.ends_with("*/");
            return "";
        }
        if text.starts_with("//") { "" } else { line }
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns the bytes in the format of gzip.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // A Vec takes every write.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widget_stays_small() {
        let files = WidgetFiles::current();
        let loader = files.get(LOADER).unwrap().gzipped.len();
        let size = |name: &str| files.get(name).unwrap().gzipped.len();
        let modules: usize = MODULES.iter().map(|(name, _)| size(name)).sum();
        let language = LANGUAGES.iter().map(|(name, _)| size(name)).max().unwrap();
        println!("loader {loader} bytes, modules {modules} bytes, a language {language} bytes at most, gzipped");
        let modules = modules + language;
        assert!(loader <= 3 * 1024, "{loader}");
        assert!(modules <= 25 * 1024, "{modules}");
    }

    #[test]
    fn comments_are_left_out() {
        let source = "/** A. */\nlet a = 1; // stays\n/*\n * b\n */\n  // c\nlet b = '/* d';\n";
        assert_eq!(without_comments(source), "\nlet a = 1; // stays\n\n\n\n\nlet b = '/* d';\n");
    }

    #[test]
    fn every_import_is_a_module_that_is_served() {
        let files = WidgetFiles::current();
        for file in files.iter() {
            for import in file.text.split("from './").skip(1).filter_map(|rest| rest.split('\'').next()) {
                assert!(files.get(import).is_some(), "{} imports {import}", file.name);
            }
        }
    }

    #[test]
    fn the_loader_names_its_release() {
        let files = WidgetFiles::current();
        let loader = &files.get(LOADER).unwrap().text;
        assert!(loader.contains(&files.release) && !loader.contains("__"), "placeholders are filled in");
        assert_eq!(files.integrity().len(), "sha384-".len() + 64);
    }
}
