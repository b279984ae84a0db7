//! Random commands in random order, and the invariants that a conversation keeps under all of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use turnstream::domain::{
    Command, Conversation, Event, NextStep, RecordedEvent, Turn, decide,
    event::{CallRequested, Resolution, Response, TurnResumed, TurnStarted, Usage},
    next_step,
};
use turnstream::{encryption::KeyClass, log::key_store::class_of};
use uuid::Uuid;

use crate::support::samples::*;

const MODEL_CALLS_MAX: u32 = 3;

/// The way in which a call ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Result,
    /// With questions of its server, and with a state that goes back to it or not.
    Asks {
        state: bool,
    },
    /// As a task, or still as one.
    Task,
}

/// A move of a participant. Workers may be late, so a move may speak of an epoch that is over.
#[derive(Clone, Debug)]
enum Move {
    Open,
    Ask {
        turn: u64,
    },
    /// Claims the item that is `back` claims and resumes old.
    Claim {
        back: usize,
    },
    /// The worker of the claim `back` claims ago carries out the next step.
    Step {
        back: usize,
        wants_tools: Vec<(bool, bool)>,
        fails: bool,
        ends: Ends,
    },
    /// The worker logs the intent of the next call and dies.
    Intent {
        back: usize,
    },
    Confirm {
        back: usize,
        approved: bool,
    },
    Submit {
        back: usize,
    },
    Expire {
        back: usize,
    },
    Cancel {
        turn: u64,
    },
}

fn any_move() -> impl Strategy<Value = Move> {
    let back = || prop_oneof![4 => Just(0usize), 1 => 0usize..4];
    let tools = prop::collection::vec((any::<bool>(), any::<bool>()), 0..4);
    let ends = prop_oneof![
        3 => Just(Ends::Result),
        2 => any::<bool>().prop_map(|state| Ends::Asks { state }),
        1 => Just(Ends::Task),
    ];
    prop_oneof![
        1 => Just(Move::Open),
        3 => (10u64..16).prop_map(|turn| Move::Ask { turn }),
        4 => back().prop_map(|back| Move::Claim { back }),
        8 => (back(), tools, prop::bool::weighted(0.1), ends)
            .prop_map(|(back, wants_tools, fails, ends)| Move::Step { back, wants_tools, fails, ends }),
        2 => back().prop_map(|back| Move::Intent { back }),
        3 => (back(), any::<bool>()).prop_map(|(back, approved)| Move::Confirm { back, approved }),
        2 => back().prop_map(|back| Move::Submit { back }),
        1 => back().prop_map(|back| Move::Expire { back }),
        1 => (10u64..16).prop_map(|turn| Move::Cancel { turn }),
    ]
}

/// A conversation with everything that its participants may still remember of it.
#[derive(Default)]
struct World {
    state: Conversation,
    items: Vec<u64>,
    /// The turn and epoch of every claim.
    claims: Vec<(Uuid, u64)>,
    parks: Vec<u64>,
    /// Calls of tools that must not be called twice, by turn, id and questions answered: how often they were begun.
    begun: BTreeMap<(Uuid, String, u32), u32>,
    terminals: BTreeMap<Uuid, u32>,
    names: u64,
}

/// Returns the entry `back` places from the end, or the first one.
fn back<T: Copy>(list: &[T], back: usize) -> Option<T> {
    list.iter().rev().nth(back).or(list.first()).copied()
}

impl World {
    /// Returns the command of a move, given by a participant who knows this world.
    fn command(&mut self, what: &Move) -> Option<Command> {
        Some(match what {
            Move::Open => Command::Open(session()),
            Move::Ask { turn } => Command::Request(request(*turn)),
            Move::Claim { back: n } => Command::Claim {
                item: back(&self.items, *n)?,
                worker: id(7),
                over: self.state.turn.as_ref().and_then(|turn| turn.epoch),
            },
            Move::Step { back: n, wants_tools, fails, ends } => {
                let (turn, epoch) = back(&self.claims, *n)?;
                let event =
                    if *fails { failed(number(turn), epoch) } else { self.outcome(turn, epoch, wants_tools, *ends)? };
                Command::Record { turn, epoch, event }
            }
            Move::Intent { back: n } => {
                let (turn, epoch) = back(&self.claims, *n)?;
                let NextStep::CallTools(calls) = self.step()? else { return None };
                // A call that became a task is asked for, and not begun again.
                let state = self.state.turn.as_ref()?;
                let request =
                    calls.iter().find(|request| state.call(&request.id).is_some_and(|call| call.task.is_none()))?;
                Command::Record { turn, epoch, event: called(number(turn), epoch, &request.id) }
            }
            Move::Confirm { back: n, approved } => {
                Command::Confirm { park: id(back(&self.parks, *n)?), approved: *approved, by: id(3) }
            }
            Move::Submit { back: n } => {
                Command::Submit { park: id(back(&self.parks, *n)?), values: Some(Default::default()), by: id(3) }
            }
            Move::Expire { back: n } => Command::Expire { park: id(back(&self.parks, *n)?) },
            Move::Cancel { turn } => Command::Cancel { turn: id(*turn), by: id(3) },
        })
    }

