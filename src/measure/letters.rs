//! Vectors without a model: a text's letter triples, counted in as many bins as the vector has components.
//!
//! They find misspelt words and know nothing of meaning. They stand in for an embedding where no model can be had.

const COMPONENTS: usize = 512;

/// The vector of a text.
pub fn vector(text: &str) -> Vec<f32> {
    let mut counts = vec![0.0; COMPONENTS];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let letters: Vec<char> = format!(" {} ", word.to_lowercase()).chars().collect();
        for triple in letters.windows(3) {
            counts[bin(triple)] += 1.0;
        }
    }
    counts
}

/// FNV-1a, which is the same on every machine.
fn bin(triple: &[char]) -> usize {
    let hash = triple.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, letter| {
        (hash ^ u64::from(u32::from(*letter))).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % COMPONENTS as u64) as usize
}
