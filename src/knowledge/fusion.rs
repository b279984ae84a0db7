//! Fuses two rankings: of the passages that hold a question's words, and of those with near vectors.
//!
//! Fixed weights are wrong for one kind of question or the other: words find names and codes and miss paraphrases,
//! vectors the other way round. So each ranking is weighted by its confidence for this question, and a passage's share
//! of it is its margin over the passages that follow: a ranking of equal scores says nothing. The constants were chosen
//! on the labelled sets in [`super::bench`], with a real embedding; the figures are in `tests/MEASURED.md`.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use super::full_text::TextHit;

/// The number of documents after the first that make the background for the first one's margin.
const BACKGROUND: usize = 10;
/// The weight of vector similarity against words at equal margins: similarities lie closer together.
const NEAR_WEIGHT: f64 = 3.0;
/// The least margin of similarities; smaller ones come from a model that does not know the question's language.
const NEAR_LEAST: f64 = 0.1;
/// A small share of the score, which orders passages without a margin.
const ORDER: f64 = 1e-6;

/// Passages with their scores, best first: the share of the question's words in a passage, or vector similarity.
pub type Ranking = Vec<(TextHit, f32)>;

/// Fuses two rankings into one, best first. Scores are from 0 to 1; a passage that is first in all rankings has 1.
pub fn fuse(words: &Ranking, near: &Ranking) -> Vec<(TextHit, f64)> {
    let (of_words, of_near) = match (Standing::of(words), Standing::of(near)) {
        (None, None) => return vec![],
        (Some(one), None) | (None, Some(one)) => return one.alone(),
        (Some(words), Some(near)) => (words, near),
    };
    // A passage with few of the question's words is found by chance.
    let trust_words = of_words.top.min(1.0).powi(2) * of_words.gap;
    let trust_near = NEAR_WEIGHT * (of_near.gap - NEAR_LEAST).max(0.0) / (1.0 - NEAR_LEAST);
    let mut scores: HashMap<&TextHit, f64> = HashMap::new();
    for (standing, trust) in [(&of_words, trust_words), (&of_near, trust_near)] {
        for (hit, score) in standing.ranking {
            *scores.entry(hit).or_default() +=
                trust * standing.of_score(*score) + ORDER * f64::from(*score) / standing.top;
        }
    }
    let best = trust_words + trust_near + 2.0 * ORDER;
    let mut fused: Vec<(TextHit, f64)> = scores.into_iter().map(|(hit, score)| (hit.clone(), score / best)).collect();
    fused.sort_by(order);
    fused
}

/// A ranking, and the margin of its first passage.
struct Standing<'a> {
    ranking: &'a Ranking,
    top: f64,
    /// The first passage's distance from the documents that follow, as a share of its score.
    gap: f64,
}

impl<'a> Standing<'a> {
    fn of(ranking: &'a Ranking) -> Option<Self> {
        let top = f64::from(ranking.first().filter(|(_, score)| *score > 0.0)?.1);
        let mut seen = HashSet::new();
        let documents = ranking.iter().filter(|(hit, _)| seen.insert(&hit.key));
        let following: Vec<f64> = documents.skip(1).take(BACKGROUND).map(|(_, score)| f64::from(*score)).collect();
        let mean = following.iter().sum::<f64>() / following.len().max(1) as f64;
        Some(Self { ranking, top, gap: (top - mean) / top })
    }

    /// Returns 1 for the first passage, 0 for one that is no better than the background.
    fn of_score(&self, score: f32) -> f64 {
        match self.gap > 0.0 {
            true => (1.0 - (self.top - f64::from(score)) / self.top / self.gap).max(0.0),
            false => 0.0,
        }
    }

    fn alone(&self) -> Vec<(TextHit, f64)> {
        let mut ranked: Vec<_> =
            self.ranking.iter().map(|(hit, score)| (hit.clone(), f64::from(*score) / self.top)).collect();
        ranked.sort_by(order);
        ranked
    }
}

fn order(a: &(TextHit, f64), b: &(TextHit, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::document_fold::DocumentKey;

    fn ranking(scores: &[(&str, f32)]) -> Ranking {
        let hit = |token: &str| TextHit { key: DocumentKey { org: "acme".into(), token: token.into() }, chunk: 0 };
        scores.iter().map(|(token, score)| (hit(token), *score)).collect()
    }

    fn tokens(fused: &[(TextHit, f64)]) -> String {
        fused.iter().map(|(hit, _)| hit.key.token.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_reliable_ranking_decides() {
        let sure_words = ranking(&[("code", 1.4), ("b", 0.3), ("c", 0.2)]);
        let flat_near = ranking(&[("c", 0.81), ("b", 0.8), ("code", 0.79)]);
        assert_eq!(fuse(&sure_words, &flat_near)[0].0.key.token, "code");
        let poor_words = ranking(&[("c", 0.2), ("b", 0.19), ("a", 0.18)]);
        let sure_near = ranking(&[("meant", 0.7), ("b", 0.2), ("c", 0.1)]);
        assert_eq!(fuse(&poor_words, &sure_near)[0].0.key.token, "meant");
    }

    #[test]
    fn one_ranking_alone_stays_as_it_is() {
        let words = ranking(&[("a", 0.5), ("b", 0.4), ("c", 0.4), ("d", 0.1)]);
        for fused in [fuse(&words, &vec![]), fuse(&vec![], &words)] {
            assert_eq!((tokens(&fused).as_str(), fused[0].1), ("a b c d", 1.0));
        }
        assert!(fuse(&vec![], &vec![]).is_empty());
        assert!(fuse(&ranking(&[("a", 0.0)]), &vec![]).is_empty());
    }

    #[test]
    fn fusion_keeps_every_hit_and_a_double_first_has_the_full_score() {
        let (words, near) =
            (ranking(&[("a", 0.9), ("b", 0.8), ("c", 0.1)]), ranking(&[("a", 0.6), ("d", 0.5), ("e", 0.5)]));
        let fused = fuse(&words, &near);
        assert_eq!(fused.len(), 5);
        assert!((fused[0].1 - 1.0).abs() < 1e-9 && fused.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
        // Two rankings of equal scores keep their order.
        let same = ranking(&[("a", 0.5), ("b", 0.5)]);
        assert_eq!(tokens(&fuse(&same, &same)), "a b");
    }
}
