//! The fault injection: breaks one thing after the other, and replaces the broken parts.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::World;
use crate::support::{
    WAIT_MAX,
    ground::Ground,
    link::Link,
    probe::Probe,
    processes::Process,
    skew,
    stage::{Edge, Product},
};

/// The pause between two faults.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// A sleep that is longer than a work item's ack wait.
const ASLEEP: Duration = Duration::from_secs(7);
/// A sleep that is long enough to be noticed.
pub const NAP: Duration = Duration::from_secs(3);
/// The offsets of a wrong clock, in seconds: larger than a ready process may have.
const SKEWS: [i64; 2] = [-20, 20];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WorkerKilled,
    WorkerAsleep,
    WorkerDrained,
    WorkerClockWrong,
    EdgeKilled,
    EdgeAsleep,
    EdgeDrained,
    EdgeClockWrong,
    NatsKilled,
    NatsAsleep,
    LinksFlap,
    LinkCutDuringErasure,
    DecisionStalled,
    QueueFullNatsKilled,
}

/// The faults between a process and three servers: their short run has these at least.
const OF_SERVERS: [Kind; 6] = [
    Kind::NatsKilled,
    Kind::NatsAsleep,
    Kind::LinksFlap,
    Kind::LinkCutDuringErasure,
    Kind::DecisionStalled,
    Kind::QueueFullNatsKilled,
];

/// The weight of each kind, after each of the first ones has come once.
const WEIGHTS: [(Kind, usize); 14] = [
    (Kind::WorkerKilled, 5),
    (Kind::WorkerAsleep, 2),
    (Kind::WorkerDrained, 2),
    (Kind::WorkerClockWrong, 1),
    (Kind::EdgeKilled, 4),
    (Kind::EdgeAsleep, 1),
    (Kind::EdgeDrained, 2),
    (Kind::EdgeClockWrong, 1),
    (Kind::NatsKilled, 2),
    (Kind::NatsAsleep, 1),
    (Kind::LinksFlap, 2),
    (Kind::LinkCutDuringErasure, 1),
    (Kind::DecisionStalled, 1),
    (Kind::QueueFullNatsKilled, 1),
];

/// An injected fault.
pub struct Fault {
    pub kind: Kind,
    /// The affected worker.
    pub worker: Option<String>,
    pub at: Instant,
    /// The time of the repair.
    pub until: Instant,
}

impl Fault {
    /// Returns whether the fault could hold up turns in this time that have a connection.
    pub fn holds_up(&self, from: Instant, to: Instant) -> bool {
        !matches!(self.kind, Kind::EdgeKilled | Kind::EdgeDrained) && self.at < to && self.until > from
    }
}

/// A worker; its name is the model that it asks for.
pub struct Worker {
    pub name: String,
    pub process: Process,
    link: Link,
}

/// An edge, and its link to the log.
pub struct LinkedEdge {
    pub edge: Edge,
    pub link: Link,
}

/// The processes of the run.
pub struct Breaker {
    pub ground: Ground,
    pub product: Product,
    pub world: Arc<World>,
    /// The number of ended turns until which one fault is injected at a time.
    alone_until: usize,
    pub rng: StdRng,
    pub edges: Vec<LinkedEdge>,
    pub workers: Vec<Worker>,
    started: usize,
    /// The kinds of which each comes once before chance decides.
    first: Vec<Kind>,
    faults: Vec<Fault>,
}

impl Breaker {
    /// Starts two edges and two workers.
    pub async fn start(
        ground: Ground,
        product: Product,
        world: Arc<World>,
        alone_until: usize,
        mut rng: StdRng,
    ) -> Self {
        let mut first = match &ground {
            Ground::One(_) => WEIGHTS.map(|(kind, _)| kind).to_vec(),
            Ground::Three(_) => OF_SERVERS.to_vec(),
        };
        first.shuffle(&mut rng);
        let (edges, workers, faults) = (Vec::new(), Vec::new(), Vec::new());
        let mut breaker = Self { ground, product, world, alone_until, rng, edges, workers, started: 0, first, faults };
        for _ in 0..2 {
            let (edge, worker) = (breaker.new_edge(&[]).await, breaker.new_worker(&[]).await);
            breaker.edges.push(edge);
            breaker.workers.push(worker);
        }
        breaker
    }

    /// Breaks things until `done`. Returns the faults, and the servers that hold the log.
    pub async fn run(mut self, done: &CancellationToken) -> (Vec<Fault>, Ground) {
        loop {
            let pause = Duration::from_millis(self.rng.random_range(PAUSE_MS));
            if done.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            self.break_something().await;
            if self.world.ended.load(Ordering::Relaxed) < self.alone_until {
                self.let_all_visitors_go_on().await;
            }
        }
        self.edges.iter().for_each(|edge| expect_no_panic(&edge.edge.process));
        self.workers.iter().for_each(|worker| expect_no_panic(&worker.process));
        (self.faults, self.ground)
    }

