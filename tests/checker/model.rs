//! The model as `stateright` explores it: worlds, actions, properties.

use stateright::{Model, Property};

use crate::{
    coverage::Sight,
    invariants::{self, Invariant},
    log::{Deciding, Server},
    mutation::Mutation,
    people::{self, Deed, Edge, View},
    state::{Faults, State},
    words::{Reply, Seq},
    worker::{self, Phase, Run},
};

/// The bounds of one exploration.
#[derive(Clone)]
pub struct World {
    pub name: &'static str,
    pub deeds: &'static [Deed],
    pub replies: &'static [Reply],
    pub max_model_calls: u32,
    pub faults: Faults,
    /// See [`Server::window`].
    pub window: bool,
    /// The conditions that the exploration must reach.
    pub sights: &'static [Sight],
}

/// A world, with its mutation if there is one.
pub struct Checked {
    pub world: World,
    pub rules: Rules,
}

/// The rules that the actors follow.
pub struct Rules {
    pub server: Server,
    pub max_model_calls: u32,
}

/// A slot of the state that may have a request to the log under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Edge(usize),
    Worker(usize),
    Due,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Begin(u8, View),
    /// An edge's or the deadline's request reaches the log, and its answer the sender.
    Send(Actor),
    Deliver(Seq),
    /// A worker goes on; the number selects the tool that answers, if that matters.
    Step(usize, u8),
    Reply(usize, Reply),
    Look(usize),
    Fire(Seq),
    /// Faults.
    Crash(Actor),
    HandOver(usize),
    Redeliver(Seq),
    Delay(Actor),
    GiveUp(Actor),
    Land(usize),
    Hour,
    /// No part of the system can go on by itself.
    Quiet,
}

impl Checked {
    pub fn new(world: World, mutation: Option<Mutation>) -> Self {
        let server = Server::new(world.window, mutation);
        let rules = Rules { server, max_model_calls: world.max_model_calls };
        Self { world, rules }
    }

    /// Adds the actions of the product itself.
    fn system(&self, state: &State, actions: &mut Vec<Action>) {
        for (slot, edge) in state.edges.iter().enumerate() {
            if edge.deciding().is_some() {
                actions.push(Action::Send(Actor::Edge(slot)));
            }
        }
        if state.due.is_some() {
            actions.push(Action::Send(Actor::Due));
        }
        for (slot, run) in state.runs.iter().enumerate() {
            let Run::Busy(driver) = run else { continue };
            match driver.phase {
                Phase::Asking => actions.extend(self.world.replies.iter().map(|reply| Action::Reply(slot, *reply))),
                Phase::Awaiting(calls) => {
                    actions.extend(worker::places(calls).map(|place| Action::Step(slot, place as u8)));
                }
                _ => actions.push(Action::Step(slot, 0)),
            }
        }
        if state.runs.contains(&Run::Idle) {
            let held = |seq: Seq| state.runs.iter().any(|run| run.item() == Some(seq));
            let due = state.queue.iter().filter(|item| !item.acked && (item.ready || !held(item.seq)));
            actions.extend(due.map(|item| Action::Deliver(item.seq)));
        }
    }

