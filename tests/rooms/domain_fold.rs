//! The fold: the state that it keeps, the state that it drops, and the events that it ignores.

use turnstream::{
    domain::{
        Command, Conversation, Digest, Event, NextStep, RecordedEvent, Refusal, TurnOutcome,
        conversation::MessageBody,
        decide,
        event::{
            AttachmentContent, Citation, Ending, Image, ModelReplied, ReplyEnd, Resolution, ToolReturned,
            TurnCancelled, TurnCompleted, TurnReleased, TurnRequested, TurnResumed, TurnStarted, Usage,
        },
        frame_trace::{FrameKind, FrameRecorder, FrameTrace},
    },
    limits,
};

use crate::{
    domain::{PARK, Story, ask, claim, record},
    support::samples::*,
};

/// Returns a conversation with `turns` finished turns of the given messages.
fn with_turns(turns: u64, question: &str, answer: &str) -> Story {
    let mut story = Story::given([opened()]);
    for n in 1..=turns {
        story.happens(Event::TurnRequested(TurnRequested { message: question.into(), ..request(n) }));
        story = story.and_claimed();
        let epoch = story.state.last_seq;
        story.happens(completed(n, epoch, answer));
    }
    story
}

#[test]
fn a_request_stored_too_late_is_void() {
    let late = |stored_after: i64| {
        let request = TurnRequested { not_after: second(100), ..request(10) };
        let stored_at = second(100) + chrono::TimeDelta::microseconds(stored_after);
        let mut state = Conversation::default();
        state.evolve(&RecordedEvent {
            seq: 4,
            time: second(90),
            stored_at,
            digest: Digest::default(),
            event: Event::TurnRequested(request),
        });
        state
    };
    assert!(late(0).turn.is_some());
    let void = late(1);
    assert_eq!(void, Conversation { last_seq: 4, ..Conversation::default() });
}

#[test]
fn the_fold_keeps_the_newest_messages_and_the_places_of_older_ones() {
    let turns = limits::FOLD_MESSAGES as u64;
    let state = with_turns(turns, "q", "a").state;
    assert_eq!(state.messages.len(), limits::FOLD_MESSAGES);
    assert_eq!(state.older.len(), limits::FOLD_MESSAGES);
    let places: Vec<u64> = state.older.iter().copied().chain(state.messages.iter().map(|m| m.seq)).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "oldest first, without duplicates: {places:?}");
    // A turn is three events, the first and last of which hold messages; sequences advance by three.
    let expected: Vec<u64> = (0..turns).flat_map(|n| [6 + 9 * n, 12 + 9 * n]).collect();
    assert_eq!(places, expected);
}

#[test]
fn long_messages_leave_the_fold_sooner() {
    let text = "x".repeat(limits::FOLD_TEXT_MAX_BYTES / 4);
    let state = with_turns(4, &text, &text).state;
    assert_eq!((state.messages.len(), state.older.len()), (4, 4));
    let mut story = Story { state };
    story.happens(Event::TurnRequested(TurnRequested { message: "one byte too many".into(), ..request(99) }));
    assert_eq!((story.state.messages.len(), story.state.older.len()), (4, 5));
}

#[test]
fn the_last_message_stays_at_any_length() {
    let state = with_turns(1, "q", &"x".repeat(limits::FOLD_TEXT_MAX_BYTES + 1)).state;
    assert_eq!(state.messages.len(), 1);
    assert!(matches!(&state.messages[0].body, MessageBody::Agent(_)));
}

#[test]
fn the_places_of_older_messages_are_bounded() {
    let mut story = with_turns(limits::FOLD_MESSAGES as u64, "q", "a");
    story.state.older = (1..=limits::FOLD_OLDER as u64).collect();
    let oldest_kept = story.state.messages[0].seq;
    story.happens(requested(99));
    assert_eq!(story.state.older.len(), limits::FOLD_OLDER);
    assert_eq!((story.state.older.front(), story.state.older.back()), (Some(&2), Some(&oldest_kept)));
}

#[test]
fn the_requests_of_finished_turns_are_remembered_for_a_while() {
    let turns = limits::FOLD_REQUESTS as u64 + 1;
    let state = with_turns(turns, "q", "a").state;
    assert_eq!(state.finished.len(), limits::FOLD_REQUESTS);
    assert_eq!(state.finished_turn(id(1)), None);
    assert!((2..=turns).all(|n| state.finished_turn(id(n)).is_some()));
}

