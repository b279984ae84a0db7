//! Given events, when a command comes, then these events follow: `decide` and `next_step` over the fold.

use turnstream::{
    domain::{
        Command, Conversation, Event, NextStep, Refusal, Turn, TurnOutcome, decide,
        event::{CallRequested, Resolution, TurnCancelled, TurnRequested, TurnResumed, TurnStarted},
        next_step,
    },
    limits,
};

use crate::support::samples::*;

const MODEL_CALLS_MAX: u32 = 3;
const WORKER: u64 = 7;
pub const PARK: u64 = 50;

/// A conversation, event by event. Sequences have gaps, as in a stream shared with other conversations.
#[derive(Default)]
pub struct Story {
    pub state: Conversation,
}

impl Story {
    pub fn given(events: impl IntoIterator<Item = Event>) -> Self {
        let mut story = Self::default();
        for event in events {
            story.happens(event);
        }
        story
    }

    /// Returns a story in which turn 10 is requested and claimed; the epoch is the last sequence.
    pub fn claimed() -> Self {
        Self::given([opened(), requested(10)]).and_claimed()
    }

    /// Turn 10 is claimed and the model has asked for these tools.
    pub fn with_calls(calls: Vec<CallRequested>) -> Self {
        let mut story = Self::claimed();
        story.happens(replied(10, story.epoch(), calls));
        story
    }

    /// Returns a story in which turn 10 waits for a decision about the gated call `pay`.
    pub fn parked() -> Self {
        let mut story = Self::with_calls(vec![gated("pay")]);
        story.happens(parked(10, story.epoch(), "pay", PARK));
        story
    }

    pub fn and_claimed(mut self) -> Self {
        let claim = claim(self.turn().item, self.turn().epoch);
        self.does(&claim);
        self
    }

    /// Appends the event to the log and returns its sequence.
    pub fn happens(&mut self, event: Event) -> u64 {
        let seq = self.state.last_seq + 3;
        self.state.evolve(&recorded(seq, event));
        seq
    }

    pub fn when(&self, command: &Command) -> Result<Event, Refusal> {
        decide(&self.state, command)
    }

    /// Decides the command, which must be accepted, and appends its event.
    pub fn does(&mut self, command: &Command) -> Event {
        let event = self.when(command).unwrap();
        self.happens(event.clone());
        event
    }

    pub fn turn(&self) -> &Turn {
        self.state.turn.as_ref().unwrap()
    }

    pub fn epoch(&self) -> u64 {
        self.turn().epoch.unwrap()
    }

    pub fn step(&self) -> NextStep {
        next_step(self.turn(), MODEL_CALLS_MAX)
    }

    fn outcome(&self, turn: u64) -> Option<TurnOutcome> {
        self.state.finished_turn(id(turn)).map(|turn| turn.outcome)
    }
}

pub fn ask(turn: u64) -> Command {
    Command::Request(request(turn))
}

pub fn claim(item: u64, over: Option<u64>) -> Command {
    Command::Claim { item, worker: id(WORKER), over }
}

fn cancel(turn: u64) -> Command {
    Command::Cancel { turn: id(turn), by: id(3) }
}

pub fn record(turn: u64, epoch: u64, event: Event) -> Command {
    Command::Record { turn: id(turn), epoch, event }
}

fn confirm(park: u64, approved: bool) -> Command {
    Command::Confirm { park: id(park), approved, by: id(3) }
}

fn expire(park: u64) -> Command {
    Command::Expire { park: id(park) }
}

/// Returns every command about turn 10, as given by a sender who saw the turn with this item and epoch.
fn commands_about_the_turn(story: &Story, item: u64, epoch: u64) -> [(&'static str, Command); 9] {
    let turn = story.state.turn.as_ref();
    let over = turn.and_then(|turn| turn.epoch);
    let since = turn.map(|turn| turn.progress_at).unwrap_or_default();
    [
        ("claim", claim(item, over)),
        ("record", record(10, epoch, completed(10, epoch, "Hello"))),
        ("approve", confirm(PARK, true)),
        ("decline", confirm(PARK, false)),
        ("expire", expire(PARK)),
        ("cancel", cancel(10)),
        ("supersede", Command::Supersede { park: id(PARK), by: id(4) }),
        ("abandon", Command::Abandon { turn: id(10), since }),
        ("end", Command::End { turn: id(10) }),
    ]
}

/// Returns the names of the commands that a state accepts.
fn accepted(story: &Story, item: u64, epoch: u64) -> Vec<&'static str> {
    let commands = commands_about_the_turn(story, item, epoch);
    commands.iter().filter(|(_, command)| story.when(command).is_ok()).map(|(name, _)| *name).collect()
}

