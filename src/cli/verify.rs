//! `turnstream audit verify`: checks the log, or a bundle of it, against its digests and checkpoints.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    config::Config,
    evidence::{
        bundle::{self, VerifyOptions},
        checkpoint::{CheckpointChain, CheckpointRef, SignedCheckpoint},
        verify::{LogVerifier, VerificationReport},
    },
    history::stream_reader::StreamReader,
    log::jetstream_log::NatsLog,
    signing::PublicKey,
};

/// Follow the chain of digests and check it against the checkpoints; exit code 1 if anything was changed.
#[derive(Args)]
pub struct VerifyArgs {
    /// An evidence bundle to verify offline.
    #[arg(long, value_name = "DIR", conflicts_with = "conversation")]
    bundle: Option<PathBuf>,
    /// Only this conversation.
    #[arg(long)]
    conversation: Option<Uuid>,
    /// A public key that may have signed checkpoints; repeatable, for keys that have changed.
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// Every event must be covered by a checkpoint.
    #[arg(long)]
    #[arg(alias = "require-sealed")]
    require_signed: bool,
    /// The log or bundle must hold all of a region, from its first event on.
    #[arg(long, conflicts_with = "conversation")]
    whole: bool,
    /// The least number of checkpoints.
    #[arg(long, value_name = "NUMBER")]
    at_least: Option<u64>,
    /// A checkpoint that was noted earlier and must be unchanged.
    #[arg(long, value_name = "NUMBER:DIGEST")]
    expect_checkpoint: Option<CheckpointRef>,
    /// First sequence that retention left.
    #[arg(long, value_name = "SEQ")]
    begins_at: Option<u64>,
    /// Print JSON instead of words.
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let json = self.json;
        let report = match self.bundle.clone() {
            Some(folder) => {
                let bar = ProgressBar::new(0);
                let progress = |done, total| {
                    bar.set_length(total);
                    bar.set_position(done);
                };
                let report = bundle::verify(&folder, self.demands()?, progress)?;
                bar.finish_and_clear();
                report
            }
            None => self.of_the_log(&super::load()?).await?,
        };
        if json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{report}");
        }
        if report.broken > 0 {
            bail!("verification failed");
        }
        Ok(())
    }

    fn demands(self) -> anyhow::Result<VerifyOptions> {
        let keys: Result<_, _> = self.public_key.iter().map(|path| PublicKey::read(path)).collect();
        Ok(VerifyOptions {
            keys: keys?,
            begins: self.begins_at,
            fully_signed: self.require_signed,
            whole: self.whole,
            at_least: self.at_least,
            noted: self.expect_checkpoint,
        })
    }

    async fn of_the_log(self, config: &Config) -> anyhow::Result<VerificationReport> {
        let only = self.conversation;
        let demands = self.demands()?;
        let nats = app::connect(config, "auditor").await?;
        let log = NatsLog::new(nats.client.clone());
        // Checkpoints are read up to their current end first: the events that they cover are stored by then.
        let mut checkpoints = RegionCheckpoints::begin(log.clone(), &config.regions.home, &demands).await?;
        let mut stream_reader = StreamReader::new(log, &config.regions.home, only);
        let end = stream_reader.last().await?;
        let bar = ProgressBar::new(end);
        let mut verifier = LogVerifier::new(demands.begins, only);
        let mut next = checkpoints.next(&mut verifier.report).await?;
        while let Some(message) = stream_reader.next_until(end).await? {
            while let Some(signed) = next.take_if(|signed| LogVerifier::is_before(signed, message.seq)) {
                verifier.hold_to(&signed);
                next = checkpoints.next(&mut verifier.report).await?;
            }
            verifier.take(&message);
            bar.set_position(message.seq);
        }
        while let Some(signed) = next.take() {
            verifier.hold_to(&signed);
            next = checkpoints.next(&mut verifier.report).await?;
        }
        bar.finish_and_clear();
        let mut report = verifier.report;
        if demands.keys.is_empty() && report.checkpoints > 0 {
            let note = "no public key: checkpoint signatures were not checked; give --public-key";
            report.notes.push(note.into());
        }
        demands.check(&mut report);
        Ok(report)
    }
}

/// The checkpoints of a region, up to the end at the start.
struct RegionCheckpoints {
    stream_reader: StreamReader,
    end: u64,
    chain: CheckpointChain,
    noted: Option<CheckpointRef>,
    broken: bool,
}

impl RegionCheckpoints {
    async fn begin(log: NatsLog, region: &str, demands: &VerifyOptions) -> anyhow::Result<Self> {
        let stream_reader = StreamReader::checkpoints(log, region);
        let end = stream_reader.last().await?;
        let chain = CheckpointChain::signed_by(demands.keys.clone());
        Ok(Self { stream_reader, end, chain, noted: demands.noted.clone(), broken: false })
    }

    /// Returns the next checkpoint that follows from those before it.
    async fn next(&mut self, report: &mut VerificationReport) -> anyhow::Result<Option<SignedCheckpoint>> {
        while !self.broken
            && let Some(message) = self.stream_reader.next_until(self.end).await?
        {
            match self.chain.take(&message.payload) {
                Ok(None) => {}
                Ok(Some(signed)) => {
                    report.compare(&signed.checkpoint, self.noted.as_ref());
                    return Ok(Some(signed));
                }
                Err(problem) => {
                    self.broken = true;
                    report.wrong(problem);
                }
            }
        }
        Ok(None)
    }
}
