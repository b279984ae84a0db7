//! The figures of a run by name, and their medians over several rounds.

use std::collections::BTreeMap;

use super::outcome::{ScenarioOutcome, ratio};

/// Figures by name, such as `paced: token added p50 ms`. The unit is the last word.
pub type Figures = BTreeMap<String, f64>;

/// The figures of one round.
pub fn of_round(outcomes: &[ScenarioOutcome]) -> Figures {
    let mut figures = Figures::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.errors == 0) {
        let scenario = &outcome.scenario;
        figures.insert(format!("{scenario}: rate per s"), outcome.rate_per_s);
        for (name, latency) in &outcome.latencies {
            figures.insert(format!("{scenario}: {name} p50 ms"), latency.p50_ms);
            figures.insert(format!("{scenario}: {name} p99 ms"), latency.p99_ms);
        }
        for (name, value) in &outcome.figures {
            figures.insert(format!("{scenario}: {}", name.replace('_', " ")), *value);
        }
        let cpu_ms: u64 = outcome.processes.iter().map(|used| used.cpu_ms).sum();
        if cpu_ms > 0 && outcome.count > 0 {
            figures.insert(format!("{scenario}: cpu each us"), ratio(cpu_ms as f64 * 1_000.0, outcome.count as f64));
        }
    }
    figures
}

/// The median of each figure over all rounds that have it.
pub fn medians(rounds: &[Figures]) -> Figures {
    let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in rounds.iter().flatten() {
        values.entry(name).or_default().push(*value);
    }
    values.into_iter().map(|(name, values)| (name.clone(), median(values))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::outcome::Samples;

    #[test]
    fn an_outcome_has_its_figures_by_name() {
        let mut samples = Samples::new();
        samples.add_ns(2_000_000);
        let mut outcome = ScenarioOutcome::new("paced");
        outcome.latency("token added", &samples).figure("tokens_per_s", 7.0);
        let mut failed = ScenarioOutcome::new("ping");
        failed.errors = 1;
        let figures = of_round(&[outcome, failed]);
        assert!((figures["paced: token added p50 ms"] - 2.0).abs() < 0.01);
        assert_eq!(figures["paced: tokens per s"], 7.0);
        assert!(!figures.keys().any(|name| name.starts_with("ping")), "a wrong answer has no speed");
    }

    #[test]
    fn the_median_is_of_the_rounds_that_have_the_figure() {
        let round = |values: &[(&str, f64)]| values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let all = medians(&[round(&[("a", 9.0), ("b", 1.0)]), round(&[("a", 2.0), ("b", 2.0)]), round(&[("a", 4.0)])]);
        assert_eq!(all, round(&[("a", 4.0), ("b", 1.5)]));
    }
}
