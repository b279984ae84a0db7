//! The log in the model: the contract of `log::EventLog` as a persistent list, with the real fold at every event.
//!
//! A log is shared by all states that hold it and made once, so `decide`'s event is folded by the real `evolve` and
//! judged by [`Facts`] once for every distinct log, not once for every state. [`Deciding`] is `Conversations::execute`
//! over `NatsLog::append`, with every request to the log a step of its own.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, LazyLock, Mutex},
};

use turnstream::domain::{Command, Conversation, Digest, Event, RecordedEvent, Refusal, decide};

use crate::{
    facts::Facts,
    invariants::{Broken, Invariant},
    mutation::Mutation,
    words::{self, Seq, TurnNo, Word},
};

/// The id of an event, kept over the retries of its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// A request's: the turn's own id, so that a client's retry on another edge has the same one.
    Request(TurnNo),
    /// Another command of a person: a nonce.
    Deed(u8),
    /// The n-th firing of a deadline.
    Due(Seq, u8),
    /// A worker's decision: a nonce for each delivery, and a count.
    Run { item: Seq, delivery: u8, decision: u8 },
}

/// An event on its way to the log, decided on the fold of the log up to `at`, which is the expected sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pending {
    pub at: Seq,
    pub id: Id,
    pub word: Word,
}

struct Node {
    hash: u64,
    before: Log,
    pending: Pending,
    recorded: RecordedEvent,
    fold: Conversation,
    facts: Facts,
    broken: Broken,
}

/// The conversation's log.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Node>>);

static EMPTY: LazyLock<(Conversation, Facts)> = LazyLock::new(Default::default);

impl Log {
    pub fn last(&self) -> Seq {
        self.0.as_ref().map_or(0, |node| node.recorded.seq)
    }

    /// The fold of the whole log.
    pub fn fold(&self) -> &Conversation {
        self.0.as_ref().map_or(&EMPTY.0, |node| &node.fold)
    }

    pub fn facts(&self) -> &Facts {
        self.0.as_ref().map_or(&EMPTY.1, |node| &node.facts)
    }

    pub fn broken(&self) -> Broken {
        self.0.as_ref().map_or(Broken::default(), |node| node.broken)
    }

    /// The words of the log's writers, newest first.
    pub fn words(&self) -> impl Iterator<Item = Word> {
        self.prefixes().filter_map(|log| log.0.as_ref()).map(|node| node.pending.word)
    }

    /// The last event.
    pub fn last_recorded(&self) -> Option<&RecordedEvent> {
        self.0.as_ref().map(|node| &node.recorded)
    }

    /// The log up to an event.
    pub fn at(&self, seq: Seq) -> &Log {
        let mut log = self;
        while let Some(node) = log.0.as_ref().filter(|node| node.recorded.seq > seq) {
            log = &node.before;
        }
        log
    }

    /// Every prefix, longest first.
    pub fn prefixes(&self) -> impl Iterator<Item = &Log> {
        std::iter::successors(Some(self), |log| log.0.as_ref().map(|node| &node.before))
    }

    /// Finds the event with this id; returns its expected sequence and its own.
    fn find(&self, id: Id) -> Option<(Seq, Seq)> {
        let pending = |log: &Log| log.0.as_ref().map(|node| node.pending).filter(|pending| pending.id == id);
        self.prefixes().find_map(|log| pending(log).map(|pending| (pending.at, log.last())))
    }

    fn hash(&self) -> u64 {
        self.0.as_ref().map_or(0, |node| node.hash)
    }
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Log {}

impl Hash for Log {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash());
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<_> = self.prefixes().filter_map(|log| log.0.as_ref()).map(|node| node.pending).collect();
        words.reverse();
        f.debug_list().entries(words).finish()
    }
}

/// The log's server.
pub struct Server {
    /// Events are deduplicated by their ids; false = the dedupe window is over.
    pub window: bool,
    pub mutation: Option<Mutation>,
    made: Mutex<HashMap<u64, Log>>,
}

enum Verdict {
    Stored,
    Duplicate,
    Conflict,
}

impl Server {
    pub fn new(window: bool, mutation: Option<Mutation>) -> Self {
        Self { window, mutation, made: Mutex::default() }
    }

    /// The number of distinct logs that were made.
    pub fn logs(&self) -> usize {
        self.made.lock().expect("no panic happens under this lock").len()
    }

    /// A request to append arrives.
    fn offer(&self, log: &mut Log, pending: Pending, hour: u8) -> Verdict {
        if self.window && log.find(pending.id).is_some() {
            return Verdict::Duplicate;
        }
        if pending.at != log.last() && self.mutation != Some(Mutation::ExpectedIgnored) {
            return Verdict::Conflict;
        }
        *log = self.extended(log, pending, hour);
        Verdict::Stored
    }

    /// A request arrives after its sender has stopped waiting.
    pub fn land(&self, log: &mut Log, pending: Pending, hour: u8) {
        let _ = self.offer(log, pending, hour);
    }

