//! One file of an export: written under a temporary name, hashed while written, renamed when complete.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    ExportFormat,
    lines::{self, ExportedEvent},
    table::ParquetTable,
};
use crate::domain::Digest;

/// Zstd level: higher levels hardly shrink the files and keep taking longer.
const ZSTD_LEVEL: i32 = 3;

/// A complete file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileFact {
    pub file: String,
    pub bytes: u64,
    pub sha256: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportPart {
    #[serde(flatten)]
    pub file: FileFact,
    pub first: u64,
    pub last: u64,
    pub events: u64,
}

/// A file written under a temporary name, renamed when complete.
pub struct DraftFile {
    file: BufWriter<File>,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
}

impl DraftFile {
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create(unfinished(path))?);
        Ok(Self { file, path: path.into(), hash: Sha256::new(), bytes: 0 })
    }

    /// Syncs the file to disk and renames it.
    pub fn finish(self) -> io::Result<FileFact> {
        let Self { file, path, hash, bytes } = self;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(unfinished(&path), &path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(FileFact { file: name, bytes, sha256: Digest(hash.finalize().into()) })
    }
}

impl Write for DraftFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a small file in one go.
pub fn write(path: &Path, content: &[u8]) -> io::Result<FileFact> {
    let mut draft = DraftFile::new(path)?;
    draft.write_all(content)?;
    draft.finish()
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Text, compressed or not.
enum Text {
    Plain(DraftFile),
    Zstd(zstd::Encoder<'static, DraftFile>),
}

impl Text {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(draft) => draft.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}

enum Content {
    Lines(Box<Text>),
    Table(Box<ParquetTable<DraftFile>>),
}

/// A part that is being written.
pub struct PartWriter {
    form: ExportFormat,
    content: Content,
    line: Vec<u8>,
    first: u64,
    last: u64,
    pub events: u64,
    /// Before compression.
    pub bytes: u64,
}

impl PartWriter {
    pub fn new(path: &Path, form: ExportFormat, zstd: bool) -> io::Result<Self> {
        let draft = DraftFile::new(path)?;
        let content = match form {
            ExportFormat::Parquet => Content::Table(Box::new(ParquetTable::new(draft).map_err(other)?)),
            _ if zstd => Content::Lines(Box::new(Text::Zstd(zstd::Encoder::new(draft, ZSTD_LEVEL)?))),
            _ => Content::Lines(Box::new(Text::Plain(draft))),
        };
        Ok(Self { form, content, line: Vec::new(), first: 0, last: 0, events: 0, bytes: 0 })
    }

    pub fn push(&mut self, shown: &ExportedEvent) -> io::Result<()> {
        match &mut self.content {
            Content::Table(table) => table.push(shown).map_err(other)?,
            Content::Lines(text) => {
                self.line.clear();
                // CloudEvents are a JSON array; the other formats are lines.
                let ending: &[u8] = match self.form {
                    ExportFormat::CloudEvents if self.events == 0 => b"[\n",
                    ExportFormat::CloudEvents => b",\n",
                    _ => b"",
                };
                self.line.extend_from_slice(ending);
                match self.form {
                    ExportFormat::CloudEvents => lines::cloud_event(shown, &mut self.line),
                    ExportFormat::Bundle => lines::evidence(shown, &mut self.line),
                    _ => lines::plain(shown, &mut self.line),
                }
                if self.form != ExportFormat::CloudEvents {
                    self.line.push(b'\n');
                }
                text.write_all(&self.line)?;
            }
        }
        let seq = shown.message.seq;
        self.first = if self.events == 0 { seq } else { self.first };
        self.last = seq;
        self.events += 1;
        self.bytes += (shown.payload.len() + shown.message.subject.len()) as u64;
        Ok(())
    }

    /// Completes the part and renames it.
    pub fn finish(self) -> io::Result<ExportPart> {
        let draft = match self.content {
            Content::Table(table) => table.finish().map_err(other)?,
            Content::Lines(mut text) => {
                if self.form == ExportFormat::CloudEvents {
                    text.write_all(if self.events == 0 { b"[]\n" } else { b"\n]\n" })?;
                }
                match *text {
                    Text::Plain(draft) => draft,
                    Text::Zstd(encoder) => encoder.finish()?,
                }
            }
        };
        let file = draft.finish()?;
        Ok(ExportPart { file, first: self.first, last: self.last, events: self.events })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
