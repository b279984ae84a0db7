//! The command line of `turnstream bench`.
//!
//! Contract: all arguments are checked before a connection is opened. The defaults of a scenario stand in its own file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::procs::WatchedProcess;

/// Default address of the fake gateway, where servers under test look for it.
pub const DEFAULT_GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);

/// Rounds of a comparison: the fewest that have a median.
const COMPARED_ROUNDS: usize = 3;

/// Measure servers of the smooth-operator protocol with a built-in fake model gateway.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// WebSocket address of an edge, ws://HOST:PORT/ws. Repeat for several edges; connections are
    /// spread over them in turn. Without it the product itself is started for the measurement.
    #[arg(long = "url", value_name = "URL", conflicts_with = "spawn")]
    pub urls: Vec<String>,

    /// Start the whole product (`turnstream dev`) for the measurement; the default without --url.
    #[arg(long)]
    pub spawn: bool,

    /// Report CPU time and memory of this process. Repeatable.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pub pids: Vec<NamedPid>,

    /// Measure this server too, in turn with the first, scenario by scenario, and print the ratios. It has to be started with
    /// SMOOAI_GATEWAY_URL=http://127.0.0.1:9000/v1, or the address of --gateway-listen.
    #[arg(long, value_name = "URL")]
    pub against: Option<String>,

    /// Report CPU time and memory of this process of the server at --against. Repeatable.
    #[arg(long = "against-pid", value_name = "NAME=PID", requires = "against")]
    pub against_pids: Vec<NamedPid>,

    /// Number of times that all is measured; figures are medians. Default: 1, and 3 for a comparison or a check.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rounds: Option<usize>,

    /// Compare ratios between figures with this baseline, and fail if one has grown beyond the noise.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,

    /// Write the ratios of this run into the baseline of --check, instead of failing.
    #[arg(long, requires = "check")]
    pub renew: bool,

    /// Run only these scenarios. Repeatable; default: all but crowd, fan-out and growth.
    #[arg(long = "scenario", value_name = "NAME")]
    pub scenarios: Vec<Scenario>,

    /// Write the report as JSON to this file, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Connections of ping, sessions, idle, history and crowd, the viewers of fan-out, the sockets of slow-reader, and the
    /// herd of growth.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub connections: Option<usize>,

    /// Number of conversations that growth ends with.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = positive)]
    pub conversations: usize,

    /// Length of each measured window.
    #[arg(long, value_name = "N", default_value = "10", value_parser = seconds)]
    pub seconds: f64,

    /// Concurrent turns of paced (its saturated variant has four times as many) and flat-out.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub streams: Option<usize>,

    /// Tokens of a turn.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub tokens: Option<u32>,

    /// Tokens a second of one paced stream.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rate: Option<u32>,

    /// Address of the fake gateway: 127.0.0.1:9000 by default, any free port when the product is started here. Servers under
    /// test are started with SMOOAI_GATEWAY_URL=http://ADDR/v1.
    #[arg(long, value_name = "ADDR")]
    pub gateway_listen: Option<SocketAddr>,

    /// Run only the fake gateway until ctrl-c, to start or to try servers by hand. End it before a measurement: a measurement
    /// compares its own gateway's clock with the clients'.
    #[arg(long)]
    pub gateway_only: bool,

    /// Time beyond its own pace after which a turn counts as lost.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub turn_grace: f64,
}

impl BenchArgs {
    /// Returns the scenarios to run, in the order of the catalogue.
    pub fn chosen_scenarios(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        let unusual = [Scenario::Crowd, Scenario::FanOut, Scenario::Growth];
        let is_usual = |scenario: &Scenario| self.scenarios.is_empty() && !unusual.contains(scenario);
        all.filter(|scenario| is_usual(scenario) || self.scenarios.contains(scenario)).collect()
    }

    /// Returns the processes named by `--pid`.
    pub fn watched(&self) -> Vec<WatchedProcess> {
        let named = self.pids.iter();
        named.map(|named| WatchedProcess::new(&named.name, named.pid)).collect()
    }

    /// Returns the processes named by `--against-pid`.
    pub fn watched_against(&self) -> Vec<WatchedProcess> {
        self.against_pids.iter().map(|named| WatchedProcess::new(&named.name, named.pid)).collect()
    }

    /// Returns how often all is measured.
    pub fn rounds(&self) -> usize {
        let is_compared = self.against.is_some() || self.check.is_some();
        self.rounds.unwrap_or(if is_compared { COMPARED_ROUNDS } else { 1 })
    }

    /// Returns [`BenchArgs::turn_grace`] as a duration.
    pub fn grace(&self) -> Duration {
        Duration::from_secs_f64(self.turn_grace)
    }
}

/// The catalogue of scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Closed loop of application-level pings.
    Ping,
    /// Closed loop of new conversations.
    Sessions,
    /// Turns of an evenly paced model, then the same at saturation.
    Paced,
    /// Back-to-back turns of a model that writes as fast as the socket takes it.
    FlatOut,
    /// Memory of idle connections.
    Idle,
    /// Reading a conversation back.
    History,
    /// Sockets that never read, beside healthy streams.
    SlowReader,
    /// Refusals of another user's session and of a missing one, and the chance to tell them apart by time.
    NotYours,
    /// Many connections, of which a fifth stream: memory a connection, latency, CPU.
    Crowd,
    /// One conversation that many connections watch.
    FanOut,
    /// The cost of a turn's end, a herd of resumes, a page and a list as conversations grow in number. Takes minutes.
    Growth,
}

/// A process to watch, as `NAME=PID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPid {
    pub name: String,
    pub pid: u32,
}

impl FromStr for NamedPid {
    type Err = String;

    fn from_str(text: &str) -> Result<NamedPid, String> {
        let wrong = || format!("`{text}` is not NAME=PID");
        let (name, pid) = text.split_once('=').ok_or_else(wrong)?;
        let pid = pid.parse().map_err(|_| wrong())?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(NamedPid { name: name.to_owned(), pid })
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("must be a number of seconds above 0, a day at most".to_owned()),
    }
}