#[test]
fn each_state_accepts_its_commands_and_no_others() {
    let empty = Story::default();
    assert_eq!(accepted(&empty, 6, 9), [""; 0]);
    let open = Story::given([opened()]);
    assert_eq!(accepted(&open, 6, 9), [""; 0]);
    let requested = Story::given([opened(), requested(10)]);
    assert_eq!(accepted(&requested, 6, 9), ["claim", "cancel", "abandon", "end"]);
    let claimed = Story::claimed();
    assert_eq!((claimed.turn().item, claimed.epoch()), (6, 9));
    assert_eq!(accepted(&claimed, 6, 9), ["claim", "record", "cancel", "abandon", "end"]);
    assert_eq!(accepted(&Story::parked(), 6, 9), ["approve", "decline", "expire", "cancel", "supersede", "end"]);
    let mut resumed = Story::parked();
    resumed.does(&confirm(PARK, true));
    assert_eq!(accepted(&resumed, resumed.turn().item, 9), ["claim", "cancel", "abandon", "end"]);
    assert_eq!(accepted(&resumed, 6, 9), ["cancel", "abandon", "end"]);
    for end in [completed(10, 9, "Hello"), failed(10, 9)] {
        let mut ended = Story::claimed();
        ended.happens(end);
        assert_eq!(accepted(&ended, 6, 9), [""; 0]);
    }
}

#[test]
fn refusals_name_the_reason() {
    let ended = Story::given([opened()]);
    let names = ["claim", "record", "approve", "decline", "expire", "cancel", "supersede", "abandon", "end"];
    let reasons = [
        Refusal::Superseded,
        Refusal::Superseded,
        Refusal::NotPending,
        Refusal::NotPending,
        Refusal::NotPending,
        Refusal::NoTurn,
        Refusal::NoTurn,
        Refusal::NoTurn,
        Refusal::NoTurn,
    ];
    for (((name, command), expected), reason) in commands_about_the_turn(&ended, 6, 9).iter().zip(names).zip(reasons) {
        assert_eq!(*name, expected);
        assert_eq!(ended.when(command), Err(reason), "{name}");
    }
}

#[test]
fn a_session_can_be_opened_in_every_state() {
    for story in [Story::default(), Story::given([opened()]), Story::claimed(), Story::parked()] {
        assert_eq!(story.when(&Command::Open(session())), Ok(opened()));
    }
}

#[test]
fn a_session_without_declarations_keeps_the_previous_ones() {
    use turnstream::domain::event::SessionOpened;
    let declares = |list: &[&str]| {
        let supports = Some(list.iter().map(|name| name.to_string()).collect());
        Event::SessionOpened(SessionOpened { supports, ..session() })
    };
    let mut story = Story::given([declares(&["cards"]), opened()]);
    assert_eq!(story.state.supports, ["cards"]);
    story.happens(declares(&[]));
    assert_eq!(story.state.supports, [""; 0]);
}

#[test]
fn a_conversation_is_named_by_a_person_or_its_first_words() {
    let rename = |title: &str| Command::Rename { title: title.into(), by: Some(id(3)) };
    let entitle = || Command::SetTitle { title: "By a model".into() };
    let mut story = Story::default();
    assert_eq!(story.when(&rename("Nothing")), Err(Refusal::NoConversation));
    assert_eq!(story.when(&entitle()), Err(Refusal::NoConversation));
    story.happens(opened());
    assert_eq!((story.state.shown_title(), story.state.message_count), ("Untitled", 0));
    story.happens(Event::TurnRequested(TurnRequested { message: " \n".into(), ..request(10) }));
    story.does(&cancel(10));
    assert_eq!(story.state.shown_title(), "Untitled", "a picture has no words");
    story.happens(requested(11));
    story.does(&cancel(11));
    story.happens(requested(12));
    assert_eq!((story.state.shown_title(), story.state.message_count), ("question 11", 3));
    story.does(&entitle());
    assert_eq!(story.state.shown_title(), "By a model");
    assert_eq!(story.when(&entitle()), Err(Refusal::AlreadyNamed));
    for title in ["Mine", "Mine again"] {
        story.does(&rename(title));
        assert_eq!(story.state.shown_title(), title);
    }
    assert_eq!(story.state.updated_at, Some(second(story.state.messages.back().unwrap().seq)), "a rename is no update");
    assert_eq!(story.state.created_at, Some(second(3)));
}