    /// Adds the actions of people and deadlines.
    fn outside(&self, state: &State, actions: &mut Vec<Action>) {
        if state.edges.contains(&Edge::Idle) {
            for (n, deed) in self.world.deeds.iter().enumerate() {
                if state.begun & (1 << n) == 0 && people::is_possible(state, *deed) {
                    let views = people::views(&self.rules, state, *deed);
                    actions.extend(views.into_iter().map(|view| Action::Begin(n as u8, view)));
                }
            }
        }
        if state.due.is_none() {
            let comes = |pending: bool| pending || state.faults.echoes > 0;
            let timers = state.timers.iter().filter(|timer| comes(timer.pending));
            actions.extend(timers.map(|timer| Action::Fire(timer.park)));
        }
        for (slot, run) in state.runs.iter().enumerate() {
            if run.may_look(state.log.last()) {
                actions.push(Action::Look(slot));
            }
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        let faults = state.faults;
        for (slot, run) in state.runs.iter().enumerate() {
            if *run != Run::Idle && faults.crashes > 0 {
                actions.push(Action::Crash(Actor::Worker(slot)));
            }
            if run.is_waiting() && faults.hand_overs > 0 {
                actions.push(Action::HandOver(slot));
            }
        }
        if state.due.is_some() && faults.crashes > 0 {
            actions.push(Action::Crash(Actor::Due));
        }
        if faults.pauses > 0 && state.runs.contains(&Run::Idle) {
            let held = |seq: Seq| state.runs.iter().any(|run| run.item() == Some(seq));
            let slow = state.queue.iter().filter(|item| !item.acked && !item.ready && held(item.seq));
            actions.extend(slow.map(|item| Action::Redeliver(item.seq)));
        }
        for actor in ACTORS {
            match deciding(state, actor) {
                Some(deciding) if deciding.tried => actions.push(Action::GiveUp(actor)),
                Some(_) if faults.delays > 0 => actions.push(Action::Delay(actor)),
                _ => {}
            }
        }
        actions.extend((0..state.network.len()).map(Action::Land));
        if faults.hours > 0 && state.asks_now() {
            actions.push(Action::Hour);
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        let rules = &self.rules;
        match action {
            Action::Begin(n, view) => {
                let edge = people::begin(state, n, self.world.deeds[usize::from(n)], view);
                let slot = state.edges.iter().position(|edge| *edge == Edge::Idle).expect("an edge is idle");
                state.edges[slot] = edge;
            }
            Action::Send(Actor::Edge(slot)) => {
                if let Edge::Busy { deciding, came_for } = state.edges[slot] {
                    state.edges[slot] = people::send(rules, state, deciding, came_for);
                }
            }
            Action::Send(Actor::Due) => {
                if let Some(deciding) = state.due {
                    people::expire(rules, state, deciding);
                }
            }
            Action::Send(Actor::Worker(_)) => unreachable!("a worker sends by a step"),
            Action::Step(slot, place) => {
                if let Run::Busy(driver) = state.runs[slot] {
                    state.runs[slot] = driver.step(rules, state, place);
                }
            }
            Action::Deliver(seq) | Action::Redeliver(seq) => self.deliver(state, seq, action),
            Action::Reply(slot, reply) => {
                if let Run::Busy(driver) = state.runs[slot] {
                    state.runs[slot] = driver.reply(rules, state, reply);
                }
            }
            Action::Look(slot) => {
                if let Run::Busy(driver) = state.runs[slot] {
                    state.runs[slot] = driver.look(rules, state);
                }
            }
            Action::Fire(park) => {
                let timer = state.timers.iter().find(|timer| timer.park == park);
                state.faults.echoes -= u8::from(timer.is_some_and(|timer| !timer.pending));
                people::fire(state, park);
            }
            Action::Crash(actor) => {
                state.faults.crashes -= 1;
                leave(state, actor);
            }
            Action::HandOver(slot) => {
                state.faults.hand_overs -= 1;
                if let Run::Busy(driver) = state.runs[slot] {
                    state.runs[slot] = driver.release(rules, state);
                }
            }
            Action::Delay(actor) => hold_up(state, actor),
            Action::GiveUp(actor) => leave(state, actor),
            Action::Land(n) => {
                let pending = state.network.remove(n);
                rules.server.land(&mut state.log, pending, state.hour);
                state.queue_last();
            }
            Action::Hour => {
                state.faults.hours -= 1;
                state.hour += 1;
            }
            Action::Quiet => state.judge_quiet(),
        }
    }

    fn deliver(&self, state: &mut State, seq: Seq, action: Action) {
        state.faults.pauses -= u8::from(action == Action::Redeliver(seq));
        let item = state.item(seq);
        item.ready = false;
        item.deliveries += 1;
        let run = worker::deliver(&self.rules, state, seq);
        let slot = state.runs.iter().position(|run| *run == Run::Idle).expect("a worker is idle");
        state.runs[slot] = run;
    }
}

const ACTORS: [Actor; 5] = [Actor::Edge(0), Actor::Edge(1), Actor::Worker(0), Actor::Worker(1), Actor::Due];

fn deciding(state: &State, actor: Actor) -> Option<&Deciding> {
    match actor {
        Actor::Edge(slot) => state.edges[slot].deciding(),
        Actor::Worker(slot) => state.runs[slot].deciding(),
        Actor::Due => state.due.as_ref(),
    }
}

fn deciding_mut(state: &mut State, actor: Actor) -> Option<&mut Deciding> {
    match actor {
        Actor::Edge(slot) => state.edges[slot].deciding_mut(),
        Actor::Worker(slot) => state.runs[slot].deciding_mut(),
        Actor::Due => state.due.as_mut(),
    }
}

/// A request to the log is held up, and its actor will try again.
fn hold_up(state: &mut State, actor: Actor) {
    state.faults.delays -= 1;
    if let Some(deciding) = deciding_mut(state, actor) {
        deciding.tried = true;
        let pending = deciding.pending;
        state.network.push(pending);
    }
}

/// An actor is gone, or gives up, without any answer.
fn leave(state: &mut State, actor: Actor) {
    match actor {
        Actor::Edge(slot) => state.edges[slot] = Edge::Idle,
        Actor::Worker(slot) => state.runs[slot] = Run::Idle,
        Actor::Due => state.due = None,
    }
}

impl Model for Checked {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.world.faults)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.quiet {
            return;
        }
        self.system(state, actions);
        if actions.is_empty() {
            actions.push(Action::Quiet);
        }
        self.outside(state, actions);
        self.faults(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, action);
        Some(next.canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let sights = self.world.sights.iter().map(|Sight(name, shows)| Property::sometimes(name, *shows));
        always().into_iter().chain(sights).collect()
    }
}

/// Returns a property for every invariant; `stateright` takes plain functions, so each is written out.
fn always() -> Vec<Property<Checked>> {
    macro_rules! hold {
        ($($name:ident,)*) => {
            vec![$(Property::always(Invariant::$name.name(), |_, state: &State| !state.has_broken(Invariant::$name)),)*]
        };
    }
    let properties = invariants::for_every_invariant!(hold);
    assert_eq!(properties.len(), invariants::ALL.len(), "every invariant is a property");
    properties
}
