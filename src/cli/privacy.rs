//! `turnstream erase` and `turnstream hold`.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use chrono::Utc;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    config::Config,
    history::stream_reader::StreamReader,
    ids,
    log::jetstream_log::NatsLog,
    nats::connection::NatsConnection,
    privacy::{
        erase::{self, ErasureFindings, ErasureOrder, ErasureReport},
        ledger::{ErasureExtent, HoldTarget, Ledger, LedgerAction, LedgerEntry},
        person::Person,
    },
};

/// Erase conversations: destroy their keys for good (crypto-shredding), and keep the chain of digests.
///
/// Exit code 1: some content is left, because it was stored before payloads were encrypted.
#[derive(Args)]
pub struct Erase {
    #[command(flatten)]
    whose: ConversationSelector,
    #[command(flatten)]
    why: RecordedReason,
    /// Only list the conversations that would be erased.
    #[arg(long)]
    dry_run: bool,
}

/// The conversations to erase or hold.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ConversationSelector {
    /// This conversation.
    #[arg(long)]
    conversation: Option<Uuid>,
    /// Every conversation of a person: their e-mail address, or their id at the issuer of tokens.
    #[arg(long)]
    user: Option<String>,
}

/// The reason and the person, for the record.
#[derive(Args)]
pub struct RecordedReason {
    /// Reason, for the record.
    #[arg(long)]
    reason: String,
    /// Person who asks for it, for the record.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

impl ConversationSelector {
    fn held(&self) -> anyhow::Result<HoldTarget> {
        match (self.conversation, &self.user) {
            (Some(id), _) => Ok(HoldTarget::Conversation(id)),
            (None, user) => {
                let person = user.as_deref().and_then(Person::new);
                Ok(HoldTarget::Person(person.context("--user is blank")?))
            }
        }
    }
}

/// Hold conversations against erasing, as the law may demand.
#[derive(Subcommand)]
pub enum Hold {
    /// Place a hold, and print its id.
    Place {
        #[command(flatten)]
        whose: ConversationSelector,
        #[command(flatten)]
        why: RecordedReason,
    },
    /// Lift a hold.
    Lift {
        /// The hold's id.
        hold: Uuid,
        #[command(flatten)]
        why: RecordedReason,
    },
    /// List the holds in force.
    List,
}

/// The log and the ledger of a region, for commands that erase, hold or retain.
pub(super) struct PrivacyContext {
    pub nats: NatsConnection,
    pub log: NatsLog,
    pub ledger: Ledger,
    pub region: String,
}

impl PrivacyContext {
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let nats = app::connect(config, "eraser").await?;
        let log = app::log(config, &nats).await?;
        let region = config.regions.home.clone();
        let ledger = Ledger::read(log.clone(), &region).await?;
        Ok(Self { nats, log, ledger, region })
    }

    /// Reads the keys and people of a conversation, or of the whole region.
    async fn found(&self, conversation: Option<Uuid>) -> anyhow::Result<ErasureFindings> {
        if let Some(id) = conversation {
            return Ok(ErasureFindings::in_conversation(&self.log, &self.region, id).await?);
        }
        let bar = ProgressBar::new(StreamReader::new(self.log.clone(), &self.region, None).last().await?);
        let found = ErasureFindings::in_region(&self.log, &self.region, |seq| bar.set_position(seq)).await?;
        bar.finish_and_clear();
        Ok(found)
    }

    async fn carry_out(&mut self, found: &ErasureFindings, order: &ErasureOrder) -> anyhow::Result<ErasureReport> {
        let bar = ProgressBar::new(order.conversations.len() as u64);
        let erased = erase::erase(&self.log, &mut self.ledger, found, order, || bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(erased)
    }
}

/// Runs `turnstream erase`.
pub async fn erase(args: Erase, config: &Config) -> anyhow::Result<()> {
    let mut place = PrivacyContext::open(config).await?;
    if !args.dry_run {
        let completed = erase::complete_open(&place.log, &mut place.ledger, &place.region, None).await?;
        say_failed(&completed);
        if completed.conversations > 0 {
            println!("completed an earlier erasure");
        }
    }
    let held = args.whose.held()?;
    let found = place.found(args.whose.conversation).await?;
    let (person, conversations) = match held {
        HoldTarget::Conversation(id) if !found.keys.contains_key(&id) => {
            bail!("there is no conversation {id} in the region `{}`", place.region)
        }
        HoldTarget::Conversation(id) => (None, BTreeSet::from([id]).intersection(&found.readable).copied().collect()),
        HoldTarget::Person(person) => (Some(person.clone()), found.of(&person)),
    };
    if conversations.is_empty() {
        println!("nothing to erase");
        return Ok(());
    }
    if args.dry_run {
        for id in &conversations {
            match place.ledger.hold_on(*id, found.people.get(id)) {
                Some((hold, reason)) => println!("{id} is held ({hold}): {reason}"),
                None => println!("{id} would be erased"),
            }
        }
        return Ok(());
    }
    for (conversation, cause) in &found.closed {
        eprintln!("{conversation}: an event can't be decrypted, so its owner is unknown: {cause}");
    }
    let order =
        ErasureOrder { person, conversations, extent: ErasureExtent::All, reason: args.why.reason, by: args.why.by };
    let erased = place.carry_out(&found, &order).await?;
    println!("erased {} conversations: {} keys destroyed", erased.conversations, erased.keys);
    say_failed(&erased);
    if !erased.failed.is_empty() {
        bail!("{} conversations could not be erased yet; the next run tries again", erased.failed.len());
    }
    if erased.clear_events > 0 {
        bail!("{} events were stored unencrypted and are still readable", erased.clear_events);
    }
    Ok(())
}

fn say_failed(erased: &ErasureReport) {
    for (conversation, cause) in &erased.failed {
        eprintln!("{conversation} can't be erased now: {cause}");
    }
}

/// Runs a command of `turnstream hold`.
pub async fn hold(command: Hold, config: &Config) -> anyhow::Result<()> {
    let mut place = PrivacyContext::open(config).await?;
    let (by, deed) = match command {
        Hold::Place { whose, why: RecordedReason { reason, by } } => {
            let hold = ids::new_random();
            println!("{hold}");
            (by, LedgerAction::HoldPlaced { hold, on: whose.held()?, reason })
        }
        Hold::Lift { hold, why: RecordedReason { reason, by } } => {
            if !place.ledger.holds().any(|(id, _, _)| *id == hold) {
                bail!("there is no hold {hold}");
            }
            (by, LedgerAction::HoldLifted { hold, reason })
        }
        Hold::List => {
            for (hold, held, entry) in place.ledger.holds() {
                let LedgerAction::HoldPlaced { reason, .. } = &entry.deed else { continue };
                println!("{hold}  {held}  since {} by {}: {reason}", entry.at.format("%F %T"), entry.by);
            }
            return Ok(());
        }
    };
    place.ledger.add(LedgerEntry { at: Utc::now(), by, deed }, &Default::default()).await?;
    Ok(())
}