#[test]
fn a_turn_from_question_to_answer() {
    let mut story = Story::given([opened()]);
    assert_eq!(story.does(&ask(10)), requested(10));
    assert_eq!((story.turn().item, story.turn().epoch, story.step()), (6, None, NextStep::CallModel));
    let started = TurnStarted { turn: id(10), worker: id(WORKER), item: 6 };
    assert_eq!(story.does(&claim(6, None)), Event::TurnStarted(started));
    assert_eq!((story.epoch(), story.step()), (9, NextStep::CallModel));
    story.does(&record(10, 9, completed(10, 9, "Hello")));
    assert_eq!(story.state.turn, None);
    let finished = story.state.finished_turn(id(10)).unwrap();
    assert_eq!((finished.request_id.as_str(), finished.terminal_seq), ("request-10", 12));
    assert_eq!(finished.outcome, TurnOutcome::Completed);
    let texts: Vec<_> = story.state.messages.iter().map(|message| (message.seq, message.text())).collect();
    assert_eq!(texts, [(6, "question 10".to_string()), (12, "Hello".to_string())]);
}

#[test]
fn the_same_request_is_the_same_turn_while_it_runs_and_after() {
    for story in [Story::given([opened(), requested(10)]), Story::claimed(), Story::parked()] {
        assert_eq!(story.when(&ask(10)), Err(Refusal::AlreadyActive));
    }
    for end in [completed(10, 9, "Hello"), failed(10, 9), story_cancelled()] {
        let mut story = Story::claimed();
        story.happens(end);
        assert_eq!(story.when(&ask(10)), Err(Refusal::AlreadyFinished));
        story.does(&ask(11));
        // Not `TurnInProgress`: the client is to be shown the end of its own turn.
        assert_eq!(story.when(&ask(10)), Err(Refusal::AlreadyFinished));
    }
}

fn story_cancelled() -> Event {
    Story::claimed().when(&cancel(10)).unwrap()
}

#[test]
fn a_cancel_ends_its_turn_in_every_state_and_no_other() {
    for mut story in [Story::given([opened(), requested(10)]), Story::claimed(), Story::parked()] {
        assert_eq!(story.when(&cancel(11)), Err(Refusal::NoTurn));
        let cancelled =
            TurnCancelled { turn: id(10), request_id: "request-10".into(), by: id(3), reason: None, not_after: None };
        assert_eq!(story.does(&cancel(10)), Event::TurnCancelled(cancelled));
        assert_eq!(story.outcome(10), Some(TurnOutcome::Cancelled));
        story.does(&ask(11));
        assert_eq!(story.when(&cancel(10)), Err(Refusal::NoTurn), "a late cancel must not hit the next turn");
    }
}

#[test]
fn a_new_claim_fences_the_old_one() {
    let mut story = Story::claimed();
    let old = story.epoch();
    story = story.and_claimed();
    let new = story.epoch();
    assert!(new > old);
    assert_eq!(story.when(&record(10, old, completed(10, old, "late"))), Err(Refusal::Superseded));
    assert!(story.when(&record(10, new, completed(10, new, "Hello"))).is_ok());
}

#[test]
fn after_a_resume_only_its_own_item_drives_the_turn() {
    let mut story = Story::parked();
    let (old_item, old_epoch) = (story.turn().item, story.epoch());
    let resumed = TurnResumed {
        turn: id(10),
        park: id(PARK),
        resolution: Resolution::Approved,
        values: None,
        by: Some(id(3)),
        pool: POOL.into(),
        not_after: None,
    };
    assert_eq!(story.does(&confirm(PARK, true)), Event::TurnResumed(resumed));
    assert_eq!((story.turn().item, story.turn().epoch), (story.state.last_seq, None));
    let stale = claim(old_item, None);
    assert_eq!(story.when(&stale), Err(Refusal::Superseded));
    let late = record(10, old_epoch, completed(10, old_epoch, "late"));
    assert_eq!(story.when(&late), Err(Refusal::Superseded));
}

