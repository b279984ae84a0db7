//! Parsing of values: numbers, names of a list, switches, files, URLs of gateways.

use std::{fs::File, path::PathBuf};

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

/// Reads a switch: another word than these would silently leave it off.
pub(super) fn switch(text: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<bool, ConfigError> {
    match text(name).map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("0" | "false" | "no" | "off") => Ok(false),
        Some("1" | "true" | "yes" | "on") => Ok(true),
        Some(value) => Err(wrong(name, format!("`{value}` is neither true nor false"))),
    }
}

/// Checks that a file can be read.
pub(super) fn file(text: &dyn Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = text(name).map(PathBuf::from) else { return Ok(None) };
    let problem = match File::open(&path).and_then(|file| file.metadata()) {
        Ok(data) if data.is_dir() => "is a folder".to_string(),
        Ok(_) => return Ok(Some(path)),
        Err(error) => error.to_string(),
    };
    Err(wrong(name, format!("`{}`: {problem}", path.display())))
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