#[test]
fn usage_and_documents_add_up_over_a_turn() {
    let document =
        |name: &str| Citation { id: name.into(), title: name.into(), url: None, snippet: "text".into(), score: 0.5 };
    let spent =
        |tokens, cost_usd| Some(Usage { prompt_tokens: tokens, completion_tokens: 1, cost_usd, ..Usage::default() });
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    let epoch = story.state.last_seq;
    for (usage, grounding) in [(spent(10, None), "a"), (None, "b"), (spent(5, Some(0.25)), "c")] {
        let Event::TurnModelReplied(reply) = replied(10, epoch, vec![call("look")]) else { unreachable!() };
        let grounding = vec![document(grounding)];
        story.happens(Event::TurnModelReplied(ModelReplied { usage, grounding, ..reply }));
    }
    let Event::TurnToolReturned(result) = returned(10, epoch, "look") else { unreachable!() };
    story.happens(Event::TurnToolReturned(ToolReturned { grounding: vec![document("d")], ..result }));
    let turn = story.state.turn.unwrap();
    let total = Usage { prompt_tokens: 15, completion_tokens: 2, cost_usd: Some(0.25), ..Usage::default() };
    assert_eq!(turn.usage, Some(total));
    assert_eq!(turn.citations.iter().map(|c| c.id.as_str()).collect::<String>(), "abcd");
}

/// Returns every event that names turn `n`, under this epoch.
fn events_of(n: u64, epoch: u64) -> Vec<Event> {
    let resolution = Resolution::Approved;
    let resumed = TurnResumed {
        turn: id(n),
        park: id(50),
        resolution,
        values: None,
        by: None,
        pool: POOL.into(),
        not_after: None,
    };
    let started = TurnStarted { turn: id(n), worker: id(7), item: 6 };
    vec![
        Event::TurnStarted(started),
        replied(n, epoch, vec![call("look")]),
        called(n, epoch, "pay"),
        returned(n, epoch, "pay"),
        parked(n, epoch, "pay", 50),
        Event::TurnResumed(resumed),
        completed(n, epoch, "x"),
        failed(n, epoch),
    ]
}

/// Appends `event` and checks that only the last sequence changes.
fn is_ignored(before: &Conversation, event: Event) {
    let mut story = Story { state: before.clone() };
    let name = event.kind();
    let seq = story.happens(event);
    assert_eq!(story.state, Conversation { last_seq: seq, ..before.clone() }, "{name}");
}

#[test]
fn events_of_no_turn_another_turn_or_an_ended_turn_change_nothing() {
    let active = Story::given([opened(), requested(10)]).and_claimed();
    let mut ended = Story::given([opened(), requested(10)]).and_claimed();
    ended.happens(failed(10, 9));
    let ended = ended.state;
    let cases = [(Conversation::default(), 10), (active.state.clone(), 11), (ended.clone(), 10)];
    for (state, turn) in cases {
        for event in events_of(turn, 9) {
            is_ignored(&state, event);
        }
    }
    is_ignored(&active.state, requested(11));
    is_ignored(&ended, requested(10));
}

#[test]
fn events_of_a_fenced_worker_change_nothing() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    story.happens(replied(10, 9, vec![gated("pay")]));
    let state = story.and_claimed().state;
    for event in events_of(10, 9) {
        if !matches!(event, Event::TurnStarted(_)) {
            is_ignored(&state, event);
        }
    }
}

#[test]
fn a_parked_turn_has_no_worker() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    story.happens(replied(10, 9, vec![gated("pay")]));
    story.happens(parked(10, 9, "pay", 51));
    for event in events_of(10, 9) {
        is_ignored(&story.state, event);
    }
}

#[test]
fn a_claim_of_an_older_item_changes_nothing() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    story.happens(replied(10, 9, vec![gated("pay")]));
    story.happens(parked(10, 9, "pay", 50));
    story.happens(events_of(10, 9).swap_remove(5));
    assert_eq!(story.state.turn.as_ref().unwrap().item, story.state.last_seq);
    is_ignored(&story.state, Event::TurnStarted(TurnStarted { turn: id(10), worker: id(7), item: 6 }));
}

#[test]
fn a_call_has_one_result() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    story.happens(replied(10, 9, vec![call("look")]));
    story.happens(returned(10, 9, "look"));
    let Event::TurnToolReturned(result) = returned(10, 9, "look") else { unreachable!() };
    is_ignored(&story.state, Event::TurnToolReturned(ToolReturned { result: "another".into(), ..result }));
    is_ignored(&story.state, returned(10, 9, "unheard of"));
}

#[test]
#[should_panic(expected = "in the order of their chain")]
fn a_chain_is_folded_in_its_order() {
    let mut state = Conversation::default();
    state.evolve(&recorded(5, opened()));
    state.evolve(&recorded(5, opened()));
}

