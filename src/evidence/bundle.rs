//! Verifies an evidence bundle from its folder and a public key alone.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    checkpoint::{CheckpointChain, CheckpointRef, SignedCheckpoint},
    export::{
        ExportFormat,
        bundle::{CHECKPOINTS, KEY, PROOFS},
        lines::Evidence,
        manifest::{ExportFilter, Manifest},
        part::FileFact,
    },
    lines::{EvidenceLines, reader},
    merkle_tree::{ConversationHead, InclusionProof},
    verify::{ChainBreak, ChainLink, LogVerifier, VerificationReport},
};
use crate::{domain::Digest, signing::PublicKey};

/// The demands that an auditor makes on a bundle or a log.
#[derive(Default)]
pub struct VerifyOptions {
    /// Keys that may have signed checkpoints.
    pub keys: Vec<PublicKey>,
    /// Sequence of the first event that retention left.
    pub begins: Option<u64>,
    /// Every event must be covered by a checkpoint.
    pub fully_signed: bool,
    /// The bundle or log must hold all conversations of a region, from the first event on.
    pub whole: bool,
    /// The least number of checkpoints.
    pub at_least: Option<u64>,
    /// A checkpoint that the auditor has noted.
    pub noted: Option<CheckpointRef>,
}

/// A reason why a bundle can't be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} is not an evidence bundle", .0.display())]
    NotABundle(PathBuf),
}

/// Verifies a bundle.
///
/// `progress` receives the bytes read so far and the total.
pub fn verify(
    folder: &Path,
    mut demands: VerifyOptions,
    progress: impl Fn(u64, u64),
) -> Result<VerificationReport, BundleError> {
    let not_a_bundle = || BundleError::NotABundle(folder.into());
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| BundleError::File { path, cause }
    };
    let manifest = Manifest::read(folder).map_err(at(folder))?.ok_or_else(not_a_bundle)?;
    if manifest.format != ExportFormat::Bundle || manifest.opened {
        return Err(not_a_bundle());
    }
    let mut verifier = LogVerifier::new(demands.begins, None);
    if demands.keys.is_empty() {
        let note = match PublicKey::read(&folder.join(KEY)) {
            Ok(key) => {
                demands.keys.push(key);
                "the public key comes from the bundle itself: accidental damage is detected, forgery is not; give --public-key"
            }
            Err(_) => "no public key: checkpoint signatures were not checked; give --public-key",
        };
        verifier.report.notes.push(note.into());
    }
    for file in manifest.files.iter().chain(manifest.parts.iter().map(|part| &part.file)) {
        let path = folder.join(&file.file);
        if !is_as_listed(&path, file).map_err(at(&path))? {
            verifier.report.wrong(format!("{} differs from the manifest's entry", file.file));
        }
    }
    let path = folder.join(CHECKPOINTS);
    let mut checkpoints = BundleCheckpoints::open(folder, &manifest, &demands).map_err(at(&path))?;
    checkpoints.advance(&mut verifier.report);
    let mut reading = BundleReader { verifier, checkpoints, held: None };
    let total: u64 = manifest.parts.iter().map(|part| part.file.bytes).sum();
    let mut done = 0;
    for part in &manifest.parts {
        // A part that can't be read to its end was cut or changed.
        if let Err(error) = reading.part(&folder.join(&part.file.file), manifest.zstd) {
            reading.verifier.report.wrong(format!("{}: {error}", part.file.file));
        }
        done += part.file.bytes;
        progress(done, total);
    }
    Ok(reading.finish(&manifest.filter, &demands))
}

/// The state of reading a bundle.
struct BundleReader {
    verifier: LogVerifier,
    checkpoints: BundleCheckpoints,
    /// An event held back until its successor is read: only both together show which one is out of place.
    held: Option<ChainLink>,
}

