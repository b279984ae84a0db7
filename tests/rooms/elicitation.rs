//! Calls that end without a result: with questions of their server, or as a task of it.

use serde_json::json;
use turnstream::domain::{
    Command, Event, NextStep, Refusal,
    elicitation::WaitingCall,
    event::{Resolution, ToolReturned},
};

use crate::{
    domain::{PARK, Story, record},
    support::samples::*,
};

fn submit(park: u64) -> Command {
    Command::Submit { park: id(park), values: json!({"a": 1}).as_object().cloned(), by: id(3) }
}

fn decline(park: u64) -> Command {
    Command::Submit { park: id(park), values: None, by: id(3) }
}

/// The names of the calls that are made now.
fn called_now(story: &Story) -> Vec<String> {
    match story.step() {
        NextStep::CallTools(calls) => calls.into_iter().map(|call| call.id).collect(),
        step => panic!("{step:?}"),
    }
}

/// The key of the question that is asked now.
fn asked_now(story: &Story) -> String {
    match story.step() {
        NextStep::Elicit(_, question) => question.key,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_call_with_questions_is_made_again_when_all_are_answered() {
    let mut story = Story::with_calls(vec![call("book")]);
    let epoch = story.epoch();
    story.happens(called(10, epoch, "book"));
    story.happens(elicits(10, epoch, "book", PARK, vec![asks("book", &["date", "size"], Some("state"), 2)]));
    assert_eq!(story.step(), NextStep::Wait);
    story.does(&submit(PARK));
    let mut story = story.and_claimed();
    assert_eq!(asked_now(&story), "size");
    story.happens(elicits(10, story.epoch(), "book", PARK + 1, vec![]));
    story.does(&decline(PARK + 1));
    let mut story = story.and_claimed();
    assert_eq!(called_now(&story), ["book"]);
    let answers = story.turn().call("book").unwrap().elicited.clone().unwrap();
    let resolutions: Vec<_> =
        answers.questions.iter().map(|question| question.answer.clone().unwrap().resolution).collect();
    assert_eq!(resolutions, [Resolution::Submitted, Resolution::Declined]);
    assert_eq!(answers.request_state.as_deref(), Some("state"));
    let epoch = story.epoch();
    story.happens(called(10, epoch, "book"));
    story.happens(returned(10, epoch, "book"));
    assert_eq!(story.step(), NextStep::CallModel);
}

#[test]
fn a_repetition_that_may_have_happened_is_not_repeated() {
    for (request, step) in [(call("book"), None), (idempotent("book"), Some(vec!["book".to_string()]))] {
        let mut story = Story::with_calls(vec![request.clone()]);
        let epoch = story.epoch();
        story.happens(called(10, epoch, "book"));
        story.happens(elicits(10, epoch, "book", PARK, vec![asks("book", &["date"], Some("state"), 1)]));
        story.does(&submit(PARK));
        let mut story = story.and_claimed();
        story.happens(called(10, story.epoch(), "book"));
        let story = story.and_claimed();
        match step {
            None => assert_eq!(story.step(), NextStep::StateUnknown(request)),
            Some(calls) => assert_eq!(called_now(&story), calls),
        }
    }
}

#[test]
fn calls_that_ask_at_once_are_asked_about_one_after_another() {
    let mut story = Story::with_calls(vec![idempotent("a"), idempotent("b"), gated("pay")]);
    let epoch = story.epoch();
    let elicited = ["a", "b"].map(|name| {
        story.happens(called(10, epoch, name));
        asks(name, &[name], None, 1)
    });
    story.happens(elicits(10, epoch, "a", PARK, elicited.to_vec()));
    story.does(&submit(PARK));
    let mut story = story.and_claimed();
    assert_eq!(called_now(&story), ["a"], "a call goes on as soon as it can");
    story.happens(returned(10, story.epoch(), "a"));
    assert_eq!(asked_now(&story), "b");
    story.happens(elicits(10, story.epoch(), "b", PARK + 1, vec![]));
    assert_eq!(story.when(&submit(PARK)), Err(Refusal::NotPending));
    story.does(&Command::Expire { park: id(PARK + 1) });
    let mut story = story.and_claimed();
    assert_eq!(called_now(&story), ["b"], "no answer is one, too");
    story.happens(returned(10, story.epoch(), "b"));
    assert_eq!(story.step(), NextStep::Park(gated("pay")));
}

#[test]
fn an_approval_holds_over_the_questions_of_its_call() {
    let mut story = Story::parked();
    story.does(&Command::Confirm { park: id(PARK), approved: true, by: id(3) });
    let mut story = story.and_claimed();
    let epoch = story.epoch();
    story.happens(called(10, epoch, "pay"));
    story.happens(elicits(10, epoch, "pay", PARK + 1, vec![asks("pay", &["card"], Some("state"), 1)]));
    let approve = Command::Confirm { park: id(PARK + 1), approved: true, by: id(3) };
    assert_eq!(story.when(&approve), Err(Refusal::NotPending), "a question is not approved");
    story.does(&submit(PARK + 1));
    let story = story.and_claimed();
    assert_eq!(called_now(&story), ["pay"]);
    assert_eq!(story.turn().call("pay").unwrap().decision, Some(Resolution::Approved));
}

#[test]
fn a_question_is_counted_as_no_activity_of_its_own() {
    let mut story = Story::with_calls(vec![idempotent("a")]);
    let epoch = story.epoch();
    story.happens(called(10, epoch, "a"));
    assert_eq!(story.turn().activity(), 1);
    story.happens(elicits(10, epoch, "a", PARK, vec![asks("a", &["a"], None, 1)]));
    assert_eq!((story.turn().activity(), story.turn().activity_before_prompt()), (1, 1));
    story.does(&submit(PARK));
    let mut story = story.and_claimed();
    story.happens(called(10, story.epoch(), "a"));
    assert_eq!(story.turn().activity(), 1, "the repetition is not shown");
}

#[test]
fn a_task_is_asked_for_and_never_called_again() {
    let mut story = Story::with_calls(vec![call("work")]);
    let epoch = story.epoch();
    story.happens(called(10, epoch, "work"));
    story.happens(became_task(10, epoch, "work"));
    let mut story = story.and_claimed();
    assert_eq!(called_now(&story), ["work"], "whoever takes over asks for the task");
    assert_eq!(story.turn().call("work").unwrap().task.as_deref(), Some("task-1"));
    story.happens(waits_for_task(10, story.epoch(), "work", PARK));
    for command in [submit(PARK), decline(PARK), Command::Confirm { park: id(PARK), approved: false, by: id(3) }] {
        assert_eq!(story.when(&command), Err(Refusal::NotPending), "nobody is asked: {command:?}");
    }
    let supersede = Command::Supersede { park: id(PARK), by: id(4) };
    assert_eq!(story.when(&supersede), Err(Refusal::NoTurn), "a turn that works does not give way");
    story.does(&Command::Expire { park: id(PARK) });
    let mut story = story.and_claimed();
    assert_eq!(called_now(&story), ["work"]);
    let epoch = story.epoch();
    let over = story.when(&record(10, epoch, returned(10, epoch, "work"))).unwrap();
    story.happens(over);
    assert_eq!(story.step(), NextStep::CallModel);
}

#[test]
fn a_call_that_is_asked_about_in_words_waits_over_the_end_of_its_turn() {
    let waiting = WaitingCall {
        tool: "book".into(),
        arguments: "{}".into(),
        idempotency_key: "key".into(),
        idempotent: false,
        approved: false,
        elicited: asks("book", &["date"], Some("state"), 1),
    };
    let mut story = Story::with_calls(vec![call("book")]);
    let epoch = story.epoch();
    story.happens(called(10, epoch, "book"));
    let Event::TurnToolReturned(result) = returned(10, epoch, "book") else { unreachable!() };
    let in_words = ToolReturned { waiting: Some(Box::new(waiting.clone())), ..result.clone() };
    story.happens(Event::TurnToolReturned(in_words));
    story.happens(completed(10, epoch, "Which day?"));
    assert_eq!(story.state.waiting.as_deref(), Some(&waiting));
    assert_eq!(story.state.asked.as_ref(), Some(&waiting.elicited.questions[0].form));
    story.happens(requested(11));
    let mut story = story.and_claimed();
    let epoch = story.epoch();
    story.happens(replied(11, epoch, vec![call("submit")]));
    let answered =
        ToolReturned { turn: id(11), epoch, call: "submit".into(), values: Some(Default::default()), ..result };
    story.happens(Event::TurnToolReturned(answered));
    assert_eq!((&story.state.waiting, &story.state.asked), (&None, &None));
}
