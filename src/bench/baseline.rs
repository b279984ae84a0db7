//! A committed baseline: ratios between figures of one run, which hardly depend on the machine.
//!
//! An absolute time says more about the machine than about the program. A ratio of two figures of the same run, such as a
//! token's added time to a ping's, moves when one of the two paths gets slower.

use std::fmt;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::figures::Figures;

/// One ratio between two figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineRatio {
    /// The figure that is watched.
    pub of: String,
    /// The figure that it is divided by.
    pub to: String,
    /// The ratio when the baseline was written.
    pub was: f64,
    /// The largest growth that passes, as a factor: the noise of a run.
    pub growth: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The date and the build of the figures.
    pub measured: String,
    pub ratios: Vec<BaselineRatio>,
}

/// A ratio of the baseline, measured again.
#[derive(Debug, Serialize)]
pub struct CheckedRatio {
    #[serde(flatten)]
    pub baseline: BaselineRatio,
    pub is: f64,
    pub grown: f64,
}

impl CheckedRatio {
    pub fn is_worse(&self) -> bool {
        self.grown > self.baseline.growth
    }
}

impl Baseline {
    /// Parses the text of a baseline file.
    pub fn parse(text: &str) -> anyhow::Result<Baseline> {
        let baseline: Baseline = serde_json::from_str(text)?;
        for ratio in &baseline.ratios {
            let (of, to) = (&ratio.of, &ratio.to);
            if !(ratio.was.is_normal() && ratio.was > 0.0 && ratio.growth >= 1.0) {
                bail!("{of} / {to}: `was` must be above 0, and `growth` at least 1");
            }
        }
        Ok(baseline)
    }

    /// Compares a run with the baseline. A figure that the run lacks is an error.
    pub fn check(&self, run: &Figures) -> anyhow::Result<Vec<CheckedRatio>> {
        self.ratios.iter().map(|ratio| checked(ratio, run)).collect()
    }

    /// The same ratios, as this run has them.
    pub fn renewed(self, measured: String, run: &Figures) -> anyhow::Result<Baseline> {
        let checked = self.check(run)?;
        let ratios = checked.into_iter().map(|checked| BaselineRatio { was: checked.is, ..checked.baseline }).collect();
        Ok(Baseline { measured, ratios })
    }
}

fn checked(baseline: &BaselineRatio, run: &Figures) -> anyhow::Result<CheckedRatio> {
    let figure = |name: &str| run.get(name).copied().with_context(|| format!("the run has no figure `{name}`"));
    let (of, to) = (figure(&baseline.of)?, figure(&baseline.to)?);
    if to <= 0.0 {
        bail!("`{}` is {to}, so nothing can be divided by it", baseline.to);
    }
    let is = of / to;
    Ok(CheckedRatio { baseline: baseline.clone(), is, grown: is / baseline.was })
}

impl fmt::Display for CheckedRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BaselineRatio { of, to, was, growth } = &self.baseline;
        let verdict = if self.is_worse() { "WORSE" } else { "ok" };
        write!(f, "{verdict:<6} ×{:<5.2} (at most ×{growth}) {of} / {to}: {was:.3} → {:.3}", self.grown, self.is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"measured": "a day", "ratios": [{"of": "a ms", "to": "b ms", "was": 2.0, "growth": 1.5}]}"#;

    fn run(a: f64) -> Figures {
        Figures::from([("a ms".to_owned(), a), ("b ms".to_owned(), 10.0)])
    }

    #[test]
    fn a_ratio_within_the_noise_passes_and_a_larger_one_does_not() {
        let baseline = Baseline::parse(TEXT).unwrap();
        assert!(!baseline.check(&run(29.0)).unwrap()[0].is_worse());
        let worse = &baseline.check(&run(31.0)).unwrap()[0];
        assert!(worse.is_worse());
        assert!(worse.to_string().starts_with("WORSE"), "{worse}");
    }

    #[test]
    fn a_figure_that_is_missing_is_an_error() {
        let run = Figures::from([("a ms".to_owned(), 1.0)]);
        let error = Baseline::parse(TEXT).unwrap().check(&run).unwrap_err();
        assert!(error.to_string().contains("`b ms`"), "{error}");
    }

    #[test]
    fn a_renewed_baseline_has_the_ratios_of_the_run() {
        let renewed = Baseline::parse(TEXT).unwrap().renewed("another day".to_owned(), &run(40.0)).unwrap();
        assert_eq!((renewed.measured.as_str(), renewed.ratios[0].was), ("another day", 4.0));
    }

    #[test]
    fn a_baseline_that_cannot_be_meant_is_refused() {
        assert!(Baseline::parse(&TEXT.replace("2.0", "0.0")).is_err());
        assert!(Baseline::parse(&TEXT.replace("1.5", "0.5")).is_err());
        assert!(Baseline::parse(&TEXT.replace("growth", "grow")).is_err());
    }
}
