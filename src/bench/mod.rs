//! `turnstream bench`: a load generator for servers of the smooth-operator protocol, with a built-in
//! fake model gateway.
//!
//! Contract: the bench is a black-box client. It knows the public WebSocket protocol and nothing of this crate, so it measures
//! any server of the protocol. Every answer is checked while it is timed: a missing or doubled token, a turn without exactly one
//! terminal frame, or any other wrong answer is an error, and a run with errors fails.
//!
//! ```text
//! clients ──ws──▶ servers under test ──http──▶ fake gateway (a thread of this process)
//!    ▲                                              │ each token carries its send time
//!    └────────────── added latency = read − write ──┘
//! ```

mod args;
mod baseline;
mod client;
mod clock;
mod compare;
mod fault;
mod figures;
mod gateway;
mod outcome;
mod plan;
mod procs;
mod product;
mod progress;
mod report;
mod scenarios;
mod turn;
mod users;
mod wire;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

pub use self::args::BenchArgs;
use self::baseline::Baseline;
use self::client::{BenchClient, ReadWindow};
use self::compare::Comparison;
use self::fault::Fault;
use self::figures::Figures;
use self::gateway::{FakeGateway, GatewayLog};
use self::procs::WatchedProcess;
use self::product::Product;
use self::users::TokenMinter;
use self::{outcome::ScenarioOutcome, report::BenchReport};

/// The shared state of the scenarios.
struct Bench {
    args: BenchArgs,
    targets: Vec<String>,
    watched: Vec<WatchedProcess>,
    gateway: Arc<GatewayLog>,
    users: TokenMinter,
    /// The agent of all sessions.
    agent: String,
    connections_made: AtomicUsize,
}

impl Bench {
    fn new(
        args: BenchArgs,
        targets: Vec<String>,
        watched: Vec<WatchedProcess>,
        gateway: &FakeGateway,
        secret: Option<String>,
    ) -> Bench {
        Bench {
            args,
            targets,
            watched,
            users: TokenMinter(secret),
            gateway: Arc::clone(&gateway.log),
            agent: Uuid::new_v4().to_string(),
            connections_made: AtomicUsize::new(0),
        }
    }

    /// Connects to the next edge, round-robin.
    async fn connect(&self, window: ReadWindow) -> Result<BenchClient, Fault> {
        BenchClient::connect(self.target(), window).await
    }

    /// Connects as one of many users, with the resume extension.
    async fn connect_as(&self, user: usize) -> Result<BenchClient, Fault> {
        let token = self.users.token(user).map(|token| format!("&token={token}")).unwrap_or_default();
        BenchClient::connect(&format!("{}?v=resume{token}", self.target()), ReadWindow::Normal).await
    }

    /// Returns the next edge's URL, round-robin.
    fn target(&self) -> &str {
        let number = self.connections_made.fetch_add(1, Ordering::Relaxed);
        &self.targets[number % self.targets.len()]
    }
}

/// Runs the scenarios, prints the report, and fails if any fault was found.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    for url in args.urls.iter().chain(&args.against) {
        if !url.starts_with("ws://") {
            bail!("{url}: only ws:// addresses can be measured");
        }
    }
    // Read before anything is measured, so that a mistake in it costs no run.
    let baseline = args.check.as_deref().map(read_baseline).transpose()?;
    let is_spawning = args.urls.is_empty() && !args.gateway_only;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let default = if is_spawning && args.against.is_none() { any_port } else { args::DEFAULT_GATEWAY };
    let gateway = FakeGateway::start(args.gateway_listen.unwrap_or(default))?;
    // From here on the product never outlives the bench: a signal during its start takes effect once it runs.
    let mut interrupts = Interrupts::new()?;
    if args.gateway_only {
        println!("gateway http://{}/v1", gateway.address);
        interrupts.wait().await;
        return Ok(());
    }

    let product = match is_spawning {
        true => Some(Product::start(gateway.address).await?),
        false => None,
    };
    let mut watched = args.watched();
    let mut targets = args.urls.clone();
    if let Some(product) = &product {
        watched.extend(product.watched());
        targets.push(product.url());
    }
    let secret = product.as_ref().map(|product| product.secret.clone());
    let against = args.against.clone().map(|url| {
        let watched = args.watched_against();
        Bench::new(args.clone(), vec![url], watched, &gateway, None)
    });
    let bench = Bench::new(args, targets, watched, &gateway, secret);
    let measured = tokio::select! {
        rounds = measure(&bench, against.as_ref()) => Ok(rounds),
        () = interrupts.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Some(product) = product {
        product.stop().await;
    }
    conclude(&bench, measured?, baseline)
}