#[test]
fn a_decision_binds_to_its_park() {
    let mut story = Story::with_calls(vec![gated("pay"), gated("refund")]);
    story.happens(parked(10, story.epoch(), "pay", PARK));
    assert_eq!(story.when(&confirm(PARK + 1, true)), Err(Refusal::NotPending));
    story.does(&confirm(PARK, true));
    assert_eq!(story.when(&confirm(PARK, false)), Err(Refusal::NotPending), "decided once");
    let mut story = story.and_claimed();
    assert_eq!(story.step(), NextStep::CallTools(vec![gated("pay")]));
    story.happens(returned(10, story.epoch(), "pay"));
    assert_eq!(story.step(), NextStep::Park(gated("refund")));
    story.happens(parked(10, story.epoch(), "refund", PARK + 1));
    for late in [confirm(PARK, true), expire(PARK)] {
        assert_eq!(story.when(&late), Err(Refusal::NotPending), "the first park's decision is not the second's");
    }
}

#[test]
fn ungated_calls_come_before_any_approval_and_gated_ones_one_at_a_time() {
    let calls = vec![gated("pay"), call("look"), gated("refund"), idempotent("read")];
    let mut story = Story::with_calls(calls);
    let epoch = story.epoch();
    assert_eq!(story.step(), NextStep::CallTools(vec![call("look"), idempotent("read")]));
    story.happens(returned(10, epoch, "read"));
    assert_eq!(story.step(), NextStep::CallTools(vec![call("look")]));
    story.happens(returned(10, epoch, "look"));
    assert_eq!(story.step(), NextStep::Park(gated("pay")));
    story.happens(parked(10, epoch, "pay", PARK));
    assert_eq!(story.step(), NextStep::Wait);
    story.does(&confirm(PARK, false));
    let mut story = story.and_claimed();
    assert_eq!(story.step(), NextStep::StateRefused(gated("pay"), Resolution::Declined));
    story.happens(returned(10, story.epoch(), "pay"));
    assert_eq!(story.step(), NextStep::Park(gated("refund")));
    story.happens(parked(10, story.epoch(), "refund", PARK + 1));
    let resumed = story.does(&expire(PARK + 1));
    assert!(matches!(resumed, Event::TurnResumed(TurnResumed { resolution: Resolution::Expired, by: None, .. })));
    let mut story = story.and_claimed();
    assert_eq!(story.step(), NextStep::StateRefused(gated("refund"), Resolution::Expired));
    story.happens(returned(10, story.epoch(), "refund"));
    assert_eq!(story.step(), NextStep::CallModel);
}

#[test]
fn results_stand_in_the_models_order() {
    let mut story = Story::with_calls(vec![call("a"), call("b")]);
    story.happens(returned(10, story.epoch(), "b"));
    story.happens(returned(10, story.epoch(), "a"));
    let texts: Vec<_> =
        story.turn().replies[0].calls.iter().map(|call| call.result.as_ref().unwrap().text.as_str()).collect();
    assert_eq!(texts, ["result of a", "result of b"]);
}

#[test]
fn a_crash_between_intent_and_result() {
    let approved = |request: CallRequested| {
        let mut story = Story::with_calls(vec![request.clone()]);
        story.happens(parked(10, story.epoch(), &request.id, PARK));
        story.does(&confirm(PARK, true));
        story.and_claimed()
    };
    let safe = CallRequested { confirm: true, ..idempotent("read") };
    let cases = [
        (Story::with_calls(vec![idempotent("read")]), idempotent("read"), true),
        (Story::with_calls(vec![call("send")]), call("send"), false),
        (approved(safe.clone()), safe, true),
        (approved(gated("pay")), gated("pay"), false),
    ];
    for (mut story, request, again) in cases {
        assert_eq!(story.step(), NextStep::CallTools(vec![request.clone()]), "not called yet");
        story.happens(called(10, story.epoch(), &request.id));
        let mut story = story.and_claimed();
        let expected =
            if again { NextStep::CallTools(vec![request.clone()]) } else { NextStep::StateUnknown(request.clone()) };
        assert_eq!(story.step(), expected);
        story.happens(returned(10, story.epoch(), &request.id));
        assert_eq!(story.step(), NextStep::CallModel);
    }
}

