//! Breaks one thing after the other, and replaces what is broken.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::StdRng};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::World;
use crate::support::{
    WAIT_MAX,
    processes::Process,
    proxy::Proxy,
    stage::{Edge, Product, Stage},
};

/// Between two faults.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// Longer than a work item waits for a sign of its worker.
const ASLEEP: Duration = Duration::from_secs(7);
/// Long enough to be noticed.
const NAP: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    WorkerKilled,
    WorkerAsleep,
    WorkerDrained,
    EdgeKilled,
    EdgeAsleep,
    EdgeDrained,
    NatsKilled,
    NatsAsleep,
    NatsFlaps,
}

/// How often each kind is chosen.
const WEIGHTS: [(Kind, u32); 9] = [
    (Kind::WorkerKilled, 5),
    (Kind::WorkerAsleep, 2),
    (Kind::WorkerDrained, 2),
    (Kind::EdgeKilled, 4),
    (Kind::EdgeAsleep, 1),
    (Kind::EdgeDrained, 2),
    (Kind::NatsKilled, 2),
    (Kind::NatsAsleep, 1),
    (Kind::NatsFlaps, 2),
];

/// Something that was broken.
pub struct Fault {
    pub kind: Kind,
    /// The worker that it was done to.
    pub worker: Option<String>,
    pub at: Instant,
    /// When it was mended.
    pub until: Instant,
}

impl Fault {
    /// Whether it could hold up turns in this time that have a connection.
    pub fn holds_up(&self, from: Instant, to: Instant) -> bool {
        !matches!(self.kind, Kind::EdgeKilled | Kind::EdgeDrained) && self.at < to && self.until > from
    }
}

/// The processes of the run.
pub struct Breaker {
    stage: Stage,
    /// The product's way to the nats-server.
    proxy: Proxy,
    product: Product,
    world: Arc<World>,
    /// Until so many turns have ended, one thing is broken at a time.
    alone_until: usize,
    rng: StdRng,
    edges: Vec<Edge>,
    /// The name of a worker is the model that it asks for.
    workers: Vec<(String, Process)>,
    started: usize,
    faults: Vec<Fault>,
}

impl Breaker {
    /// Starts two edges and two workers.
    pub async fn start(stage: Stage, world: Arc<World>, alone_until: usize, rng: StdRng) -> Self {
        let proxy = Proxy::start(&stage.nats.url()).await;
        let product = Product { nats_url: proxy.url(), ..stage.product.clone() };
        let (edges, workers, faults) = (Vec::new(), Vec::new(), Vec::new());
        let mut breaker = Self { stage, proxy, product, world, alone_until, rng, edges, workers, started: 0, faults };
        for _ in 0..2 {
            let (edge, worker) = (breaker.new_edge().await, breaker.new_worker().await);
            breaker.edges.push(edge);
            breaker.workers.push(worker);
        }
        breaker
    }

    /// Breaks things until `done`. Returns what was broken, and the stage.
    pub async fn run(mut self, done: &CancellationToken) -> (Vec<Fault>, Stage) {
        loop {
            let pause = Duration::from_millis(self.rng.random_range(PAUSE_MS));
            if done.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            self.break_something().await;
            if self.world.ended.load(Ordering::Relaxed) < self.alone_until {
                self.let_everybody_go_on().await;
            }
        }
        for process in self.edges.iter().map(|edge| &edge.process).chain(self.workers.iter().map(|(_, worker)| worker))
        {
            expect_no_panic(process);
        }
        (self.faults, self.stage)
    }

    /// Waits until every visitor has got a frame since the last fault was mended.
    async fn let_everybody_go_on(&self) {
        let mended = Instant::now();
        let all = async {
            while !self.world.not_heard_since(mended).is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(WAIT_MAX, all).await.is_err() {
            let fault = self.faults.last().map(|fault| fault.kind);
            panic!("visitors {:?} do not go on after {fault:?}", self.world.not_heard_since(mended));
        }
    }

    async fn break_something(&mut self) {
        let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut choice = self.rng.random_range(0..total);
        let (kind, _) = WEIGHTS
            .into_iter()
            .find(|(_, weight)| {
                let chosen = choice < *weight;
                choice = choice.saturating_sub(*weight);
                chosen
            })
            .expect("the choice is below the total");
        let victim = self.rng.random_range(0..2);
        let of_worker = matches!(kind, Kind::WorkerKilled | Kind::WorkerAsleep | Kind::WorkerDrained);
        let worker = of_worker.then(|| self.workers[victim].0.clone());
        let at = Instant::now();
        self.inflict(kind, victim).await;
        self.faults.push(Fault { kind, worker, at, until: Instant::now() });
    }

    async fn inflict(&mut self, kind: Kind, victim: usize) {
        match kind {
            Kind::WorkerKilled => {
                self.workers[victim].1.kill().await;
                expect_no_panic(&self.workers[victim].1);
                self.workers[victim] = self.new_worker().await;
            }
            Kind::WorkerAsleep => {
                self.workers[victim].1.signal(libc::SIGSTOP);
                sleep(ASLEEP).await;
                self.workers[victim].1.signal(libc::SIGCONT);
            }
            Kind::WorkerDrained => {
                self.workers[victim].1.signal(libc::SIGTERM);
                let next = self.new_worker().await;
                let (name, mut drained) = std::mem::replace(&mut self.workers[victim], next);
                assert!(drained.ended().await.success(), "{name} was drained");
                expect_no_panic(&drained);
            }
            Kind::EdgeKilled => {
                self.edges[victim].process.kill().await;
                expect_no_panic(&self.edges[victim].process);
                self.replace_edge(victim).await;
            }
            Kind::EdgeDrained => {
                self.edges[victim].process.signal(libc::SIGTERM);
                let mut drained = self.replace_edge(victim).await;
                assert!(drained.process.ended().await.success(), "the edge was drained");
                expect_no_panic(&drained.process);
            }
            Kind::EdgeAsleep => {
                self.edges[victim].process.signal(libc::SIGSTOP);
                sleep(NAP).await;
                self.edges[victim].process.signal(libc::SIGCONT);
            }
            Kind::NatsKilled => {
                self.stage.nats.kill().await;
                self.stage.nats.restart().await;
            }
            Kind::NatsAsleep => {
                self.stage.nats.process.signal(libc::SIGSTOP);
                sleep(NAP).await;
                self.stage.nats.process.signal(libc::SIGCONT);
            }
            Kind::NatsFlaps => self.proxy.flap(5, Duration::from_millis(200)).await,
        }
    }

    async fn new_worker(&mut self) -> (String, Process) {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let process = self.product.worker(&[("SMOOTH_AGENT_MODEL", &name)]).await;
        (name, process)
    }

    async fn new_edge(&self) -> Edge {
        let edge = self.product.edge().await;
        self.world.edges.lock().unwrap().push(edge.address.clone());
        edge
    }

    async fn replace_edge(&mut self, victim: usize) -> Edge {
        let gone = self.edges[victim].address.clone();
        self.world.edges.lock().unwrap().retain(|address| *address != gone);
        let next = self.new_edge().await;
        std::mem::replace(&mut self.edges[victim], next)
    }
}

fn expect_no_panic(process: &Process) {
    let output = process.output();
    assert!(!output.contains("panicked at"), "{output}");
}
