//! `turnstream replay`: shows past events from the log alone.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stdout},
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{ArgGroup, Args, ValueEnum};
use indicatif::ProgressBar;
use uuid::Uuid;

use crate::{
    app,
    config::Config,
    domain::Conversation,
    history::{
        event_reader::{EventReader, ReadableEvent},
        formats::{self, ReplayPoint, SessionFilter},
        redact::Redaction,
        stream_reader::{self, StreamReader},
        timeline::Timeline,
    },
    log::jetstream_log::NatsLog,
    playback::{
        frames::{FrameReconstructor, MomentKind, PlaybackMoment},
        page,
        speed::PlaybackSpeed,
    },
};

/// Interval at which a replay with `--follow` looks for new events.
const FOLLOW_EVERY_MS: u64 = 250;

/// Show past events from the log: of a conversation, a session, an organisation, or since a point in time.
#[derive(Args)]
#[command(group(ArgGroup::new("whose").required(true).multiple(true).args(["conversation", "session", "org", "since", "turn"])))]
pub struct Replay {
    /// The conversation's id.
    conversation: Option<Uuid>,
    /// Only this session: its own events, and those of the turns it requested.
    #[arg(long, conflicts_with = "conversation")]
    session: Option<Uuid>,
    /// Only the events of this turn. Without its conversation, the whole log is searched.
    #[arg(long, conflicts_with_all = ["session", "state", "follow", "serve", "speed"])]
    turn: Option<Uuid>,
    /// Every conversation of this organisation.
    #[arg(long, conflicts_with_all = ["conversation", "session"])]
    org: Option<String>,
    #[arg(long, value_enum, default_value = "timeline")]
    format: Format,
    /// Begin at this sequence, or at this time (RFC 3339).
    #[arg(long, value_name = "SEQ|TIME")]
    since: Option<ReplayPoint>,
    /// Stop at this sequence, or at this time (RFC 3339).
    #[arg(long, value_name = "SEQ|TIME")]
    until: Option<ReplayPoint>,
    /// Print the state after the events instead of the events; for several conversations, each state under its id.
    #[arg(long, conflicts_with_all = ["follow", "session", "since", "serve", "format"])]
    state: bool,
    /// Continue with new events as they are stored.
    #[arg(long)]
    follow: bool,
    /// Playback speed of frames: `original`, `full`, or a factor [default: full; on the page, original].
    #[arg(long)]
    speed: Option<PlaybackSpeed>,
    /// Play a conversation back, as its client saw it, on a page at this loopback address.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["follow", "format"])]
    serve: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    /// A line of words for each event.
    Timeline,
    /// Each stored message as a line of JSON: sequence, time, subject, headers, payload.
    Ndjson,
    /// Each event as a CloudEvent in JSON, a line each.
    Cloudevents,
    /// The frames that a client was shown, a line each.
    Frames,
}

/// Runs `turnstream replay`.
pub async fn replay(args: Replay, config: &Config) -> anyhow::Result<()> {
    let is_of_one = args.conversation.is_some() || args.session.is_some();
    let as_frames = args.format == Format::Frames || args.serve.is_some();
    ensure!(is_of_one || !as_frames, "frames need one conversation or session: name it");
    ensure!(args.turn.is_none() || !as_frames, "--turn shows events, not frames");
    ensure!(as_frames || args.speed.is_none(), "--speed is for --format frames and --serve");
    let nats = app::connect(config, "auditor").await?;
    let log = app::log(config, &nats).await?;
    let redaction = Redaction::new(config.privacy.redact.clone());
    let mut reader = ReplayReader::open(&args, log, redaction, &config.regions.home).await?;
    let replayed = match (args.serve, args.format) {
        _ if args.state => states(&mut reader, is_of_one).await,
        (Some(address), _) => serve(&mut reader, &args, address).await,
        (None, Format::Frames) => frames(&mut reader, &args).await,
        (None, format) => events(&mut reader, format, is_of_one, &args).await,
    };
    replayed?;
    ensure!(reader.has_read, "there is {} in the region `{}`", reader.nothing, config.regions.home);
    Ok(())
}

/// Reads the events of a replay.
struct ReplayReader {
    stream_reader: StreamReader,
    event_reader: EventReader,
    bar: ProgressBar,
    since: Option<ReplayPoint>,
    until: Option<ReplayPoint>,
    follows: bool,
    has_read: bool,
    /// The subject of the error message when the replay is empty: `there is {nothing} in the region`.
    nothing: String,
}

impl ReplayReader {
    async fn open(args: &Replay, log: NatsLog, redaction: Redaction, region: &str) -> anyhow::Result<Self> {
        let conversation = match (args.conversation, args.session) {
            (None, Some(session)) => {
                let found = stream_reader::conversation_of(&log, region, session).await?;
                Some(found.with_context(|| format!("there is no session {session} in the region `{region}`"))?)
            }
            (conversation, _) => conversation,
        };
        let (mut stream_reader, nothing) = match (&args.org, conversation) {
            (Some(org), _) => (StreamReader::of_org(log.clone(), region, org), format!("no conversation of `{org}`")),
            (None, Some(id)) => (StreamReader::new(log.clone(), region, conversation), format!("no conversation {id}")),
            (None, None) => (StreamReader::new(log.clone(), region, None), "no later event".to_string()),
        };
        let nothing = match args.turn {
            Some(turn) => format!("no turn {turn}"),
            None => nothing,
        };
        // A conversation is understood only from its beginning: all its events are read, and `tells` skips the earlier ones.
        match &args.since {
            Some(ReplayPoint::Seq(seq)) if conversation.is_none() => stream_reader.begin_at(*seq),
            Some(ReplayPoint::Time(time)) if conversation.is_none() => stream_reader.begin_at_time(*time).await?,
            _ => {}
        }
        // Lines printed in between would break the bar.
        let bar = match stdout().is_terminal() && !args.state || args.follow {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(stream_reader.last().await?),
        };
        let (since, until) = (args.since.clone(), args.until.clone());
        let event_reader = EventReader::new(log, redaction);
        Ok(Self { stream_reader, event_reader, bar, since, until, follows: args.follow, has_read: false, nothing })
    }

