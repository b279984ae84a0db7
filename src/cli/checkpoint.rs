//! `turnstream audit keygen` and `turnstream audit checkpoint`: signed checkpoints of the log.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use indicatif::ProgressBar;

use crate::{
    app,
    config::Config,
    evidence::{
        checkpoint::Checkpoint,
        signer::{CheckpointSigner, SignError},
    },
    log::jetstream_log::NatsLog,
    nats::AppendError,
    signing::{SigningKey, SigningKeyError},
};

/// Times that another signer may win the race.
const CONFLICTS_MAX: u32 = 5;

/// Make a key that signs checkpoints.
#[derive(Args)]
pub struct Keygen {
    /// File of the private key; the public one goes to the same name with `.pub`.
    #[arg(default_value = "audit-key.pem")]
    file: PathBuf,
}

/// Sign a checkpoint over the heads of all conversations.
#[derive(Args)]
pub struct CheckpointArgs {
    /// Sign once.
    #[arg(long, required_unless_present = "every")]
    once: bool,
    /// Repeat at this interval until stopped: `60s`, `5m`, `1h`.
    #[arg(long, value_name = "TIME", conflicts_with = "once")]
    every: Option<Interval>,
}

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
        let found = units.iter().find_map(|(unit, secs)| {
            let number: u64 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number > 0)?;
            Some(Duration::from_secs(number.checked_mul(*secs)?))
        });
        found.map(Self).ok_or_else(|| "not a number and one of s, m, h, d".into())
    }
}

impl Keygen {
    pub fn run(self) -> anyhow::Result<()> {
        let mut public = self.file.clone().into_os_string();
        public.push(".pub");
        let public = PathBuf::from(public);
        let key = SigningKey::generate(&self.file, &public)?;
        println!("{}: private key, for the signer (SMOOTH_AGENT_AUDIT_KEY_FILE)", self.file.display());
        println!("{}: public key, for auditors", public.display());
        println!("key {}", key.id());
        Ok(())
    }
}

impl CheckpointArgs {
    /// Runs `turnstream audit checkpoint`.
    ///
    /// The repeating form starts again after an error: another signer may be at work, or NATS unavailable.
    pub async fn run(self, config: &Config) -> anyhow::Result<()> {
        signing_key(config)?;
        let nats = app::connect(config, "auditor").await?;
        let log = NatsLog::new(nats.client.clone());
        let Some(Interval(every)) = self.every else {
            let checkpoint = once(config, &log).await?;
            tell(checkpoint);
            return Ok(());
        };
        app::operations::serve_command(config, "signer", &nats).await?;
        let stop = app::StopSignal::new()?;
        println!("signing a checkpoint every {every:?}");
        tokio::select! {
            () = for_ever(config, &log, every) => {}
            () = stop.wait() => {}
        }
        Ok(())
    }
}

/// Signs a checkpoint at each tick.
async fn for_ever(config: &Config, log: &NatsLog, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut signer = None;
    loop {
        ticks.tick().await;
        match next(config, log, &mut signer).await {
            Ok(Some(checkpoint)) => tell(Some(checkpoint)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "no checkpoint was signed; the next tick tries again");
                signer = None;
            }
        }
    }
}

async fn next(
    config: &Config,
    log: &NatsLog,
    signer: &mut Option<CheckpointSigner>,
) -> anyhow::Result<Option<Checkpoint>> {
    let signer = match signer {
        Some(signer) => signer,
        None => signer.insert(CheckpointSigner::begin(log.clone(), &config.regions.home, signing_key(config)?).await?),
    };
    Ok(signer.sign(|_, _| {}).await?)
}

/// Signs a checkpoint over new events, with retries when another signer wins the race.
pub async fn once(config: &Config, log: &NatsLog) -> anyhow::Result<Option<Checkpoint>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_once(config, log).await {
            Err(SignError::Append(AppendError::Conflict)) if tries < CONFLICTS_MAX => {}
            signed => return Ok(signed?),
        }
    }
}

async fn try_once(config: &Config, log: &NatsLog) -> Result<Option<Checkpoint>, SignError> {
    let bar = ProgressBar::new(0);
    let mut signer = CheckpointSigner::begin(log.clone(), &config.regions.home, signing_key(config)?).await?;
    let progress = |seq, end| {
        bar.set_length(end);
        bar.set_position(seq);
    };
    let signed = signer.sign(progress).await;
    bar.finish_and_clear();
    signed
}

/// Reads the key that signs checkpoints.
pub fn signing_key(config: &Config) -> Result<SigningKey, SigningKeyError> {
    SigningKey::read(config.audit_key.as_deref().ok_or(SigningKeyError::Unset)?)
}

/// Prints a checkpoint, so that an auditor can note it elsewhere.
fn tell(checkpoint: Option<Checkpoint>) {
    match checkpoint {
        Some(checkpoint) => {
            let Checkpoint { number, conversations, events, covers, .. } = &checkpoint;
            let digest = checkpoint.digest();
            println!(
                "checkpoint {number}:{digest} of {events} events of {conversations} conversations up to event {covers}"
            );
        }
        None => println!("no new events since the last checkpoint"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, secs) in [("60s", 60), ("5m", 300), ("1h", 3_600), ("2d", 172_800)] {
            assert_eq!(text.parse(), Ok(Interval(Duration::from_secs(secs))));
        }
        for wrong in ["60", "s", "0s", "-1s", "1w", "99999999999999999999d"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
    }
}