    fn step(&self) -> Option<NextStep> {
        self.state.turn.as_ref().map(|turn| next_step(turn, MODEL_CALLS_MAX))
    }

    /// The outcome of the next step, from the hands of the worker with this epoch.
    fn outcome(&mut self, turn: Uuid, epoch: u64, wants_tools: &[(bool, bool)], ends: Ends) -> Option<Event> {
        let n = number(turn);
        self.names += 1;
        Some(match self.step()? {
            NextStep::CallModel if wants_tools.is_empty() => completed(n, epoch, "Hello"),
            NextStep::CallModel => replied(n, epoch, tools(self.names, wants_tools)),
            NextStep::CallTools(calls) => self.called(n, epoch, calls.last()?, ends),
            NextStep::StateRefused(call, _)
            | NextStep::StateAnswer(call, ..)
            | NextStep::StateCut(call, _)
            | NextStep::StateUnknown(call) => returned(n, epoch, &call.id),
            NextStep::Park(call) => parked(n, epoch, &call.id, 100 + self.names),
            NextStep::Elicit(call, _) => elicits(n, epoch, &call.id, 100 + self.names, vec![]),
            NextStep::Wait => return None,
            NextStep::EndAtCap => completed(n, epoch, "I stopped here"),
            NextStep::GiveUp => failed(n, epoch),
        })
    }

    /// The outcome of a call, as its worker records it.
    fn called(&self, n: u64, epoch: u64, request: &CallRequested, ends: Ends) -> Event {
        let call = self.state.turn.as_ref().and_then(|turn| turn.call(&request.id)).unwrap();
        let asked = call.elicited.as_ref().map_or(0, |elicited| elicited.asked);
        match ends {
            // A call that must not be repeated may only ask with a state.
            Ends::Asks { state } if request.idempotent || state => {
                let elicited = asks(&request.id, &["a", "b"], state.then_some("state"), asked + 2);
                elicits(n, epoch, &request.id, 100 + self.names, vec![elicited])
            }
            Ends::Task if call.task.is_none() => became_task(n, epoch, &request.id),
            Ends::Task => waits_for_task(n, epoch, &request.id, 100 + self.names),
            Ends::Result | Ends::Asks { .. } => returned(n, epoch, &request.id),
        }
    }

    /// Appends the event of an accepted command.
    fn happens(&mut self, event: Event) -> RecordedEvent {
        let recorded = recorded(self.state.last_seq + 2, event);
        match &recorded.event {
            Event::TurnRequested(_) | Event::TurnResumed(_) => self.items.push(recorded.seq),
            Event::TurnStarted(e) => self.claims.push((e.turn, recorded.seq)),
            Event::TurnParked(e) => self.parks.push(number(e.park)),
            Event::TurnToolCalled(e) if e.task.is_none() => {
                let call = self.state.turn.as_ref().and_then(|turn| turn.call(&e.call));
                if let Some(call) = call.filter(|call| !call.request.idempotent) {
                    let answered = call.elicited.as_ref().map_or(0, |elicited| elicited.asked);
                    *self.begun.entry((e.turn, e.call.clone(), answered)).or_default() += 1;
                }
            }
            _ => {}
        }
        if let Some(turn) = terminal_of(&recorded.event) {
            *self.terminals.entry(turn).or_default() += 1;
        }
        self.state.evolve(&recorded);
        recorded
    }
}

fn number(id: Uuid) -> u64 {
    id.as_u128().try_into().unwrap()
}

fn tools(names: u64, wanted: &[(bool, bool)]) -> Vec<CallRequested> {
    let tool = |(n, (confirm, idempotent)): (usize, &(bool, bool))| CallRequested {
        confirm: *confirm,
        idempotent: *idempotent,
        ..call(&format!("call-{names}-{n}"))
    };
    wanted.iter().enumerate().map(tool).collect()
}

fn terminal_of(event: &Event) -> Option<Uuid> {
    match event {
        Event::TurnCompleted(e) => Some(e.turn),
        Event::TurnFailed(e) => Some(e.turn),
        Event::TurnCancelled(e) => Some(e.turn),
        _ => None,
    }
}

