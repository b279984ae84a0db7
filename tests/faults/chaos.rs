//! The chaos run: many conversations under every fault.
//!
//! Processes are killed, frozen and drained, the nats-server too, connections to it flap, clients drop theirs. For the
//! first half of the turns one fault comes at a time, and all visitors go on before the next one does; then faults
//! overlap.
//!
//! Contract: afterwards the log, the frames that the clients saw and the tools' counts are compared; there is no
//! violation. `TURNSTREAM_SEED` repeats a run's choices, `TURNSTREAM_TURNS` sets its length; `ops/chaos` does the long
//! run.

mod breaker;
mod bystander;
pub mod model;
pub mod report;
pub mod visitor;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use rand::{SeedableRng, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use crate::support::{
    gateway::FakeGateway,
    ground::Ground,
    log::Log,
    provider::{Provider, Tool},
    stage::Product,
};

const VISITORS: usize = 8;
/// The fewest turns of a run; visitors go on until every kind of fault has come once.
const TURNS: usize = 40;

/// The state shared by the visitors and the fault injection.
pub struct World {
    /// The addresses of the edges.
    pub edges: Mutex<Vec<String>>,
    /// Every request to the model.
    pub model_calls: Mutex<Vec<ModelCall>>,
    /// The time of each visitor's last frame; none = it has taken all its turns.
    heard_at: Mutex<Vec<Option<Instant>>>,
    /// The number of turns that have ended.
    ended: AtomicUsize,
    /// Every kind of fault has come.
    all_kinds: AtomicBool,
    /// The turns of a full queue, each with its session and request.
    queued: Mutex<Vec<(String, String)>>,
    /// Violations that the fault injection itself saw.
    objections: Mutex<Vec<String>>,
}

impl World {
    pub fn new(edges: Vec<String>, visitors: usize) -> Self {
        Self {
            edges: Mutex::new(edges),
            model_calls: Mutex::default(),
            heard_at: Mutex::new(vec![Some(Instant::now()); visitors]),
            ended: AtomicUsize::new(0),
            all_kinds: AtomicBool::new(true),
            queued: Mutex::default(),
            objections: Mutex::default(),
        }
    }

    /// Records a violation.
    fn object(&self, violation: String) {
        self.objections.lock().unwrap().push(violation);
    }

    /// Returns the visitors that still have turns to take and got no frame after this moment.
    pub fn not_heard_since(&self, moment: Instant) -> Vec<usize> {
        let heard_at = self.heard_at.lock().unwrap();
        (0..heard_at.len()).filter(|visitor| heard_at[*visitor].is_some_and(|at| at <= moment)).collect()
    }
}

/// A worker's request to the model for a turn.
pub struct ModelCall {
    pub message: String,
    pub worker: String,
    pub at: Instant,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[tokio::test]
async fn turns_survive_everything() {
    survive(1).await;
}

#[tokio::test]
async fn turns_survive_everything_on_three_servers() {
    survive(3).await;
}

async fn survive(servers: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("TURNSTREAM_SEED").unwrap_or(now.as_secs());
    let turns = setting("TURNSTREAM_TURNS").map_or(TURNS, |turns| usize::try_from(turns).unwrap());
    println!("seed {seed}, {turns} turns, servers: {servers}");
    let (ground, gateway) = tokio::join!(Ground::start(servers), FakeGateway::start());
    let product = Product { nats_url: ground.url(), gateway_url: gateway.base_url(), encrypts: true };
    product.apply_streams(&["--replicas", ground.copies()]).await;
    let world = Arc::new(World { all_kinds: AtomicBool::new(false), ..World::new(vec![], VISITORS) });
    let takes = Duration::from_millis(100);
    let tools = vec![
        Tool { name: "lookup", metadata: &[("idempotent", "true")], takes },
        Tool { name: "charge", metadata: &[], takes },
        Tool { name: "refund", metadata: &[("confirm", "true")], takes },
    ];
    let provider = Provider::start(&ground.url(), tools).await;
    let of_model = world.clone();
    gateway.respond_with(move |request| Some(model::answer(&of_model, request)));

    let begun = Instant::now();
    let done = CancellationToken::new();
    let rng = StdRng::seed_from_u64(seed);
    let breaker = breaker::Breaker::start(ground, product, world.clone(), turns / 2, rng).await;
    let visits = (0..VISITORS).map(|n| {
        let turns = turns / VISITORS + usize::from(n < turns % VISITORS);
        visitor::visit(world.clone(), n, turns, StdRng::seed_from_u64(seed.wrapping_add((n as u64 + 1) << 32)))
    });
    let visits = async {
        let visits = join_all(visits).await;
        done.cancel();
        visits.into_iter().flatten().collect::<Vec<_>>()
    };
    let (turns, (faults, ground)) = tokio::join!(visits, breaker.run(&done));

    let log = Log::read(&ground.client().await).await;
    let report = report::Report::new(&turns, &faults, &log, &provider, &world, begun.elapsed());
    println!("{}", report.table());
    assert!(report.violations.is_empty(), "seed {seed}:\n{}", report.violations.join("\n"));
}