/// The outcomes of all rounds, a list a round.
#[derive(Default)]
struct Measured {
    ours: Vec<Vec<ScenarioOutcome>>,
    theirs: Vec<Vec<ScenarioOutcome>>,
}

/// Measures every scenario as often as wanted, on both servers in turn.
async fn measure(bench: &Bench, against: Option<&Bench>) -> Measured {
    let mut measured = Measured::default();
    for _ in 0..bench.args.rounds() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for scenario in bench.args.chosen_scenarios() {
            ours.extend(scenarios::run(bench, scenario).await);
            if let Some(against) = against {
                theirs.extend(scenarios::run(against, scenario).await);
            }
        }
        measured.ours.push(ours);
        measured.theirs.push(theirs);
    }
    measured
}

/// Publishes the report; an error if an answer was wrong or a ratio is worse than the baseline's.
fn conclude(bench: &Bench, measured: Measured, baseline: Option<Baseline>) -> anyhow::Result<()> {
    let figures = |rounds: &[Vec<ScenarioOutcome>]| -> Vec<Figures> {
        rounds.iter().map(|outcomes| figures::of_round(outcomes)).collect()
    };
    let (ours, theirs) = (figures(&measured.ours), figures(&measured.theirs));
    let flat = |rounds: Vec<Vec<ScenarioOutcome>>| rounds.into_iter().flatten().collect();
    let mut report = BenchReport::new(bench.targets.clone(), flat(measured.ours), flat(measured.theirs));
    if let Some(url) = &bench.args.against {
        report.comparison = Some(Comparison::new(url.clone(), &ours, &theirs));
    }
    let medians = figures::medians(&ours);
    if let Some(baseline) = &baseline
        && report.errors == 0
    {
        report.checked = baseline.check(&medians)?;
    }
    publish(&report, bench.args.json.as_deref())?;
    if report.errors > 0 {
        bail!("{} errors found; the report lists the first one of each scenario", report.errors);
    }
    let worse = report.checked.iter().filter(|ratio| ratio.is_worse()).count();
    match (baseline, &bench.args.check) {
        (Some(baseline), Some(path)) if bench.args.renew => renew(path, baseline, &medians),
        _ if worse > 0 => bail!("{worse} ratios are worse than the baseline allows"),
        _ => Ok(()),
    }
}

fn read_baseline(path: &Path) -> anyhow::Result<Baseline> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Baseline::parse(&text).with_context(|| format!("{} is no baseline", path.display()))
}

/// Writes the ratios of this run into the baseline.
fn renew(path: &Path, baseline: Baseline, run: &Figures) -> anyhow::Result<()> {
    let measured = format!("{}, turnstream {}", chrono::Utc::now().date_naive(), env!("CARGO_PKG_VERSION"));
    let text = serde_json::to_string_pretty(&baseline.renewed(measured, run)?)?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the table and writes the JSON. If the JSON goes to standard output, the table goes to standard error.
fn publish(report: &BenchReport, json: Option<&Path>) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    match json {
        Some(path) if path == Path::new("-") => {
            eprint!("{report}");
            println!("{text}");
        }
        Some(path) => {
            print!("{report}");
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => print!("{report}"),
    }
    Ok(())
}

/// Ctrl-c and SIGTERM, caught from the creation of this value on.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> anyhow::Result<Interrupts> {
        Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