/// Checks that the next step repeats no non-idempotent call, skips no approval and waits exactly while parked.
fn step_is_safe(turn: &Turn) -> Result<(), TestCaseError> {
    let step = next_step(turn, MODEL_CALLS_MAX);
    if let NextStep::CallTools(calls) = &step {
        for request in calls {
            let call = turn.call(&request.id).unwrap();
            prop_assert!(!call.is_in_doubt() || request.idempotent, "{} would be called again", request.id);
            prop_assert!(call.question().is_none(), "{} is called over its question", request.id);
            prop_assert!(call.result.is_none(), "{} has its result", request.id);
            let approved = call.decision == Some(Resolution::Approved);
            prop_assert!(!request.confirm || approved, "{} was not approved", request.id);
        }
    }
    prop_assert_eq!(turn.park.is_some(), step == NextStep::Wait);
    Ok(())
}

/// Checks that a snapshot decodes to the fold that it was made from.
fn survives_the_cache(state: &Conversation) -> Result<(), TestCaseError> {
    let json = serde_json::to_vec(state).unwrap();
    prop_assert_eq!(&serde_json::from_slice::<Conversation>(&json).unwrap(), state);
    Ok(())
}

/// Returns the fold without the parts that erasing the tools class removes.
///
/// The removed parts are the prompts and tool inputs, and the identities that visitors proved with them.
fn structure(mut state: Conversation) -> Conversation {
    state.asked = None;
    state.waiting = None;
    state.sessions.clear();
    state
}

/// Returns the event as decoded after the keys of `class` are destroyed.
fn erased(recorded: &RecordedEvent, class: KeyClass) -> RecordedEvent {
    let is_of = class_of(&recorded.event).is_some_and(|of| of == class || class == KeyClass::Said);
    let event = if is_of { Event::Erased(recorded.event.kind()) } else { recorded.event.clone() };
    RecordedEvent { event, ..recorded.clone() }
}

/// Checks that erasing the tools class up to any event changes only texts of the fold.
///
/// The fold is begun from the start of the log or from a snapshot taken before the erasure.
fn erasing_tools_changes_texts_alone(history: &[RecordedEvent]) -> Result<(), TestCaseError> {
    let mut whole = Conversation::default();
    for (end, recorded) in history.iter().enumerate() {
        whole.evolve(recorded);
        // Conversations with an active turn are not erased; one that is erased all the same must not get stuck.
        for cached in [0, end / 2, end] {
            let mut state = Conversation::default();
            history[..cached].iter().for_each(|recorded| state.evolve(recorded));
            history[cached..=end].iter().for_each(|recorded| state.evolve(&erased(recorded, KeyClass::Tools)));
            match &whole.turn {
                None => prop_assert_eq!(structure(state), structure(whole.clone())),
                Some(turn) => is_not_stuck(&state, turn)?,
            }
        }
        let mut nothing = Conversation::default();
        history[..=end].iter().for_each(|recorded| nothing.evolve(&erased(recorded, KeyClass::Said)));
        prop_assert!(!nothing.exists() && nothing.messages.is_empty() && nothing.turn.is_none());
    }
    Ok(())
}

/// Checks that an active turn with erased steps still makes progress.
///
/// The turn's item and claim drive it as before, and a parked turn ends its wait at the deadline.
fn is_not_stuck(state: &Conversation, turn: &Turn) -> Result<(), TestCaseError> {
    let is = state.turn.as_ref().expect("the turn is active");
    prop_assert_eq!(
        (is.item, is.epoch, is.claims, is.park.is_some()),
        (turn.item, turn.epoch, turn.claims, turn.park.is_some())
    );
    if let Some(park) = &turn.park {
        let ended = decide(state, &Command::Expire { park: park.id });
        prop_assert!(ended.is_ok());
    } else {
        let claimed = decide(state, &Command::Claim { item: turn.item, worker: id(7), over: turn.epoch });
        prop_assert!(claimed.is_ok());
    }
    step_is_safe(is)
}

