//! Exports of events as files: lines of JSON, CloudEvents, Parquet, or a bundle that proves itself.
//!
//! An export reads the log once, part by part. A part counts when it is complete and the manifest lists it: after an
//! interruption, or later for new events, an export continues after its last part. Memory holds some batches, whatever the
//! log's size.

pub mod bundle;
pub mod lines;
pub mod manifest;
#[cfg(not(feature = "parquet"))]
mod no_table;
pub mod part;
#[cfg(feature = "parquet")]
mod table;

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[cfg(not(feature = "parquet"))]
use self::no_table as table;
use self::{
    lines::ExportedEvent,
    manifest::{ExportFilter, Manifest},
    part::{ExportPart, PartWriter},
};
use crate::{
    history::{event_reader::EventReader, formats::ReplayPoint, stream_reader::StreamReader},
    limits,
    log::jetstream_log::NatsLog,
    nats::{ReadError, jetstream::RawMessage},
};

/// The file format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    Ndjson,
    CloudEvents,
    Parquet,
    Bundle,
}

impl ExportFormat {
    fn extension(self, zstd: bool) -> &'static str {
        match (self, zstd) {
            (Self::Parquet, _) => "parquet",
            (Self::CloudEvents, false) => "json",
            (Self::CloudEvents, true) => "json.zst",
            (_, false) => "ndjson",
            (_, true) => "ndjson.zst",
        }
    }
}

/// The options of an export.
#[derive(Clone)]
pub struct ExportOptions {
    pub region: String,
    pub form: ExportFormat,
    pub filter: ExportFilter,
    pub since: Option<ReplayPoint>,
    pub until: Option<ReplayPoint>,
    pub zstd: bool,
    /// Decrypts payloads whose key still exists, and redacts.
    pub event_reader: Option<EventReader>,
    /// Events a part; `None` = the default.
    pub part_events: Option<u64>,
}

/// A reason why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} holds another export", .0.display())]
    Another(PathBuf),
    #[error("{0}")]
    Checkpoints(String),
}

/// Receives the progress of an export.
pub trait ExportProgress {
    /// Reading has reached `seq` of `end`.
    fn at(&self, seq: u64, end: u64);
    /// A part is complete.
    fn part(&self, part: &ExportPart);
}

impl ExportOptions {
    /// Exports the events that the folder lacks, and returns its manifest.
    pub async fn to_folder(
        &self,
        log: &NatsLog,
        folder: &Path,
        progress: &impl ExportProgress,
    ) -> Result<Manifest, ExportError> {
        let file = |cause| ExportError::File { path: folder.into(), cause };
        std::fs::create_dir_all(folder).map_err(file)?;
        let new = Manifest::new(self.form, &self.region, self.filter.clone(), self.zstd, self.event_reader.is_some());
        let mut manifest = match Manifest::read(folder).map_err(file)? {
            Some(manifest) if !manifest.is_of(&new) => return Err(ExportError::Another(folder.into())),
            Some(manifest) => manifest,
            None => new.clone(),
        };
        // Checkpoints are read first: the events that they cover are stored by then, so the scan that follows finds all of
        // them.
        let checkpoints = match self.form {
            ExportFormat::Bundle => Some(bundle::CheckpointExport::read(log, folder, &new).await?),
            _ => None,
        };
        let mut stream_reader = self.stream_reader(log, manifest.scanned).await?;
        let end = stream_reader.last().await?;
        let part_events = self.part_events.unwrap_or(limits::EXPORT_PART_EVENTS);
        let mut writer: Option<PartWriter> = None;
        while let Some(message) = stream_reader.next_until(end).await? {
            progress.at(message.seq, end);
            if self.until.as_ref().is_some_and(|until| !until.ends_with(&message)) {
                break;
            }
            let mut part = match writer.take() {
                Some(part) => part,
                None => PartWriter::new(&manifest.next_part(folder), self.form, self.zstd).map_err(file)?,
            };
            self.push(&mut part, &message).await?;
            if part.events < part_events && part.bytes < limits::EXPORT_PART_BYTES {
                writer = Some(part);
                continue;
            }
            complete(part, &mut manifest, folder, progress).map_err(file)?;
        }
        if let Some(part) = writer {
            complete(part, &mut manifest, folder, progress).map_err(file)?;
        }
        if self.until.is_none() {
            manifest.scanned = manifest.scanned.max(end);
        }
        if let Some(checkpoints) = checkpoints {
            manifest.files = checkpoints.finish(folder, &manifest)?;
        }
        manifest.write(folder).map_err(file)?;
        Ok(manifest)
    }

    /// Exports to one file, renamed to `path` when complete.
    pub async fn to_file(
        &self,
        log: &NatsLog,
        path: &Path,
        progress: &impl ExportProgress,
    ) -> Result<ExportPart, ExportError> {
        let file = |cause| ExportError::File { path: path.into(), cause };
        let mut stream_reader = self.stream_reader(log, 0).await?;
        let end = stream_reader.last().await?;
        let mut part = PartWriter::new(path, self.form, self.zstd).map_err(file)?;
        while let Some(message) = stream_reader.next_until(end).await? {
            progress.at(message.seq, end);
            if self.until.as_ref().is_some_and(|until| !until.ends_with(&message)) {
                break;
            }
            self.push(&mut part, &message).await?;
        }
        part.finish().map_err(file)
    }

    async fn push(&self, part: &mut PartWriter, message: &RawMessage) -> Result<(), ExportError> {
        let clear = match &self.event_reader {
            Some(event_reader) => Some(event_reader.read(message.clone()).await?.message.payload),
            None => None,
        };
        let payload = clear.as_ref().unwrap_or(&message.payload);
        let pushed = part.push(&ExportedEvent { message, payload });
        pushed.map_err(|cause| ExportError::File { path: PathBuf::from("a part"), cause })
    }

    async fn stream_reader(&self, log: &NatsLog, scanned: u64) -> Result<StreamReader, ReadError> {
        let log = log.clone();
        let mut stream_reader = match (&self.filter.org, self.filter.conversation) {
            (Some(org), None) => StreamReader::of_org(log, &self.region, org),
            (_, conversation) => StreamReader::new(log, &self.region, conversation),
        };
        match &self.since {
            _ if scanned > 0 => stream_reader.begin_at(scanned + 1),
            Some(ReplayPoint::Seq(seq)) => stream_reader.begin_at(*seq),
            Some(ReplayPoint::Time(time)) => stream_reader.begin_at_time(*time).await?,
            None => {}
        }
        Ok(stream_reader)
    }
}

/// Completes a part and lists it in the manifest.
fn complete(
    part: PartWriter,
    manifest: &mut Manifest,
    folder: &Path,
    progress: &impl ExportProgress,
) -> io::Result<()> {
    let part = part.finish()?;
    manifest.scanned = part.last;
    manifest.parts.push(part.clone());
    manifest.write(folder)?;
    progress.part(&part);
    Ok(())
}
