//! Two servers measured in turn, figure by figure.

use std::fmt;

use serde::Serialize;

use super::{
    figures::{Figures, medians},
    outcome::ratio,
};

/// A figure of both servers.
#[derive(Debug, Serialize)]
pub struct ComparedFigure {
    pub name: String,
    pub ours: f64,
    pub theirs: f64,
    pub ratio: f64,
}

/// The medians of both servers over the same number of rounds.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub against: String,
    pub rounds: usize,
    pub figures: Vec<ComparedFigure>,
    /// Figures that one of the two servers lacks, since its answers were wrong or its processes are not watched.
    pub missing: Vec<String>,
}

impl Comparison {
    pub fn new(against: String, ours: &[Figures], theirs: &[Figures]) -> Comparison {
        let rounds = ours.len();
        let (ours, theirs) = (medians(ours), medians(theirs));
        let mut figures = Vec::new();
        let mut missing: Vec<String> = theirs.keys().filter(|name| !ours.contains_key(*name)).cloned().collect();
        for (name, ours) in ours {
            match theirs.get(&name) {
                Some(&theirs) => figures.push(ComparedFigure { name, ours, theirs, ratio: ratio(ours, theirs) }),
                None => missing.push(name),
            }
        }
        Comparison { against, rounds, figures, missing }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nagainst {}, medians of {} rounds in turn", self.against, self.rounds)?;
        writeln!(f, "  {:<44} {:>12} {:>12} {:>8}", "figure", "first", "against", "ratio")?;
        for figure in &self.figures {
            let ComparedFigure { name, ours, theirs, ratio } = figure;
            writeln!(f, "  {name:<44} {ours:>12.3} {theirs:>12.3} {ratio:>8.2}")?;
        }
        if !self.missing.is_empty() {
            writeln!(f, "  of one server only: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_both_are_compared_and_others_are_named() {
        let figures =
            |values: &[(&str, f64)]| values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let ours = [figures(&[("a ms", 3.0), ("b ms", 1.0)]), figures(&[("a ms", 5.0)])];
        let theirs = [figures(&[("a ms", 2.0), ("c ms", 1.0)]), figures(&[("a ms", 2.0)])];
        let compared = Comparison::new("ws://other/ws".to_owned(), &ours, &theirs);
        assert_eq!(compared.rounds, 2);
        assert_eq!(compared.missing, ["c ms", "b ms"]);
        let [figure] = &compared.figures[..] else { panic!("{compared:?}") };
        assert_eq!((figure.ours, figure.theirs, figure.ratio), (4.0, 2.0, 2.0));
        assert!(compared.to_string().contains("2.00"));
    }
}