proptest! {
    #[test]
    fn random_decisions_keep_the_invariants(moves in prop::collection::vec(any_move(), 1..80)) {
        let mut world = World::default();
        let mut history = Vec::new();
        for what in &moves {
            let Some(command) = world.command(what) else { continue };
            let before = world.state.clone();
            let Ok(event) = decide(&world.state, &command) else { continue };
            let recorded = world.happens(event);
            let state = &world.state;
            prop_assert_eq!(state.last_seq, recorded.seq);
            let active = state.turn.as_ref().map(|turn| turn.request.turn);
            if let Some(before) = before.turn.as_ref().map(|turn| turn.request.turn) {
                prop_assert!(active.is_none_or(|id| id == before), "a turn was replaced without an end");
            }
            prop_assert_eq!(
                active.is_none() && before.turn.is_some(),
                terminal_of(&recorded.event).is_some(),
                "a turn ends with its terminal event and with nothing else"
            );
            let finished: BTreeSet<Uuid> = state.finished.iter().map(|turn| turn.id).collect();
            prop_assert_eq!(finished.len(), state.finished.len(), "a turn ends once");
            prop_assert!(active.is_none_or(|id| !finished.contains(&id)), "an ended turn runs again");
            prop_assert!(before.finished.iter().all(|turn| state.finished.contains(turn)), "an end was changed");
            if let Some(turn) = &state.turn {
                step_is_safe(turn)?;
            }
            survives_the_cache(state)?;
            history.push(recorded);
        }
        prop_assert!(world.terminals.values().all(|ends| *ends == 1));
        prop_assert!(world.begun.values().all(|times| *times == 1), "begun twice: {:?}", world.begun);
        erasing_tools_changes_texts_alone(&history)?;
        let mut again = Conversation::default();
        history.iter().for_each(|recorded| again.evolve(recorded));
        prop_assert_eq!(again, world.state, "the fold is a function of the events");
    }

    /// The fold takes events in any order, even such as no decision allows, without panic and with its invariants kept.
    #[test]
    fn the_fold_takes_any_events(events in prop::collection::vec(any_event(), 0..60)) {
        let mut state = Conversation::default();
        for event in events {
            let ended: Vec<_> = state.finished.iter().cloned().collect();
            let seq = state.last_seq + 1;
            state.evolve(&recorded(seq, event));
            prop_assert_eq!(state.last_seq, seq);
            prop_assert!(ended.iter().all(|turn| state.finished.contains(turn)), "an end was changed");
            if let Some(turn) = &state.turn {
                step_is_safe(turn)?;
            }
            survives_the_cache(&state)?;
        }
    }

    #[test]
    fn usage_adds_up_in_any_order(parts in prop::collection::vec((0u64..1_000, 0u64..1_000, 0u32..64), 1..8)) {
        // Costs are binary fractions, so their sums are exact.
        let usage = |(prompt_tokens, completion_tokens, cost): &(u64, u64, u32)| Usage {
            prompt_tokens: *prompt_tokens,
            completion_tokens: *completion_tokens,
            cached_tokens: prompt_tokens.checked_sub(500),
            reasoning_tokens: completion_tokens.checked_sub(500),
            cost_usd: Some(f64::from(*cost) / 64.0),
        };
        let forward = parts.iter().map(usage).reduce(Usage::plus);
        let backward = parts.iter().rev().map(usage).reduce(Usage::plus);
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn an_answer_keeps_its_text(text in ".{0,200}") {
        prop_assert_eq!(Response::plain(text.clone()).text(), text);
    }
}

/// Returns events of few turns, epochs, calls and parks, so that many of them fit and many do not.
fn any_event() -> impl Strategy<Value = Event> {
    let (turn, epoch) = (10u64..12, 0u64..20);
    (0u8..13, turn, epoch, 0u64..3, any::<bool>()).prop_map(|(kind, n, epoch, which, flag)| {
        let name = format!("call-{which}");
        match kind {
            0 => opened(),
            1 => requested(n),
            2 => replied(n, epoch, vec![gated("call-0"), call("call-1"), idempotent("call-2")]),
            3 => called(n, epoch, &name),
            4 => returned(n, epoch, &name),
            5 => parked(n, epoch, &name, which),
            6 if flag => completed(n, epoch, "Hello"),
            6 => failed(n, epoch),
            7 => resumed(n, which, flag),
            10 => elicits(n, epoch, &name, which, vec![asks(&name, &["a"], flag.then_some("s"), 1)]),
            11 if flag => became_task(n, epoch, &name),
            11 => waits_for_task(n, epoch, &name, which),
            _ => started(n, epoch),
        }
    })
}

fn resumed(turn: u64, park: u64, approved: bool) -> Event {
    let resolution = if approved { Resolution::Approved } else { Resolution::Declined };
    Event::TurnResumed(TurnResumed {
        turn: id(turn),
        park: id(park),
        resolution,
        values: None,
        by: None,
        pool: POOL.into(),
        not_after: None,
    })
}

fn started(turn: u64, item: u64) -> Event {
    Event::TurnStarted(TurnStarted { turn: id(turn), worker: id(7), item })
}