    fn extended(&self, log: &Log, pending: Pending, hour: u8) -> Log {
        let mut hasher = DefaultHasher::new();
        (log.hash(), pending, hour).hash(&mut hasher);
        let hash = hasher.finish();
        let mut made = self.made.lock().expect("no panic happens under this lock");
        made.entry(hash).or_insert_with(|| Log(Some(Arc::new(node(log, pending, hour, hash))))).clone()
    }
}

/// The next event of a log, folded and judged.
fn node(before: &Log, pending: Pending, hour: u8, hash: u64) -> Node {
    let seq = before.last() + 1;
    let event = decided(before.at(pending.at).fold(), pending.word).expect("only decided events are appended");
    let recorded =
        RecordedEvent { seq, time: words::time(hour), stored_at: words::time(hour), digest: Digest::default(), event };
    let mut fold = before.fold().clone();
    fold.evolve(&recorded);
    let mut broken = before.broken();
    if pending.at != before.last() {
        broken.note(Invariant::OneChain);
    }
    if let Word::Confirm { park, seen, .. } = pending.word
        && park != seen
    {
        broken.note(Invariant::DecisionsBind);
    }
    if from_cache(before.fold(), &recorded) != fold {
        broken.note(Invariant::FoldsAgree);
    }
    let mut facts = before.facts().clone();
    facts.take(&recorded, &mut broken);
    if !facts.agree_with(&fold) {
        broken.note(Invariant::FoldsAgree);
    }
    Node { hash, before: before.clone(), pending, recorded, fold, facts, broken }
}

/// The fold of a process that has read the prefix from the bucket of snapshots.
fn from_cache(prefix: &Conversation, recorded: &RecordedEvent) -> Conversation {
    let form = serde_json::to_vec(prefix).expect("a fold is JSON");
    let mut fold: Conversation = serde_json::from_slice(&form).expect("a fold is read as it was written");
    fold.evolve(recorded);
    fold
}

/// The core's decision; for the mutation that skips `decide`, a worker's undecided record is the event itself.
fn decided(state: &Conversation, word: Word) -> Result<Event, Refusal> {
    let command = word.command(state);
    match (decide(state, &command), command) {
        (Err(_), Command::Record { event, .. }) => Ok(event),
        (result, _) => result,
    }
}

/// A command on its way into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deciding {
    pub pending: Pending,
    /// An earlier attempt was not answered.
    pub tried: bool,
    duplicate: bool,
}

/// The way in which a command ended without an event.
pub enum Stop {
    Refused,
    /// Repeatedly a duplicate: the answer is that storage is busy.
    Contended,
}

impl Deciding {
    /// Decides on the log up to `at`; a refusal is confirmed on all of it.
    pub fn start(log: &Log, at: Seq, id: Id, word: Word) -> Result<Self, Stop> {
        let on = |at: Seq| {
            let state = log.at(at).fold();
            decide(state, &word.command(state)).map(|_| Pending { at, id, word })
        };
        let pending = on(at).or_else(|_| on(log.last())).map_err(|_| Stop::Refused)?;
        Ok(Self { pending, tried: false, duplicate: false })
    }

    /// An attempt that is answered. `None`: the command was decided again on the new state.
    pub fn append(&mut self, server: &Server, log: &mut Log, hour: u8) -> Option<Result<Seq, Stop>> {
        let expected = self.pending.at;
        let own = |prev: Seq| prev == expected || server.mutation == Some(Mutation::TwinTaken);
        match server.offer(log, self.pending, hour) {
            Verdict::Stored => Some(Ok(log.last())),
            Verdict::Conflict if !self.tried => self.again(server, log),
            verdict => match log.find(self.pending.id).filter(|(prev, _)| self.tried && own(*prev)) {
                Some((_, seq)) => Some(Ok(seq)),
                None if matches!(verdict, Verdict::Duplicate) && self.duplicate => Some(Err(Stop::Contended)),
                None => {
                    self.duplicate |= matches!(verdict, Verdict::Duplicate);
                    self.again(server, log)
                }
            },
        }
    }

    fn again(&mut self, server: &Server, log: &Log) -> Option<Result<Seq, Stop>> {
        let mut word = self.pending.word;
        match (server.mutation, &mut word) {
            (Some(Mutation::ConfirmRebinds), Word::Confirm { park, .. }) => {
                *park = log.facts().pending_park().unwrap_or(*park);
            }
            (Some(Mutation::ClaimUnchecked), Word::Record { .. }) => {
                self.pending.at = log.last();
                return None;
            }
            _ => {}
        }
        let state = log.fold();
        match decide(state, &word.command(state)) {
            Ok(_) => {
                self.pending = Pending { at: log.last(), word, ..self.pending };
                self.tried = false;
                None
            }
            Err(_) => Some(Err(Stop::Refused)),
        }
    }
}
