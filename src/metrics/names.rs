//! Bounds on the values of labels: a name that a model or a client makes up must not grow a process's memory.

use std::{
    collections::HashSet,
    sync::{Mutex, OnceLock},
};

/// The value of a label in place of further values.
pub const OTHER: &str = "other";
/// Values of one label before the others count as [`OTHER`].
const VALUES_MAX: usize = 100;
/// Length of a value; a longer one is a made-up one.
const VALUE_MAX_BYTES: usize = 128;

static ORGANISATIONS: OnceLock<usize> = OnceLock::new();

/// The values of a label that are named.
#[derive(Default)]
pub(super) struct BoundedNames(Mutex<HashSet<String>>);

impl BoundedNames {
    /// Returns the value, or [`OTHER`] when too many are named already.
    pub fn bounded<'a>(&self, value: &'a str) -> &'a str {
        self.within(value, VALUES_MAX)
    }

    /// Returns an organisation as a label's value: empty unless organisations are to be told apart.
    pub fn organisation<'a>(&self, org: &'a str) -> &'a str {
        match ORGANISATIONS.get().copied().unwrap_or_default() {
            0 => "",
            most => self.within(org, most),
        }
    }

    fn within<'a>(&self, value: &'a str, most: usize) -> &'a str {
        if value.is_empty() {
            return value;
        }
        let mut named = self.0.lock().expect("no panic happens under this lock");
        let is_named = named.contains(value)
            || (named.len() < most && value.len() <= VALUE_MAX_BYTES && named.insert(value.to_string()));
        if is_named { value } else { OTHER }
    }
}

/// Tells organisations apart, as many as this; the first call counts.
pub fn name_organisations(most: usize) {
    // A second role of the same process has the same setting.
    let _ = ORGANISATIONS.set(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_other() {
        let names = BoundedNames::default();
        assert_eq!(names.within("a", 1), "a");
        assert_eq!([names.within("b", 1), names.within("a", 1), names.within("", 1)], [OTHER, "a", ""]);
        assert_eq!(BoundedNames::default().bounded(&"x".repeat(VALUE_MAX_BYTES + 1)), OTHER);
        assert_eq!(names.organisation("acme"), "", "not told apart unless asked for");
    }
}
