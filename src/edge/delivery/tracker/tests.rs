//! Frames of turns in every order.

use super::*;

const TURN: Uuid = Uuid::from_u128(1);

fn key() -> ConversationKey {
    ConversationKey { region: "r".into(), org: "o".into(), conversation: Uuid::from_u128(9) }
}

fn frame(turn: Uuid, epoch: u64, n: u64, kind: LiveKind, call: u32) -> LiveFrame {
    let mark = FrameMark { turn, epoch, n, kind, call, offset: n, length: 1, chunks: n };
    LiveFrame { conversation: key().conversation, session: None, mark, payload: Default::default() }
}

/// Builds a frame of tool activity that is not the turn's first.
fn chunk(epoch: u64, n: u64, chunks: u64) -> LiveFrame {
    let mut chunk = frame(TURN, epoch, n, LiveKind::Chunk, 0);
    chunk.mark.chunks = chunks;
    chunk
}

fn open() -> DeliveryTracker {
    let mut views = DeliveryTracker::default();
    views.watch(&key(), false);
    views.open(&key(), TURN, "r1", None);
    views
}

#[test]
fn frames_are_shown_once_in_order_and_a_gap_is_noticed() {
    let mut views = open();
    let mut judge = |n| views.judge(&frame(TURN, 5, n, LiveKind::Token, 0));
    assert_eq!(
        [judge(0), judge(1), judge(1), judge(3)],
        [FrameVerdict::Show, FrameVerdict::Show, FrameVerdict::Drop, FrameVerdict::Gap]
    );
    assert_eq!([judge(2), judge(3)], [FrameVerdict::Show, FrameVerdict::Show]);
}

#[test]
fn a_second_run_shows_a_marker_and_no_second_text() {
    let mut views = open();
    let mut judge = |epoch, n, kind| views.judge(&frame(TURN, epoch, n, kind, 0));
    assert_eq!(judge(5, 0, LiveKind::Token), FrameVerdict::Show);
    assert_eq!(judge(8, 0, LiveKind::Restart), FrameVerdict::Show);
    assert_eq!(judge(5, 1, LiveKind::Token), FrameVerdict::Drop, "the old worker is fenced");
    assert_eq!(judge(8, 1, LiveKind::Token), FrameVerdict::Drop);
    assert_eq!(judge(8, 2, LiveKind::Terminal), FrameVerdict::Show);
}

#[test]
fn a_client_that_resumes_gets_the_second_runs_text() {
    let mut views = open();
    views.resumes = true;
    let mut judge = |epoch, n, kind| views.judge(&frame(TURN, epoch, n, kind, 0));
    assert_eq!(judge(5, 0, LiveKind::Token), FrameVerdict::Show);
    assert_eq!(
        [judge(8, 0, LiveKind::Restart), judge(8, 1, LiveKind::Token)],
        [FrameVerdict::Show, FrameVerdict::Show]
    );
}

#[test]
fn a_cursor_resumes_a_view_at_its_position() {
    let mut views = open();
    assert_eq!(views.judge(&frame(TURN, 5, 0, LiveKind::Token, 0)), FrameVerdict::Show);
    let cursor = views.get_mut(TURN).unwrap().cursor(TURN);
    let mut later = DeliveryTracker::new(true);
    later.open_at(&key(), "r1", cursor);
    assert_eq!(later.judge(&frame(TURN, 5, 0, LiveKind::Token, 0)), FrameVerdict::Drop);
    assert_eq!(later.judge(&frame(TURN, 5, 1, LiveKind::Token, 0)), FrameVerdict::Show);
}

#[test]
fn text_shown_from_the_log_is_not_shown_again() {
    let mut views = open();
    views.resumes = true;
    assert_eq!(views.judge(&frame(TURN, 5, 0, LiveKind::Token, 0)), FrameVerdict::Show);
    let view = views.get_mut(TURN).unwrap();
    assert_eq!((view.take_text(0, 5, "a b"), view.take_text(0, 5, "a b")), (" b", ""));
    let mut judge = |n, call| views.judge(&frame(TURN, 5, n, LiveKind::Token, call));
    assert_eq!([judge(1, 0), judge(2, 0), judge(3, 1)], [FrameVerdict::Drop, FrameVerdict::Drop, FrameVerdict::Show]);
}

#[test]
fn tool_activity_shown_from_the_log_is_not_shown_again() {
    let mut views = open();
    views.resumes = true;
    assert_eq!(views.judge(&frame(TURN, 5, 0, LiveKind::Chunk, 0)), FrameVerdict::Show);
    let view = views.get_mut(TURN).unwrap();
    assert_eq!([view.take_chunk(0), view.take_chunk(1), view.take_chunk(1)], [false, true, false]);
    let mut judge = |n| views.judge(&frame(TURN, 5, n, LiveKind::Chunk, 0));
    assert_eq!([judge(1), judge(2)], [FrameVerdict::Drop, FrameVerdict::Show]);
    let mut later = DeliveryTracker::new(true);
    later.open_at(&key(), "r1", views.get_mut(TURN).unwrap().cursor(TURN));
    assert!(!later.get_mut(TURN).unwrap().take_chunk(2), "the cursor says so");
}