    /// Waits until every visitor has got a frame since the last fault was mended.
    async fn let_all_visitors_go_on(&self) {
        let mended = Instant::now();
        let all = async {
            while !self.world.not_heard_since(mended).is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(WAIT_MAX, all).await.is_err() {
            let fault = self.faults.last().map(|fault| fault.kind);
            panic!("visitors {:?} are stuck after {fault:?}", self.world.not_heard_since(mended));
        }
    }

    async fn break_something(&mut self) {
        let kind = self.choose();
        let victim = self.rng.random_range(0..2);
        let of_worker = matches!(kind, Kind::WorkerKilled | Kind::WorkerAsleep | Kind::WorkerDrained);
        let worker = of_worker.then(|| self.workers[victim].name.clone());
        let at = Instant::now();
        self.inflict(kind, victim).await;
        self.faults.push(Fault { kind, worker, at, until: Instant::now() });
        if self.first.is_empty() {
            self.world.all_kinds.store(true, Ordering::Relaxed);
        }
    }

    fn choose(&mut self) -> Kind {
        if let Some(kind) = self.first.pop() {
            return kind;
        }
        let total: usize = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let choice = self.rng.random_range(0..total);
        let mut kinds = WEIGHTS.iter().flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight));
        kinds.nth(choice).expect("the choice is below the total")
    }

    async fn inflict(&mut self, kind: Kind, victim: usize) {
        let choice = self.rng.random_range(0..12);
        match kind {
            Kind::WorkerKilled => {
                self.workers[victim].process.kill().await;
                expect_no_panic(&self.workers[victim].process);
                self.workers[victim] = self.new_worker(&[]).await;
            }
            Kind::WorkerAsleep => {
                self.workers[victim].process.signal(libc::SIGSTOP);
                sleep(ASLEEP).await;
                self.workers[victim].process.signal(libc::SIGCONT);
            }
            Kind::WorkerDrained => {
                self.workers[victim].process.signal(libc::SIGTERM);
                let next = self.new_worker(&[]).await;
                let mut drained = std::mem::replace(&mut self.workers[victim], next);
                assert!(drained.process.ended().await.success(), "{} was drained", drained.name);
                expect_no_panic(&drained.process);
            }
            Kind::WorkerClockWrong => {
                let wrong = self.new_worker(&skew::by(SKEWS[choice % 2])).await;
                let right = std::mem::replace(&mut self.workers[victim], wrong);
                sleep(ASLEEP).await;
                let mut wrong = std::mem::replace(&mut self.workers[victim], right);
                wrong.process.kill().await;
                expect_no_panic(&wrong.process);
            }
            Kind::EdgeKilled => {
                self.edges[victim].edge.process.kill().await;
                expect_no_panic(&self.edges[victim].edge.process);
                self.replace_edge(victim).await;
            }
            Kind::EdgeDrained => {
                self.edges[victim].edge.process.signal(libc::SIGTERM);
                let LinkedEdge { edge: mut drained, link: _link } = self.replace_edge(victim).await;
                assert!(drained.process.ended().await.success(), "the edge was drained");
                expect_no_panic(&drained.process);
            }
            Kind::EdgeAsleep => {
                self.edges[victim].edge.process.signal(libc::SIGSTOP);
                sleep(NAP).await;
                self.edges[victim].edge.process.signal(libc::SIGCONT);
            }
            Kind::EdgeClockWrong => self.serve_with_a_wrong_clock(SKEWS[choice % 2]).await,
            Kind::NatsKilled => self.ground.kill_one(choice).await,
            Kind::NatsAsleep => self.ground.nap_one(choice, NAP).await,
            Kind::LinksFlap => {
                let links = self.edges.iter().map(|edge| &edge.link).chain(self.workers.iter().map(|w| &w.link));
                join_all(links.map(|link| link.flap(5, Duration::from_millis(200)))).await;
            }
            Kind::LinkCutDuringErasure => self.erase_while_cut(victim).await,
            Kind::DecisionStalled => self.stall_a_decision(victim).await,
            Kind::QueueFullNatsKilled => self.fill_the_queue(victim, choice).await,
        }
    }

    /// Starts one more edge, with a wrong clock: it must report that, and the visitors that connect to it must not
    /// suffer.
    async fn serve_with_a_wrong_clock(&mut self, seconds: i64) {
        let LinkedEdge { edge: mut wrong, link: _link } = self.new_edge(&skew::by(seconds)).await;
        let mut probe = Probe::connect(&wrong.address).await;
        probe.until_said(503, if seconds < 0 { "s behind that of" } else { "s ahead of that of" }).await;
        sleep(NAP).await;
        self.world.edges.lock().unwrap().retain(|address| *address != wrong.address);
        wrong.process.kill().await;
        expect_no_panic(&wrong.process);
    }

    async fn new_worker(&mut self, variables: &[(&str, String)]) -> Worker {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let link = Link::start(&self.ground.url()).await;
        let product = Product { nats_url: link.url(), ..self.product.clone() };
        let mut all = vec![("SMOOTH_AGENT_MODEL", name.as_str())];
        all.extend(variables.iter().map(|(name, value)| (*name, value.as_str())));
        let process = product.worker(&all).await;
        Worker { name, process, link }
    }

    async fn new_edge(&self, variables: &[(&str, String)]) -> LinkedEdge {
        let link = Link::start(&self.ground.url()).await;
        let product = Product { nats_url: link.url(), ..self.product.clone() };
        let edge = product.edge_with(variables).await;
        self.world.edges.lock().unwrap().push(edge.address.clone());
        LinkedEdge { edge, link }
    }

    async fn replace_edge(&mut self, victim: usize) -> LinkedEdge {
        let gone = self.edges[victim].edge.address.clone();
        self.world.edges.lock().unwrap().retain(|address| *address != gone);
        let next = self.new_edge(&[]).await;
        std::mem::replace(&mut self.edges[victim], next)
    }
}

fn expect_no_panic(process: &Process) {
    let output = process.output();
    assert!(!output.contains("panicked at"), "{output}");
}
