//! The name that a misspelt one may mean.

/// Edits that make a misspelt name of one that is known: letters left out, added or changed.
const EDITS_MAX: usize = 2;

/// Returns the known name that is nearest to an unknown one, if it is near enough.
pub(super) fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let near = known.iter().map(|known| (edits(name, known), *known)).filter(|(edits, _)| *edits <= EDITS_MAX);
    near.min_by_key(|(edits, _)| *edits).map(|(_, known)| known)
}

/// Returns the number of letters to leave out, add or change (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_has_a_likely_meaning() {
        let known = ["SMOOTH_AGENT_PORT", "NATS_PASSWORD", "NATS_USER"];
        for (name, expected) in [
            ("SMOOTH_AGENT_PROT", Some("SMOOTH_AGENT_PORT")),
            ("NATS_PASWORD", Some("NATS_PASSWORD")),
            ("NATS_USERS", Some("NATS_USER")),
            ("NATS_CONTEXT", None),
            ("PATH", None),
        ] {
            assert_eq!(meant(name, &known), expected, "{name}");
        }
    }
}