#[test]
fn outcomes_are_distinguished() {
    let cancelled = turnstream::domain::event::TurnCancelled {
        turn: id(10),
        request_id: "r".into(),
        by: id(3),
        reason: None,
        not_after: None,
    };
    let ends = [
        (completed(10, 9, "x"), TurnOutcome::Completed, 2),
        (failed(10, 9), TurnOutcome::Failed, 1),
        (Event::TurnCancelled(cancelled), TurnOutcome::Cancelled, 1),
    ];
    for (end, outcome, messages) in ends {
        let mut story = Story::given([opened(), requested(10)]).and_claimed();
        story.happens(end);
        assert_eq!(story.state.finished_turn(id(10)).unwrap().outcome, outcome);
        assert_eq!(story.state.messages.len(), messages);
    }
}

#[test]
fn a_folds_size_counts_its_large_parts() {
    const LARGE_BYTES: usize = 100_000;
    let large = "x".repeat(LARGE_BYTES);
    let image = Image { content: AttachmentContent::Url(large.clone()), detail: None };
    let with_image = TurnRequested { images: vec![image], ..request(10) };
    let with_text = TurnRequested { message: large.clone(), ..request(10) };
    for request in [with_image, with_text] {
        let state = Story::given([Event::TurnRequested(request)]).state;
        assert!(state.memory_bytes() > LARGE_BYTES);
    }
    let state = with_turns(1, "q", &large).state;
    assert!(state.memory_bytes() > LARGE_BYTES);
}

/// Returns the frame trace of a model call with one token.
fn shown() -> Option<FrameTrace> {
    let mut recorder = FrameRecorder::default();
    recorder.say("one ");
    recorder.frame(FrameKind::Token, "one ", second(1));
    recorder.trace("")
}

#[test]
fn a_cancelled_turns_frame_trace_is_recorded_after_its_end() {
    let mut story = Story::given([opened(), requested(10)]).and_claimed();
    let epoch = story.state.last_seq;
    let released = TurnReleased { turn: id(10), epoch, shown: shown() };
    let let_go = Command::LetGo(released.clone());
    assert_eq!(decide(&story.state, &let_go), Err(Refusal::NoTurn), "the turn is active");
    story.happens(Event::TurnCancelled(TurnCancelled {
        turn: id(10),
        request_id: "request-10".into(),
        by: id(3),
        reason: None,
        not_after: None,
    }));
    assert_eq!(decide(&story.state, &let_go), Ok(Event::TurnReleased(released)));
    // The next turn may have begun before the release is recorded.
    story.happens(requested(11));
    let story = story.and_claimed();
    let event = decide(&story.state, &let_go).unwrap();
    let mut after = story.state.clone();
    after.evolve(&recorded(story.state.last_seq + 1, event));
    let (last_seq, last_digest) = (after.last_seq, after.last_digest);
    assert_eq!(after, Conversation { last_seq, last_digest, ..story.state.clone() });

    let mut ended = Story::given([opened(), requested(10)]).and_claimed();
    ended.happens(completed(10, ended.state.last_seq, "done"));
    assert_eq!(decide(&ended.state, &let_go), Err(Refusal::NoTurn), "the turn was not cancelled");
}

#[test]
fn the_fold_keeps_no_frame_traces() {
    let with = |shown: Option<FrameTrace>| {
        let mut story = Story::given([opened(), requested(10)]).and_claimed();
        let epoch = story.state.last_seq;
        let Event::TurnModelReplied(reply) = replied(10, epoch, vec![call("look")]) else { panic!() };
        story.happens(Event::TurnModelReplied(ModelReplied { shown: shown.clone(), ..reply }));
        story.happens(called(10, epoch, "look"));
        story.happens(returned(10, epoch, "look"));
        let running = story.state.clone();
        let Event::TurnCompleted(end) = completed(10, epoch, "done") else { panic!() };
        story.happens(Event::TurnCompleted(TurnCompleted { shown, ..end }));
        (running, story.state)
    };
    assert_eq!(with(shown()), with(None));
}

#[test]
fn an_event_stored_too_late_changes_nothing() {
    let late = |event: &Event, seq| {
        let mut recorded = recorded(seq, event.clone());
        recorded.event.set_not_after(recorded.stored_at - chrono::Duration::milliseconds(1));
        recorded
    };
    let mut story = Story::parked();
    let before = story.state.clone();
    let acts = [
        opened(),
        Event::ConversationRenamed(turnstream::domain::event::ConversationRenamed {
            title: "Late".into(),
            by: Some(id(3)),
            not_after: None,
        }),
        story.when(&Command::Confirm { park: id(PARK), approved: true, by: id(3) }).unwrap(),
        story.when(&Command::Cancel { turn: id(10), by: id(3) }).unwrap(),
        story.when(&Command::Supersede { park: id(PARK), by: id(4) }).unwrap(),
    ];
    for act in acts {
        let recorded = late(&act, story.state.last_seq + 1);
        story.state.evolve(&recorded);
        let there = Conversation { last_seq: recorded.seq, last_digest: recorded.digest, ..before.clone() };
        assert_eq!(story.state, there, "{act:?}");
    }
    let mut nothing = Conversation::default();
    nothing.evolve(&late(&opened(), 1));
    assert!(!nothing.exists());
}

