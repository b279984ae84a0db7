//! Documents that nobody wrote, with words as unevenly common as in a language.

use crate::knowledge::{Acl, NewChunk, NewDocument};

const VOCABULARY: usize = 20_000;
const CHUNKS: usize = 3;
const WORDS_OF_CHUNK: usize = 110;
/// Every fourth document is for one of these groups, so that filtering has something to do.
const GROUPS: u64 = 10;

/// A source of numbers that is the same for the same seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A word; the n-th of the vocabulary comes about 1/n as often as the first (Zipf's law).
    pub fn word(&mut self) -> String {
        let rank = (VOCABULARY as f64).powf(self.share()) as u64;
        word(rank)
    }

    pub fn words(&mut self, count: usize) -> String {
        (0..count).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }

    pub fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| (self.share() - 0.5) as f32).collect()
    }
}

/// Syllables that spell a number, so that each rank has its own word.
fn word(rank: u64) -> String {
    let syllable =
        |n: u64| format!("{}{}", b"bdfgklmnprstvz"[(n % 14) as usize] as char, b"aeiou"[(n / 14 % 5) as usize] as char);
    let mut word = String::new();
    let mut rest = rank + 70;
    while rest > 0 {
        word.push_str(&syllable(rest % 70));
        rest /= 70;
    }
    word
}

/// The n-th document.
pub fn document(seed: u64, n: u64, dimensions: usize) -> (NewDocument, Vec<NewChunk>) {
    let mut random = Random(seed.wrapping_mul(0x1_0000_0001).wrapping_add(n << 20));
    let acl = match n % 4 {
        0 => Acl::Only { users: [].into(), groups: [format!("group{}", n / 4 % GROUPS)].into() },
        _ => Acl::Public,
    };
    let document = NewDocument {
        id: format!("bench/{n}.md"),
        title: random.words(5),
        url: None,
        set: "default".into(),
        source: "bench".into(),
        acl,
        hash: format!("{seed}-{n}"),
        embedding_model: (dimensions > 0).then(|| "random".to_string()),
    };
    let chunk = |_| NewChunk {
        headings: vec![random.words(3)],
        text: random.words(WORDS_OF_CHUNK),
        vector: (dimensions > 0).then(|| random.vector(dimensions)),
    };
    (document, (0..CHUNKS).map(chunk).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_documents_and_another_one_others() {
        assert_eq!(document(1, 7, 4), document(1, 7, 4));
        assert_ne!(document(1, 7, 4).1, document(2, 7, 4).1);
        assert_ne!(document(1, 7, 4).1, document(1, 8, 4).1);
    }

    #[test]
    fn each_rank_has_a_word_and_the_first_are_common() {
        let words: HashSet<String> = (1..=VOCABULARY as u64).map(word).collect();
        assert_eq!(words.len(), VOCABULARY);
        let text = Random(1).words(10_000);
        let first = text.split(' ').filter(|w| *w == word(1)).count();
        let tenth = text.split(' ').filter(|w| *w == word(10)).count();
        assert!(first > 3 * tenth && tenth > 0, "{first} and {tenth}");
    }
}