    /// Returns the next event. `None` = there are no more for now.
    async fn next(&mut self) -> anyhow::Result<Option<ReadableEvent>> {
        let next = self.stream_reader.next().await?;
        let next = next.filter(|message| self.until.as_ref().is_none_or(|until| until.ends_with(message)));
        let Some(message) = next else {
            self.bar.finish_and_clear();
            return Ok(None);
        };
        self.has_read = true;
        self.bar.set_position(message.seq);
        Ok(Some(self.event_reader.read(message).await?))
    }

    /// Waits for more events. Returns false if the replay is over.
    async fn wait(&self) -> bool {
        if self.follows && self.until.is_none() {
            tokio::time::sleep(Duration::from_millis(FOLLOW_EVERY_MS)).await;
        }
        self.follows && self.until.is_none()
    }

    /// Returns true if an event is to be shown; earlier ones are only read.
    fn tells(&self, opened: &ReadableEvent) -> bool {
        self.since.as_ref().is_none_or(|since| since.begins_with(&opened.message))
    }
}

/// Prints events in the order of the log.
async fn events(reader: &mut ReplayReader, format: Format, is_of_one: bool, args: &Replay) -> anyhow::Result<()> {
    let mut timeline = if is_of_one { Timeline::default() } else { Timeline::of_several() };
    let (mut of_session, mut out) = (args.session.map(SessionFilter::new), stdout());
    let mut has_turn = false;
    loop {
        let Some(opened) = reader.next().await? else {
            if reader.wait().await {
                continue;
            }
            return Ok(());
        };
        let tells = reader.tells(&opened);
        let ReadableEvent { stored, message } = opened;
        let line = match format {
            Format::Ndjson => formats::raw(&message).to_string(),
            Format::Cloudevents => formats::cloud_event(&message).to_string(),
            Format::Timeline | Format::Frames => timeline.line(&stored),
        };
        let event = &stored.recorded.event;
        if args.turn.is_some_and(|turn| event.turn() != Some(turn)) {
            reader.has_read = has_turn;
            continue;
        }
        has_turn = true;
        if of_session.as_mut().is_none_or(|of| of.includes(event)) && tells {
            writeln!(out, "{line}")?;
        }
    }
}

/// Prints the states after the events.
async fn states(reader: &mut ReplayReader, is_of_one: bool) -> anyhow::Result<()> {
    let mut states: BTreeMap<Uuid, Conversation> = BTreeMap::new();
    while let Some(ReadableEvent { stored, .. }) = reader.next().await? {
        states.entry(stored.envelope.conversation).or_default().evolve(&stored.recorded);
    }
    let written = match states.values().next() {
        Some(state) if is_of_one => formats::canonical(state)?,
        _ => formats::canonical(&states)?,
    };
    if !states.is_empty() {
        writeln!(stdout(), "{written}")?;
    }
    Ok(())
}

/// Prints the frames that a client was shown.
async fn frames(reader: &mut ReplayReader, args: &Replay) -> anyhow::Result<()> {
    let mut watcher = FrameReconstructor::new(args.session);
    let (speed, mut before, mut out) = (args.speed.unwrap_or(PlaybackSpeed::Full), None, stdout());
    loop {
        let (moments, is_over) = match reader.next().await? {
            Some(opened) => {
                let moments = watcher.take(&opened.stored.recorded);
                (if reader.tells(&opened) { moments } else { vec![] }, false)
            }
            None => {
                let rest = watcher.rest();
                (rest, !reader.wait().await)
            }
        };
        for PlaybackMoment { at, what } in moments {
            let MomentKind::Frame(frame) = what else { continue };
            tokio::time::sleep(speed.between(before.replace(at), at)).await;
            out.write_all(&frame)?;
            out.write_all(b"\n")?;
        }
        if is_over {
            tell_gaps(&watcher);
            return Ok(());
        }
    }
}

/// Serves the page of a client's frames until the process is stopped.
async fn serve(reader: &mut ReplayReader, args: &Replay, address: SocketAddr) -> anyhow::Result<()> {
    if !address.ip().is_loopback() {
        bail!("the page shows the conversation without a login, so it is served on a loopback address only");
    }
    let (mut watcher, mut moments) = (FrameReconstructor::new(args.session), vec![]);
    while let Some(opened) = reader.next().await? {
        let seen = watcher.take(&opened.stored.recorded);
        moments.extend(if reader.tells(&opened) { seen } else { vec![] });
    }
    moments.extend(watcher.rest());
    if !reader.has_read {
        return Ok(());
    }
    tell_gaps(&watcher);
    let stop = app::StopSignal::new()?;
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    println!("showing the replay on http://{}", listener.local_addr()?);
    tokio::select! {
        served = page::serve(listener, moments, args.speed.unwrap_or(PlaybackSpeed::Times(1.0))) => served?,
        () = stop.wait() => {}
    }
    Ok(())
}

fn tell_gaps(watcher: &FrameReconstructor) {
    if watcher.gaps() > 0 {
        let gaps = watcher.gaps();
        eprintln!("{gaps} model calls may have been shown differently: the log lacks their frame traces");
    }
}
