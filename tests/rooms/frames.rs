//! The client's view rebuilt from events alone: frame order where several things happen at once, and frames that are not shown.

use serde_json::Value;
use turnstream::{
    domain::{
        Event,
        event::{ModelReplied, TurnCancelled, TurnFailed, TurnReleased, TurnRequested, TurnStarted},
        frame_trace::{FrameKind, FrameRecorder, FrameTrace},
    },
    playback::frames::{FrameReconstructor, MomentKind},
};

use crate::support::samples::*;

/// Returns the trace of a call with one token frame per word, one each second from `from` on.
fn said(from: u64, words: &[&str]) -> Option<FrameTrace> {
    let mut recorder = FrameRecorder::default();
    for (n, word) in (from..).zip(words) {
        recorder.say(word);
        recorder.frame(FrameKind::Token, word, second(n));
    }
    recorder.trace("")
}

fn started(turn: u64, item: u64) -> Event {
    Event::TurnStarted(TurnStarted { turn: id(turn), worker: id(7), item })
}

fn cancelled(turn: u64) -> Event {
    Event::TurnCancelled(TurnCancelled {
        turn: id(turn),
        request_id: format!("request-{turn}"),
        by: id(3),
        reason: None,
        not_after: None,
    })
}

fn let_go(turn: u64, epoch: u64, shown: Option<FrameTrace>) -> Event {
    Event::TurnReleased(TurnReleased { turn: id(turn), epoch, shown })
}

/// Returns a frame's token, node or type.
fn word(frame: &[u8]) -> String {
    let frame: Value = serde_json::from_slice(frame).unwrap();
    let text = frame["token"].as_str().or(frame["node"].as_str()).or(frame["type"].as_str());
    text.unwrap().trim().to_owned()
}

fn words(moments: Vec<turnstream::playback::frames::PlaybackMoment>) -> Vec<String> {
    let frames = moments.into_iter().filter_map(|moment| match moment.what {
        MomentKind::Frame(frame) => Some(word(&frame)),
        MomentKind::Asked { .. } | MomentKind::Decided(_) => None,
    });
    frames.collect()
}

/// Returns the frames shown for these events and the count of gaps; sequences and seconds run from 1.
fn seen(events: Vec<Event>) -> (Vec<String>, u64) {
    let mut watcher = FrameReconstructor::new(None);
    let mut moments = Vec::new();
    for (seq, event) in (1..).zip(events) {
        moments.extend(watcher.take(&recorded(seq, event)));
    }
    moments.extend(watcher.rest());
    (words(moments), watcher.gaps())
}

const ACCEPTED: &str = "immediate_response";
const ANSWER: &str = "eventual_response";

#[test]
fn a_cancelled_turns_frames_come_before_its_end() {
    // The cancel comes in second 4; the next turn begins before the worker has released its trace.
    let shown = said(3, &["one ", "two ", "three "]);
    let events = vec![
        opened(),
        requested(10),
        started(10, 2),
        cancelled(10),
        requested(11),
        let_go(10, 3, shown),
        started(11, 5),
        completed(11, 7, "fine"),
    ];
    let (words, gaps) = seen(events);
    assert_eq!(words, [ACCEPTED, "one", "two", "cancelled", ACCEPTED, "fine", ANSWER]);
    assert_eq!(gaps, 1, "the second turn is older than the field");
}

#[test]
fn a_cancelled_turn_ends_without_its_worker() {
    let events = vec![opened(), requested(10), started(10, 2), cancelled(10), requested(11), cancelled(11)];
    assert_eq!(seen(events).0, [ACCEPTED, "cancelled", ACCEPTED, "cancelled"]);
    // A follower of the log gets the terminal frame when no more events come, and ignores the late release.
    let mut watcher = FrameReconstructor::new(None);
    for (seq, event) in (1..).zip([opened(), requested(10), started(10, 2)]) {
        watcher.take(&recorded(seq, event));
    }
    assert!(watcher.take(&recorded(4, cancelled(10))).is_empty());
    assert_eq!(words(watcher.rest()), ["cancelled"]);
    assert!(watcher.take(&recorded(5, let_go(10, 3, said(3, &["one "])))).is_empty());
    assert!(watcher.rest().is_empty());
}

#[test]
fn a_call_that_begins_anew_is_marked_and_not_shown_again_until_it_is_over() {
    let Event::TurnModelReplied(reply) = replied(10, 7, vec![call("look")]) else { panic!() };
    let reply = ModelReplied { shown: said(8, &["Let me ", "look."]), ..reply };
    let events = vec![
        opened(),
        requested(10),
        started(10, 2),
        let_go(10, 3, said(3, &["Let "])),
        started(10, 2),
        let_go(10, 5, said(6, &["Let me "])),
        started(10, 2),
        Event::TurnModelReplied(reply),
        called(10, 7, "look"),
        returned(10, 7, "look"),
        completed(10, 7, "fine"),
    ];
    // The second run of the first call is muted, so its third run adds no marker.
    assert_eq!(seen(events).0, [ACCEPTED, "Let", "turn_restarted", "tool", "tool", "fine", ANSWER]);
}

#[test]
fn a_dead_worker_leaves_a_gap_and_a_fenced_one_no_frames() {
    let Event::TurnFailed(failure) = failed(10, 3) else { panic!() };
    let failure = |epoch| Event::TurnFailed(TurnFailed { epoch, shown: said(4, &["half "]), ..failure.clone() });
    let events = vec![opened(), requested(10), started(10, 2), started(10, 2), failure(3), failure(4)];
    assert_eq!(seen(events), (["immediate_response", "half", "error"].map(str::to_owned).to_vec(), 1));
}

#[test]
fn one_session_sees_its_own_turns_and_a_void_request_is_none() {
    let other = |n: u64| Event::TurnRequested(TurnRequested { session: id(4), ..request(n) });
    let late = |n: u64| Event::TurnRequested(TurnRequested { not_after: second(1), ..request(n) });
    let events = [opened(), late(9), requested(10), cancelled(10), other(11), cancelled(11)];
    let of = |session: Option<u64>| {
        let mut watcher = FrameReconstructor::new(session.map(id));
        let mut moments = Vec::new();
        for (seq, event) in (1..).zip(events.clone()) {
            moments.extend(watcher.take(&recorded(seq, event)));
        }
        moments.extend(watcher.rest());
        words(moments)
    };
    assert_eq!(of(Some(3)), [ACCEPTED, "cancelled"]);
    assert_eq!(of(Some(4)), [ACCEPTED, "cancelled"]);
    assert_eq!(of(Some(5)), [""; 0]);
    assert_eq!(of(None).len(), 4);
}