#[test]
fn a_late_first_frame_is_preceded_by_the_logs_frames() {
    let owes = |kind, call| {
        let mut views = open();
        views.resumes = true;
        views.owes_something(&frame(TURN, 8, 0, kind, call))
    };
    assert_eq!([owes(LiveKind::Token, 0), owes(LiveKind::Restart, 0)], [false, false]);
    assert_eq!([owes(LiveKind::Token, 1), owes(LiveKind::Restart, 1), owes(LiveKind::Chunk, 0)], [true, true, true]);
    assert!(owes(LiveKind::Terminal, 0));
}

#[test]
fn frames_of_another_run_are_void() {
    let mut views = open();
    assert_eq!(views.judge(&frame(TURN, 5, 0, LiveKind::Token, 0)), FrameVerdict::Show);
    let view = views.get_mut(TURN).unwrap();
    assert!(!view.void_text(0, 5) && !view.void_text(1, 8));
    assert!(view.void_text(0, 8));
    assert_eq!(view.take_text(0, 8, "another"), "another");
}

#[test]
fn a_second_run_before_any_text_is_an_ordinary_one() {
    let mut views = open();
    let mut judge = |n, kind| views.judge(&frame(TURN, 8, n, kind, 0));
    assert_eq!([judge(0, LiveKind::Restart), judge(1, LiveKind::Token)], [FrameVerdict::Drop, FrameVerdict::Show]);
}

#[test]
fn text_after_a_resumed_park_is_shown() {
    let mut views = open();
    let mut judge = |epoch, n, kind, call| views.judge(&frame(TURN, epoch, n, kind, call));
    assert_eq!(judge(5, 0, LiveKind::Token, 0), FrameVerdict::Show);
    assert_eq!(judge(5, 1, LiveKind::Prompt, 0), FrameVerdict::Show);
    assert_eq!(judge(9, 0, LiveKind::Chunk, 0), FrameVerdict::Show);
    assert_eq!(judge(9, 1, LiveKind::Token, 1), FrameVerdict::Show);
}

#[test]
fn a_prompt_shown_from_the_log_is_not_shown_again_nor_is_its_tool_call() {
    let mut views = open();
    let view = views.get_mut(TURN).unwrap();
    view.prompted = Some(5);
    assert!(view.take_chunk(1));
    let mut judge = |epoch, n, kind| views.judge(&frame(TURN, epoch, n, kind, 0));
    assert_eq!([judge(5, 0, LiveKind::Prompt), judge(5, 1, LiveKind::Chunk)], [FrameVerdict::Drop, FrameVerdict::Drop]);
    assert_eq!(views.judge(&chunk(9, 0, 2)), FrameVerdict::Show);
}

#[test]
fn an_ended_turn_is_not_reopened() {
    let mut views = open();
    assert_eq!(views.end(TURN), Some(key().conversation));
    views.watch(&key(), true);
    assert_eq!(views.judge(&frame(TURN, 9, 0, LiveKind::Token, 0)), FrameVerdict::Drop);
}

#[test]
fn other_turns_are_shown_only_in_watched_conversations() {
    let other = Uuid::from_u128(2);
    let mut views = open();
    assert_eq!(views.judge(&frame(other, 5, 0, LiveKind::Token, 0)), FrameVerdict::Drop);
    views.watch(&key(), true);
    assert_eq!(views.judge(&frame(other, 5, 0, LiveKind::Token, 0)), FrameVerdict::Show);
    assert_eq!(views.close(TURN), None, "the conversation stays watched");
}

#[test]
fn after_a_lost_frame_the_call_is_muted_and_the_rest_goes_on() {
    let mut views = open();
    let late = frame(TURN, 5, 7, LiveKind::Token, 0);
    assert_eq!(views.judge(&late), FrameVerdict::Gap);
    views.skip_to(late.mark);
    assert_eq!(views.judge(&late), FrameVerdict::Drop);
    assert_eq!(views.judge(&frame(TURN, 5, 8, LiveKind::Chunk, 0)), FrameVerdict::Show);
    assert_eq!(views.judge(&frame(TURN, 5, 9, LiveKind::Token, 1)), FrameVerdict::Show);
}

#[test]
fn a_connection_watches_a_bounded_number_of_conversations() {
    let mut views = DeliveryTracker::default();
    let key = |n: usize| ConversationKey { conversation: Uuid::from_u128(n as u128), ..key() };
    for n in 0..limits::CONNECTION_WATCHED {
        assert!(views.may_watch(key(n).conversation));
        views.watch(&key(n), true);
    }
    assert!(!views.may_watch(key(limits::CONNECTION_WATCHED).conversation));
    assert!(views.may_watch(key(0).conversation), "a conversation that is watched already");
    assert_eq!(views.watched().count(), limits::CONNECTION_WATCHED);
}
