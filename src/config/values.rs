//! Parsing of values: numbers, names of a list.

use super::{ConfigError, wrong};

pub(super) fn optional<T: std::str::FromStr>(
    text: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    what: &str,
) -> Result<Option<T>, ConfigError> {
    text(name).map(|value| value.parse().map_err(|_| wrong(name, format!("`{value}` is not {what}")))).transpose()
}

pub(super) fn parsed<T: std::str::FromStr>(
    text: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    what: &str,
    default: impl FnOnce() -> T,
) -> Result<T, ConfigError> {
    Ok(optional(text, name, what)?.unwrap_or_else(default))
}

/// Parses one of a few names, in any case.
pub(super) fn one_of<T: Copy>(
    text: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    names: &[(&str, T)],
) -> Result<Option<T>, ConfigError> {
    let Some(value) = text(name) else { return Ok(None) };
    let known = names.iter().find(|(known, _)| value.eq_ignore_ascii_case(known));
    let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    known
        .map(|(_, value)| Some(*value))
        .ok_or_else(|| wrong(name, format!("`{value}` is not one of {}", all.join(", "))))
}

/// Returns the name of a value, for printing.
pub(super) fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, known)| known == value).map_or("unset", |(name, _)| name)
}

pub(super) fn at_least_one(
    text: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    default: u32,
) -> Result<u32, ConfigError> {
    match parsed(text, name, "a number from 1", || default)? {
        0 => Err(wrong(name, "must be at least 1".into())),
        n => Ok(n),
    }
}
