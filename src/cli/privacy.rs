//! `turnstream erase`, `turnstream hold`, `turnstream retain`.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    audit::scan::Scan,
    config::Config,
    ids,
    log::nats::NatsLog,
    privacy::{
        erase::{self, Erased, Found, Order},
        ledger::{Deed, Entry, Extent, Held, Ledger, LedgerError},
        person::Person,
        retain,
    },
};

/// Erase conversations: destroy their keys for good, and leave the chain of digests as it is.
///
/// Exit code 1: something is left, because it was stored in the clear before payloads were sealed.
#[derive(Args)]
pub struct Erase {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    why: Why,
    /// Only say what would be erased.
    #[arg(long)]
    dry_run: bool,
}

/// What is erased or held.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Whose {
    /// This conversation.
    #[arg(long)]
    conversation: Option<Uuid>,
    /// Every conversation of a person: their e-mail address, or their id at the issuer of tokens.
    #[arg(long)]
    user: Option<String>,
}

/// What is recorded of whoever erases or holds.
#[derive(Args)]
pub struct Why {
    /// Why.
    #[arg(long)]
    reason: String,
    /// Who wants it.
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

impl Whose {
    fn held(&self) -> anyhow::Result<Held> {
        match (self.conversation, &self.user) {
            (Some(id), _) => Ok(Held::Conversation(id)),
            (None, user) => {
                let person = user.as_deref().and_then(Person::new);
                Ok(Held::Person(person.context("--user is blank")?))
            }
        }
    }
}

/// Hold conversations against erasing: the law wants them kept.
#[derive(Subcommand)]
pub enum Hold {
    /// Place a hold; prints its id.
    Place {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        why: Why,
    },
    /// Lift a hold.
    Lift {
        /// Its id.
        hold: Uuid,
        #[command(flatten)]
        why: Why,
    },
    /// List the holds that are in force.
    List,
}

/// Erase what has been kept long enough: SMOOTH_AGENT_RETAIN_DAYS, SMOOTH_AGENT_RETAIN_TOOLS_DAYS.
#[derive(Args)]
pub struct Retain {
    /// Again and again, with so many seconds between; once, if left out.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// What is due at this time (RFC 3339) instead of now: with --dry-run, what will be erased until then.
    #[arg(long, value_name = "TIME", conflicts_with = "every")]
    as_of: Option<DateTime<Utc>>,
    /// Only say what would be erased.
    #[arg(long, conflicts_with = "every")]
    dry_run: bool,
}

/// What all of these work with.
struct Place {
    log: NatsLog,
    ledger: Ledger,
    region: String,
}

impl Place {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let bus = app::connect(config, "eraser").await?;
        let log = app::log(config, &bus).await?;
        let region = config.regions.home.clone();
        let ledger = Ledger::read(log.clone(), &region).await?;
        Ok(Self { log, ledger, region })
    }

    /// What is in a conversation, or in all of the region.
    async fn found(&self, conversation: Option<Uuid>) -> anyhow::Result<Found> {
        if let Some(id) = conversation {
            return Ok(Found::in_conversation(&self.log, &self.region, id).await?);
        }
        let bar = ProgressBar::new(Scan::new(self.log.clone(), &self.region, None).last().await?);
        let found = Found::in_region(&self.log, &self.region, |seq| bar.set_position(seq)).await?;
        bar.finish_and_clear();
        Ok(found)
    }

    async fn carry_out(&mut self, found: &Found, order: &Order) -> anyhow::Result<Erased> {
        let bar = ProgressBar::new(order.conversations.len() as u64);
        let erased = erase::erase(&self.log, &mut self.ledger, found, order, || bar.inc(1)).await?;
        bar.finish_and_clear();
        Ok(erased)
    }
}

/// Erases.
pub async fn erase(args: Erase, config: &Config) -> anyhow::Result<()> {
    let mut place = Place::open(config).await?;
    if !args.dry_run && erase::complete_open(&place.log, &mut place.ledger, &place.region).await? {
        println!("completed an earlier erasure");
    }
    let held = args.whose.held()?;
    let found = place.found(args.whose.conversation).await?;
    let (person, conversations) = match held {
        Held::Conversation(id) if !found.keys.contains_key(&id) => {
            bail!("there is no conversation {id} in the region `{}`", place.region)
        }
        Held::Conversation(id) => (None, BTreeSet::from([id]).intersection(&found.readable).copied().collect()),
        Held::Person(person) => (Some(person.clone()), found.of(&person)),
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
        eprintln!(
            "{conversation}: something in it can't be opened, so whether it is this person's is not known: {cause}"
        );
    }
    let order = Order { person, conversations, extent: Extent::All, reason: args.why.reason, by: args.why.by };
    let erased = place.carry_out(&found, &order).await?;
    println!("erased {} conversations: {} keys destroyed", erased.conversations, erased.keys);
    if erased.clear_events > 0 {
        bail!(
            "{} events were stored in the clear, before payloads were sealed, and are still readable",
            erased.clear_events
        );
    }
    Ok(())
}

