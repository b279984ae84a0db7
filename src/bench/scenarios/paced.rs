//! paced: models at an even pace, as people see it; then the same with more streams and a faster pace than a small machine can
//! carry.

use super::streams::{self, StreamLoad};
use crate::bench::{Bench, outcome::ScenarioOutcome};

const STREAMS: usize = 50;
const TOKENS: u32 = 100;
const RATE: u32 = 20;

/// Four times the streams, each with a dozen times the pace: 200 streams offer 48,000 tokens a second, each written by itself.
/// Turns are longer too, so that the tokens saturate and not the turns.
const SATURATED_STREAMS_FACTOR: usize = 4;
const SATURATED_RATE_FACTOR: u32 = 12;
const SATURATED_TOKENS_FACTOR: u32 = 10;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<ScenarioOutcome>> {
    let load = StreamLoad {
        streams: bench.args.streams.unwrap_or(STREAMS),
        tokens: bench.args.tokens.unwrap_or(TOKENS),
        rate: bench.args.rate.unwrap_or(RATE),
        seconds: bench.args.seconds,
    };
    let saturated = StreamLoad {
        streams: load.streams * SATURATED_STREAMS_FACTOR,
        tokens: load.tokens * SATURATED_TOKENS_FACTOR,
        rate: load.rate * SATURATED_RATE_FACTOR,
        ..load
    };
    let mut outcomes = Vec::new();
    for (name, load) in [("paced", load), ("paced-saturated", saturated)] {
        let outcome = match streams::run(bench, name, load).await {
            Ok(measured) => streams::outcome(name, load, measured),
            Err(error) => ScenarioOutcome::failed(name, &error),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}
