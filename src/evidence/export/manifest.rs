//! The manifest of an export: its parts and their digests, and the sequence from which it continues.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    ExportFormat,
    part::{self, ExportPart, FileFact},
};

pub const MANIFEST: &str = "manifest.json";
const VERSION: u32 = 1;

/// The selection of events that an export holds.
///
/// Whole checkpoints can't be checked against a part of a region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExportFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The manifest of an export.
///
/// The manifest holds no time of its making: the same events make the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    pub format: ExportFormat,
    pub region: String,
    pub filter: ExportFilter,
    pub zstd: bool,
    /// Payloads were decrypted.
    pub opened: bool,
    /// Every event up to this sequence that passes the filter is in a part.
    pub scanned: u64,
    pub parts: Vec<ExportPart>,
    /// Files of a bundle besides its parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileFact>,
}

impl Manifest {
    pub fn new(format: ExportFormat, region: &str, filter: ExportFilter, zstd: bool, opened: bool) -> Self {
        let region = region.to_string();
        Self {
            version: VERSION,
            format,
            region,
            filter,
            zstd,
            opened,
            scanned: 0,
            parts: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Reads the manifest of a folder, if there is one.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(folder.join(MANIFEST)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let manifest: Self = serde_json::from_slice(&text)?;
        let names =
            manifest.parts.iter().map(|part| &part.file.file).chain(manifest.files.iter().map(|file| &file.file));
        for name in names {
            // A listed name must not lead out of the folder.
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(io::Error::other(format!("`{name}` is not a file of the folder")));
            }
        }
        if manifest.version != VERSION {
            return Err(io::Error::other(format!("version {} is unknown to this program", manifest.version)));
        }
        Ok(Some(manifest))
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        part::write(&folder.join(MANIFEST), &text).map(drop)
    }

    /// Returns true if both describe the same export, at any progress.
    pub fn is_of(&self, other: &Self) -> bool {
        let same = |m: &Self| (m.format, m.region.clone(), m.filter.clone(), m.zstd, m.opened);
        same(self) == same(other)
    }

    /// Returns true if the export holds all conversations of a region.
    pub fn is_whole(&self) -> bool {
        self.filter == ExportFilter::default()
    }

    /// Returns the path of the next part.
    pub fn next_part(&self, folder: &Path) -> PathBuf {
        folder.join(format!("events-{:06}.{}", self.parts.len() + 1, self.format.extension(self.zstd)))
    }
}