/// Places, lifts and lists holds.
pub async fn hold(command: Hold, config: &Config) -> anyhow::Result<()> {
    let mut place = Place::open(config).await?;
    let (by, deed) = match command {
        Hold::Place { whose, why: Why { reason, by } } => {
            let hold = ids::new_random();
            println!("{hold}");
            (by, Deed::HoldPlaced { hold, on: whose.held()?, reason })
        }
        Hold::Lift { hold, why: Why { reason, by } } => {
            if !place.ledger.holds().any(|(id, _, _)| *id == hold) {
                bail!("there is no hold {hold}");
            }
            (by, Deed::HoldLifted { hold, reason })
        }
        Hold::List => {
            for (hold, held, entry) in place.ledger.holds() {
                let Deed::HoldPlaced { reason, .. } = &entry.deed else { continue };
                println!("{hold}  {held}  since {} by {}: {reason}", entry.at.format("%F %T"), entry.by);
            }
            return Ok(());
        }
    };
    place.ledger.add(Entry { at: Utc::now(), by, deed }, &Default::default()).await?;
    Ok(())
}

/// Erases what has been kept long enough, once or again and again.
pub async fn retain(args: Retain, config: &Config) -> anyhow::Result<()> {
    let stop = app::StopSignal::new()?;
    let mut place = Place::open(config).await?;
    let sweeps = async {
        loop {
            let swept = sweep(&mut place, config, args.as_of.unwrap_or_else(Utc::now), args.dry_run).await;
            let Some(every) = args.every else { return swept };
            // What did not go well now goes better the next time.
            if let Err(error) = swept {
                eprintln!("this sweep did not get through: {error:#}");
            }
            tokio::time::sleep(Duration::from_secs(every)).await;
        }
    };
    tokio::select! {
        swept = sweeps => swept,
        () = stop.wait() => Ok(()),
    }
}

async fn sweep(place: &mut Place, config: &Config, at: DateTime<Utc>, dry_run: bool) -> anyhow::Result<()> {
    if !dry_run {
        erase::complete_open(&place.log, &mut place.ledger, &place.region).await?;
    }
    let due = retain::due(&place.log, &place.region, &config.privacy, at).await?;
    for extent in [Extent::All, Extent::Tools] {
        let (mut found, mut held, mut busy) = (Found::default(), 0, 0);
        for due in due.iter().filter(|due| due.extent == extent) {
            let id = due.conversation;
            let one = place.found(Some(id)).await?;
            if place.ledger.hold_on(id, one.people.get(&id)).is_some() {
                held += 1;
            } else if extent == Extent::Tools && one.active.contains_key(&id) {
                // What its turn was told and asked is needed until it ends.
                busy += 1;
            } else {
                found.add(one);
            }
        }
        for (conversation, cause) in &found.closed {
            eprintln!("{conversation}: something in it can't be opened, and is erased all the same: {cause}");
        }
        let mut conversations: BTreeSet<Uuid> = found.keys.keys().copied().collect();
        let due = conversations.len() + held + busy;
        println!("{extent}: {due} conversations due, {held} of them held, {busy} with a turn that has not ended");
        while !dry_run && !conversations.is_empty() {
            let (reason, by) = ("kept long enough".to_string(), "retention".to_string());
            let order = Order { person: None, conversations: conversations.clone(), extent, reason, by };
            match place.carry_out(&found, &order).await {
                Ok(_) => break,
                // A hold was placed meanwhile: the others are due all the same.
                Err(error) => match error.downcast_ref::<LedgerError>() {
                    Some(LedgerError::Held { conversation, .. }) if conversations.remove(conversation) => {
                        println!("{conversation} is held by now");
                    }
                    _ => return Err(error),
                },
            }
        }
    }
    Ok(())
}
