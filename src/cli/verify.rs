//! `turnstream audit verify`: checks the log, or a bundle of it, against its digests and checkpoints.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    audit::{
        bundle::{self, Demands},
        checkpoint::{Chain, Noted, Sealed},
        keys::PublicKey,
        scan::Scan,
        verify::{Report, Verifier},
    },
    config::Config,
    log::nats::NatsLog,
};

/// Follow the chain of digests and check it against the checkpoints; exit code 1 if anything was changed.
#[derive(Args)]
pub struct Verify {
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
    require_sealed: bool,
    /// The log or bundle must hold all of a region, from its first event on.
    #[arg(long, conflicts_with = "conversation")]
    whole: bool,
    /// The least number of checkpoints.
    #[arg(long, value_name = "NUMBER")]
    at_least: Option<u64>,
    /// A checkpoint that was noted earlier and must be unchanged.
    #[arg(long, value_name = "NUMBER:DIGEST")]
    expect_checkpoint: Option<Noted>,
    /// First sequence that retention left.
    #[arg(long, value_name = "SEQ")]
    begins_at: Option<u64>,
    /// Print JSON instead of words.
    #[arg(long)]
    json: bool,
}

impl Verify {
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

    fn demands(self) -> anyhow::Result<Demands> {
        let keys: Result<_, _> = self.public_key.iter().map(|path| PublicKey::read(path)).collect();
        Ok(Demands {
            keys: keys?,
            begins: self.begins_at,
            sealed: self.require_sealed,
            whole: self.whole,
            at_least: self.at_least,
            noted: self.expect_checkpoint,
        })
    }

    async fn of_the_log(self, config: &Config) -> anyhow::Result<Report> {
        let only = self.conversation;
        let demands = self.demands()?;
        let bus = app::connect(config, "auditor").await?;
        let log = NatsLog::new(bus.client.clone());
        // Checkpoints are read up to their current end first: the events that they cover are stored by then.
        let mut seals = Seals::begin(log.clone(), &config.regions.home, &demands).await?;
        let mut scan = Scan::new(log, &config.regions.home, only);
        let end = scan.last().await?;
        let bar = ProgressBar::new(end);
        let mut verifier = Verifier::new(demands.begins, only);
        let mut next = seals.next(&mut verifier.report).await?;
        while let Some(message) = scan.next_until(end).await? {
            while let Some(sealed) = next.take_if(|sealed| Verifier::is_before(sealed, message.seq)) {
                verifier.hold_to(&sealed);
                next = seals.next(&mut verifier.report).await?;
            }
            verifier.take(&message);
            bar.set_position(message.seq);
        }
        while let Some(sealed) = next.take() {
            verifier.hold_to(&sealed);
            next = seals.next(&mut verifier.report).await?;
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
struct Seals {
    scan: Scan,
    end: u64,
    chain: Chain,
    noted: Option<Noted>,
    broken: bool,
}

impl Seals {
    async fn begin(log: NatsLog, region: &str, demands: &Demands) -> anyhow::Result<Self> {
        let scan = Scan::checkpoints(log, region);
        let end = scan.last().await?;
        let chain = Chain::signed_by(demands.keys.clone());
        Ok(Self { scan, end, chain, noted: demands.noted.clone(), broken: false })
    }

    /// Returns the next checkpoint that follows from those before it.
    async fn next(&mut self, report: &mut Report) -> anyhow::Result<Option<Sealed>> {
        while !self.broken
            && let Some(message) = self.scan.next_until(self.end).await?
        {
            match self.chain.take(&message.payload) {
                Ok(None) => {}
                Ok(Some(sealed)) => {
                    report.compare(&sealed.checkpoint, self.noted.as_ref());
                    return Ok(Some(sealed));
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
