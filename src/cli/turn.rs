//! `turnstream end-turn`: ends a stuck turn.

use anyhow::{Context, bail};
use chrono::Utc;
use clap::Args;
use uuid::Uuid;

use crate::{
    app,
    config::Config,
    domain::Command,
    history::chain_reader,
    ids,
    live::relay::publish_terminal,
    log::conversations::{Conversations, EventAuthor, Freshness},
    nats::connection::soon,
    subjects,
    wire::render::render,
};

/// End a conversation's current turn, in any state, so that its visitor can go on.
///
/// For a turn without an end that will ever be in the log: its worker's events can't be read, or a person's answer is lost. A
/// running turn is stopped, too. Needs the permissions of an edge.
#[derive(Args)]
pub struct EndTurn {
    /// The conversation's id.
    conversation: Uuid,
    /// Only if the current turn is this one.
    #[arg(long)]
    turn: Option<Uuid>,
}

/// Ends the turn, and notifies the clients and the worker.
pub async fn end_turn(args: EndTurn, config: &Config) -> anyhow::Result<()> {
    let nats = app::connect(config, "edge").await?;
    let log = app::log(config, &nats).await?;
    let region = &config.regions.home;
    let key = chain_reader::find(&log, region, args.conversation).await?;
    let key =
        key.with_context(|| format!("there is no conversation {} in the region `{region}`", args.conversation))?;
    let conversations = Conversations::over_nats(log);
    let state = conversations.load(&key, Freshness::Leader).await?;
    let Some(turn) = state.turn.clone() else { bail!("the conversation has no active turn") };
    let id = turn.request.turn;
    if args.turn.is_some_and(|wanted| wanted != id) {
        bail!("another turn is active: {id}");
    }
    let (source, event_id) = (format!("turnstream/{region}/operator"), ids::event_id(ids::new_random(), 0));
    let author = EventAuthor { source, event_id, not_after: None };
    let executed = conversations.execute(&key, state, &Command::End { turn: id }, &author).await?;
    if let Err(error) = soon(nats.client.publish(subjects::stop(region, key.conversation), "".into())).await {
        eprintln!("the stop hint was not sent; the worker notices at its next read of the log: {error}");
    }
    for (_, frame) in render(&turn.request.request_id, false, &executed.recorded.event, Utc::now()) {
        publish_terminal(&nats.client, &key, turn.request.session, id, frame).await;
    }
    soon(nats.client.flush()).await.map_err(anyhow::Error::msg)?;
    println!("turn {id} has ended");
    Ok(())
}