#[test]
fn an_unknown_outcome_is_stated_before_any_call() {
    let mut story = Story::with_calls(vec![idempotent("read"), call("send"), call("post")]);
    story.happens(called(10, story.epoch(), "send"));
    let mut story = story.and_claimed();
    assert_eq!(story.step(), NextStep::StateUnknown(call("send")));
    story.happens(returned(10, story.epoch(), "send"));
    assert_eq!(story.step(), NextStep::CallTools(vec![idempotent("read"), call("post")]));
}

#[test]
fn the_model_is_asked_as_often_as_allowed() {
    let mut story = Story::claimed();
    let epoch = story.epoch();
    for n in 0..MODEL_CALLS_MAX {
        assert_eq!((story.turn().model_calls(), story.step()), (n, NextStep::CallModel));
        let name = format!("call-{n}");
        story.happens(replied(10, epoch, vec![call(&name)]));
        assert_eq!(story.step(), NextStep::CallTools(vec![call(&name)]), "tools of the last reply are still called");
        story.happens(returned(10, epoch, &name));
    }
    assert_eq!(story.step(), NextStep::EndAtCap);
}

#[test]
fn a_turn_claimed_too_often_is_given_up() {
    let mut story = Story::given([opened(), requested(10)]);
    for _ in 0..limits::CLAIMS_MAX {
        story = story.and_claimed();
        assert_eq!(story.step(), NextStep::CallModel);
    }
    assert_eq!(story.and_claimed().step(), NextStep::GiveUp);
}

#[test]
fn progress_resets_the_count_of_claims() {
    let worn_out = |mut story: Story| {
        for _ in 0..limits::CLAIMS_MAX {
            story = story.and_claimed();
        }
        story
    };
    let mut story = worn_out(Story::given([opened(), requested(10)]));
    story.happens(replied(10, story.epoch(), vec![call("look"), gated("pay")]));
    let mut story = worn_out(story);
    assert_eq!(story.step(), NextStep::CallTools(vec![call("look")]));
    story.happens(returned(10, story.epoch(), "look"));
    let mut story = worn_out(story);
    story.happens(parked(10, story.epoch(), "pay", PARK));
    story.does(&confirm(PARK, true));
    let story = worn_out(story);
    assert_eq!(story.step(), NextStep::CallTools(vec![gated("pay")]));
    assert_eq!(story.and_claimed().step(), NextStep::GiveUp);
}

#[test]
fn a_claim_that_was_given_back_does_not_count() {
    let mut story = Story::given([opened(), requested(10)]);
    for _ in 0..2 * limits::CLAIMS_MAX {
        story = story.and_claimed();
        story.happens(released(10, story.epoch()));
        assert_eq!((story.turn().epoch, story.turn().claims), (None, 0));
    }
    let mut story = story.and_claimed();
    assert_eq!(story.step(), NextStep::CallModel);

    // Progress resets the count, so there is nothing to forgive; a release takes back one claim, and earlier ones still count.
    story.happens(replied(10, story.epoch(), vec![call("look")]));
    story.happens(released(10, story.epoch()));
    let mut story = story.and_claimed().and_claimed();
    story.happens(released(10, story.epoch()));
    assert_eq!(story.turn().claims, 1);
}

#[test]
fn a_worker_that_gave_its_turn_back_is_fenced() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    let epoch = story.epoch();
    story.happens(released(10, epoch));
    let record = Command::Record { turn: id(10), epoch, event: completed(10, epoch, "too late") };
    assert_eq!(decide(&story.state, &record), Err(Refusal::Superseded));
    let before = story.state.turn.clone();
    story.happens(released(10, epoch));
    story.happens(replied(10, epoch, vec![call("look")]));
    assert_eq!(story.state.turn, before);
}

#[test]
fn tool_activity_is_counted_as_it_is_shown() {
    let mut story = Story::with_calls(vec![call("look"), gated("pay")]);
    let mut counts = vec![story.turn().activity()];
    let mut happens = |story: &mut Story, event| {
        story.happens(event);
        counts.push(story.turn().activity());
    };
    let epoch = story.epoch();
    happens(&mut story, called(10, epoch, "look"));
    happens(&mut story, returned(10, epoch, "look"));
    happens(&mut story, parked(10, epoch, "pay", PARK));
    story.does(&confirm(PARK, true));
    let mut story = story.and_claimed();
    let epoch = story.epoch();
    // The parked call's activity was counted with its prompt.
    happens(&mut story, called(10, epoch, "pay"));
    happens(&mut story, returned(10, epoch, "pay"));
    assert_eq!(counts, [0, 1, 2, 3, 3, 4]);
}