impl BundleReader {
    fn part(&mut self, path: &Path, zstd: bool) -> io::Result<()> {
        let mut lines = EvidenceLines::new(reader(File::open(path)?, zstd)?);
        while let Some(line) = lines.read()? {
            match link(line) {
                Ok(link) => self.take(link),
                Err(problem) => {
                    let seq = self.held.as_ref().map_or(self.verifier.last(), |held| held.seq);
                    let problem = format!("the next line is not an event: {problem}");
                    self.verifier.report.found(ChainBreak { seq, subject: String::new(), problem });
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, link: ChainLink) {
        let next = link.seq;
        let Some(held) = self.held.replace(link) else { return };
        if held.seq >= next {
            let (subject, problem) = (held.subject.clone(), format!("the next event has the sequence {next}"));
            self.verifier.report.found(ChainBreak { seq: held.seq, subject, problem });
        }
        self.follow(held);
    }

    fn follow(&mut self, link: ChainLink) {
        while let Some(signed) = self.checkpoints.next.take_if(|signed| LogVerifier::is_before(signed, link.seq)) {
            self.verifier.hold_to(&signed);
            self.checkpoints.advance(&mut self.verifier.report);
        }
        self.verifier.follow(link);
    }

    fn finish(mut self, filter: &ExportFilter, demands: &VerifyOptions) -> VerificationReport {
        if let Some(held) = self.held.take() {
            self.follow(held);
        }
        while let Some(signed) = self.checkpoints.next.take() {
            self.verifier.hold_to(&signed);
            self.checkpoints.advance(&mut self.verifier.report);
        }
        let mut report = self.verifier.report;
        if *filter != ExportFilter::default() {
            let what = filter.org.as_ref().map(|org| format!("of the organisation {org}"));
            let what = what.or(filter.conversation.map(|id| format!("with the conversation {id}"))).unwrap_or_default();
            report.notes.push(format!("a partial bundle {what}: omissions can't be detected"));
            if demands.whole {
                report.wrong("the bundle does not cover all conversations of its region");
            }
        }
        demands.check(&mut report);
        report
    }
}

/// Parses a line into the chain link of its event.
pub fn link(line: &[u8]) -> Result<ChainLink, String> {
    let event: Evidence = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let payload = event.payload()?;
    Ok(ChainLink::of(event.seq, event.subject.clone(), |name| event.header(name), &payload))
}

/// Reads the checkpoints of a bundle one after the other.
struct BundleCheckpoints {
    lines: Option<EvidenceLines>,
    chain: CheckpointChain,
    /// Inclusion proofs against the last checkpoint, in a bundle of some conversations only.
    proofs: Option<Vec<InclusionProof>>,
    next: Option<SignedCheckpoint>,
    noted: Option<CheckpointRef>,
}

impl BundleCheckpoints {
    fn open(folder: &Path, manifest: &Manifest, demands: &VerifyOptions) -> io::Result<Self> {
        let whole = manifest.is_whole();
        let lines = EvidenceLines::new(reader(File::open(folder.join(CHECKPOINTS))?, false)?);
        let (keys, noted) = (demands.keys.clone(), demands.noted.clone());
        let chain = if whole { CheckpointChain::signed_by(keys) } else { CheckpointChain::without_heads(keys) };
        let mut checkpoints = Self { lines: Some(lines), chain, proofs: None, next: None, noted };
        if !whole {
            let mut lines = EvidenceLines::new(reader(File::open(folder.join(PROOFS))?, false)?);
            let mut proofs = Vec::new();
            while let Some(line) = lines.read()? {
                proofs.push(serde_json::from_slice(line)?);
            }
            checkpoints.proofs = Some(proofs);
        }
        Ok(checkpoints)
    }

    /// Reads the next checkpoint; of a bundle of some conversations, the last one.
    fn advance(&mut self, report: &mut VerificationReport) {
        let mut last = None;
        while let Some(signed) = self.read(report) {
            report.compare(&signed.checkpoint, self.noted.as_ref());
            if self.proofs.is_none() {
                self.next = Some(signed);
                return;
            }
            report.checkpoints += 1;
            last = Some(signed);
        }
        let (Some(mut signed), Some(proofs)) = (last, &self.proofs) else { return };
        for InclusionProof { head, .. } in proofs.iter().filter(|proof| proof.root() != signed.checkpoint.root) {
            report.wrong(format!(
                "the proof of conversation {} does not lead to the last checkpoint's root",
                head.conversation
            ));
        }
        let mut heads: Vec<ConversationHead> = proofs.iter().map(|proof| proof.head).collect();
        heads.sort_by_key(|head| head.conversation);
        signed.heads = heads;
        report.checkpoints -= 1;
        self.next = Some(signed);
    }

    fn read(&mut self, report: &mut VerificationReport) -> Option<SignedCheckpoint> {
        loop {
            let line = self.lines.as_mut()?.read();
            let taken = match line {
                Ok(Some(line)) => self.chain.take(line),
                Ok(None) => return None,
                Err(error) => Err(error.to_string()),
            };
            match taken {
                Ok(Some(signed)) => return Some(signed),
                Ok(None) => {}
                // Checkpoints after a fault can't be relied on.
                Err(problem) => {
                    self.lines = None;
                    report.wrong(problem);
                }
            }
        }
    }
}

impl VerifyOptions {
    /// Adds a fault for every demand that the report does not meet.
    pub fn check(&self, report: &mut VerificationReport) {
        let last = report.last_checkpoint.as_ref().map_or(0, |last| last.number);
        if let Some(wanted) = self.at_least.max(self.noted.as_ref().map(|noted| noted.number)).filter(|n| *n > last) {
            report.wrong(format!("{last} checkpoints found, {wanted} expected: the newest are missing"));
        }
        if self.fully_signed && report.unsigned > 0 {
            report.wrong(format!("{} events are not covered by a checkpoint", report.unsigned));
        }
        if self.whole && report.begins > 1 {
            report.wrong("the log does not begin with its first event");
        }
    }
}

fn is_as_listed(path: &Path, listed: &FileFact) -> io::Result<bool> {
    let (mut file, mut hash, mut bytes) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, Digest(hash.finalize().into())) == (listed.bytes, listed.sha256));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}
