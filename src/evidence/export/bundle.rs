//! The files that make an export an evidence bundle: checkpoints, inclusion proofs, a public key, instructions for verifying.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    path::Path,
};

use uuid::Uuid;

use super::{
    ExportError,
    lines::Evidence,
    manifest::Manifest,
    part::{self, DraftFile, FileFact},
};
use crate::{
    evidence::{
        checkpoint::{self, CheckpointChain},
        lines::{self, EvidenceLines},
    },
    history::stream_reader::StreamReader,
    log::jetstream_log::NatsLog,
    signing::PublicKey,
    subjects::ConversationKey,
};

pub const CHECKPOINTS: &str = "checkpoints.ndjson";
pub const PROOFS: &str = "proofs.ndjson";
pub const KEY: &str = "key.pub.pem";
pub const README: &str = "README.md";
const INSTRUCTION: &str = include_str!("../bundle/README.md");

/// The checkpoints of a region on their way into a bundle.
pub struct CheckpointExport {
    checkpoints: DraftFile,
    chain: CheckpointChain,
    /// The fault in the chain of checkpoints.
    ///
    /// A bundle of all conversations shows the fault itself; a bundle of some can't be made, as no proof leads to the root.
    broken: Option<String>,
}

impl CheckpointExport {
    /// Reads all checkpoints of the region.
    pub async fn read(log: &NatsLog, folder: &Path, manifest: &Manifest) -> Result<Self, ExportError> {
        let path = folder.join(CHECKPOINTS);
        let file = |cause| ExportError::File { path: path.clone(), cause };
        let mut stream_reader = StreamReader::checkpoints(log.clone(), &manifest.region);
        let end = stream_reader.last().await?;
        let checkpoints = DraftFile::new(&path).map_err(file)?;
        let mut export = Self { checkpoints, chain: CheckpointChain::default(), broken: None };
        while let Some(message) = stream_reader.next_until(end).await? {
            let payload = message.payload;
            if manifest.is_whole() || !checkpoint::is_part(&payload) {
                let written = export.checkpoints.write_all(&payload).and_then(|()| export.checkpoints.write_all(b"\n"));
                written.map_err(file)?;
            }
            if !manifest.is_whole() && export.broken.is_none() {
                export.broken = export.chain.take(&payload).err();
            }
        }
        Ok(export)
    }

    /// Writes the remaining files of a bundle after its parts.
    pub fn finish(self, folder: &Path, manifest: &Manifest) -> Result<Vec<FileFact>, ExportError> {
        let file = |cause| ExportError::File { path: folder.into(), cause };
        let Self { checkpoints, mut chain, broken } = self;
        let mut files = vec![checkpoints.finish().map_err(file)?];
        files.push(part::write(&folder.join(README), INSTRUCTION.as_bytes()).map_err(file)?);
        if !manifest.is_whole() {
            if let Some(problem) = broken {
                return Err(ExportError::Checkpoints(problem));
            }
            files.push(write_proofs(&mut chain, folder, manifest).map_err(file)?);
        }
        // The exporting command puts the key into the folder; it is only listed here.
        if let Ok(key) = std::fs::read(folder.join(KEY)) {
            files.push(part::write(&folder.join(KEY), &key).map_err(file)?);
        }
        Ok(files)
    }
}

fn write_proofs(chain: &mut CheckpointChain, folder: &Path, manifest: &Manifest) -> io::Result<FileFact> {
    let mut proofs = DraftFile::new(&folder.join(PROOFS))?;
    for conversation in conversations(folder, manifest)? {
        // A conversation without a proof is younger than the last checkpoint.
        if let Some(proof) = chain.tree().proof(conversation) {
            serde_json::to_writer(&mut proofs, &proof)?;
            proofs.write_all(b"\n")?;
        }
    }
    proofs.finish()
}

/// Writes the public key of the checkpoints into a bundle.
pub fn put_key(folder: &Path, key: &PublicKey) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    part::write(&folder.join(KEY), key.pem().as_bytes()).map(drop)
}

/// Collects the conversations of the events in the parts.
fn conversations(folder: &Path, manifest: &Manifest) -> io::Result<BTreeSet<Uuid>> {
    let mut found = BTreeSet::new();
    for part in &manifest.parts {
        let mut lines = EvidenceLines::new(lines::reader(File::open(folder.join(&part.file.file))?, manifest.zstd)?);
        while let Some(line) = lines.read()? {
            let event: Evidence = serde_json::from_slice(line)?;
            found.extend(ConversationKey::parse_event(&event.subject).map(|key| key.conversation));
        }
    }
    Ok(found)
}
