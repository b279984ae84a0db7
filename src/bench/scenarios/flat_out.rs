//! flat-out: models that write as fast as the socket takes it, turn after turn.

use super::streams::{self, StreamLoad};
use crate::bench::{Bench, outcome::ScenarioOutcome};

const STREAMS: usize = 200;
/// Long enough that a turn's own cost is small beside its tokens'.
const TOKENS: u32 = 1_000;

pub async fn run(bench: &Bench) -> anyhow::Result<ScenarioOutcome> {
    let load = StreamLoad {
        streams: bench.args.streams.unwrap_or(STREAMS),
        tokens: bench.args.tokens.unwrap_or(TOKENS),
        rate: 0,
        seconds: bench.args.seconds,
    };
    let measured = streams::run(bench, "flat-out", load).await?;
    Ok(streams::outcome("flat-out", load, measured))
}