#[test]
fn progress_is_a_step_or_the_end_of_a_wait() {
    let mut story = Story::parked();
    let called = story.turn().progress_at;
    assert_eq!(called, recorded(story.epoch() + 3, opened()).time, "progress is the model's reply, not the park");
    story.does(&Command::Confirm { park: id(PARK), approved: true, by: id(3) });
    let resumed = story.turn().progress_at;
    assert!(resumed > called);
    let story = story.and_claimed();
    assert_eq!(story.turn().progress_at, resumed, "a claim is no progress");
}

#[test]
fn a_proof_for_an_erased_contact_counts_no_more() {
    use turnstream::domain::event::{IdentificationMethod, SessionIdentified, kind};
    let mut story = Story::claimed();
    let mut sent = match returned(10, story.epoch(), "pay") {
        Event::TurnToolReturned(returned) => returned,
        _ => unreachable!(),
    };
    sent.otp = serde_json::from_value(serde_json::json!({
        "description": "pay", "channels": ["email"], "sent": { "channel": "email", "maskedDestination": "a***" },
    }))
    .unwrap();
    let identified = Event::SessionIdentified(SessionIdentified {
        session: id(3),
        method: IdentificationMethod::Otp,
        not_after: None,
        challenge: None,
        email: None,
        phone: None,
        purpose: Default::default(),
    });
    let mut erased = story.state.clone();
    story.happens(replied(10, story.epoch(), vec![call("pay")]));
    story.happens(Event::TurnToolReturned(sent));
    story.happens(identified.clone());
    assert!(story.state.known(id(3)).unwrap().verified);
    for event in [Event::Erased(kind::TURN_MODEL_REPLIED), Event::Erased(kind::TURN_TOOL_RETURNED), identified] {
        let seq = erased.last_seq + 1;
        erased.evolve(&recorded(seq, event));
    }
    assert!(erased.known(id(3)).is_none_or(|known| !known.verified));
}

#[test]
fn a_claim_names_the_previous_claim() {
    let story = Story::claimed();
    let (item, epoch) = (story.turn().item, story.epoch());
    // The first claim is from a worker that has not seen the standing claim, the second from one that found it lapsed.
    assert_eq!(story.when(&claim(item, None)), Err(Refusal::Superseded));
    assert!(story.when(&claim(item, Some(epoch))).is_ok());
}

#[test]
fn a_record_names_its_turn_and_epoch() {
    let story = Story::claimed();
    assert_eq!(story.when(&record(11, 9, completed(11, 9, "x"))), Err(Refusal::Superseded));
    assert_eq!(story.when(&record(10, 8, completed(10, 8, "x"))), Err(Refusal::Superseded));
    let unclaimed = Story::given([opened(), requested(10)]);
    assert_eq!(unclaimed.when(&record(10, 0, completed(10, 0, "x"))), Err(Refusal::Superseded));
}

#[test]
fn one_turn_at_a_time() {
    for story in [Story::given([opened(), requested(10)]), Story::claimed(), Story::parked()] {
        assert_eq!(story.when(&ask(11)), Err(Refusal::TurnInProgress));
    }
}

#[test]
fn calls_of_an_incomplete_reply_are_stated_and_never_made() {
    let endings = [Ending::Cut, Ending::Filtered, Ending::Refused, Ending::Unmarked, Ending::Other];
    for ending in endings.map(Some).into_iter().chain([Some(Ending::Whole), None]) {
        let mut story = Story::claimed();
        let epoch = story.epoch();
        let Event::TurnModelReplied(reply) = replied(10, epoch, vec![gated("pay"), call("look"), idempotent("read")])
        else {
            unreachable!("a reply is a reply")
        };
        let ended = ending.map(|ending| ReplyEnd { ending, finish_reason: None });
        story.happens(Event::TurnModelReplied(ModelReplied { ended, ..reply }));
        let Some(ending) = ending.filter(|ending| !ending.allows_calls()) else {
            assert_eq!(story.step(), NextStep::CallTools(vec![call("look"), idempotent("read")]), "{ending:?}");
            continue;
        };
        for stated in [gated("pay"), call("look"), idempotent("read")] {
            assert_eq!(story.step(), NextStep::StateCut(stated.clone(), ending));
            story = story.and_claimed();
            assert_eq!(story.step(), NextStep::StateCut(stated.clone(), ending), "by the next worker, too");
            story.happens(returned(10, story.epoch(), &stated.id));
        }
        assert_eq!(story.step(), NextStep::CallModel, "the model is told to call again");
    }
}
