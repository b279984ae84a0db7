//! Front matter: a block between two `---` lines at a file's head. A small part of YAML, read strictly: what decides who may
//! read a document is understood or refused, never guessed.

use serde::{Deserialize, Serialize};

/// What a document says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Front {
    pub title: Option<String>,
    pub url: Option<String>,
    pub set: Option<String>,
    /// `public`, `user:NAME`, `group:NAME`.
    pub acl: Option<Vec<String>>,
}

/// The front matter and the text after it. A file without a complete block is all text.
pub fn split(text: &str) -> Result<(Front, &str), String> {
    let Some(rest) = text.strip_prefix("---\n").or_else(|| text.strip_prefix("---\r\n")) else {
        return Ok((Front::default(), text));
    };
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Ok((read(&rest[..at])?, &rest[at + line.len()..]));
        }
        at += line.len();
    }
    Ok((Front::default(), text))
}

/// Top-level keys, each with the lines that are indented (or list items) below it. Keys that mean nothing here may hold
/// anything.
fn read(block: &str) -> Result<Front, String> {
    let mut entries: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let below = line.starts_with([' ', '\t', '-']);
        match (below, entries.last_mut(), line.split_once(':')) {
            (true, Some(entry), _) => entry.2.push(line.trim().to_string()),
            (false, _, Some((key, value))) => {
                entries.push((key.trim().to_lowercase(), value.trim().to_string(), vec![]));
            }
            _ => return Err(format!("the line `{line}` is no `key: value`")),
        }
    }
    let mut front = Front::default();
    for (key, value, below) in entries {
        let again = match key.as_str() {
            "title" => front.title.replace(one(&key, &value, &below)?).is_some(),
            "url" => front.url.replace(one(&key, &value, &below)?).is_some(),
            "set" => front.set.replace(one(&key, &value, &below)?).is_some(),
            "acl" => front.acl.replace(readers(&value, &below)?).is_some(),
            _ => false,
        };
        if again {
            return Err(format!("`{key}` is there twice"));
        }
    }
    Ok(front)
}

fn one(key: &str, value: &str, below: &[String]) -> Result<String, String> {
    let value = unquoted(value);
    if value.is_empty() || value.starts_with(['[', '{', '|', '>', '&', '*']) || !below.is_empty() {
        return Err(format!("`{key}` is one line of text"));
    }
    Ok(value)
}

/// `public`, or a list of `user:NAME` and `group:NAME`, or the keys `users` and `groups` with a list each.
fn readers(value: &str, below: &[String]) -> Result<Vec<String>, String> {
    let value = without_comment(value);
    if !value.is_empty() {
        return if below.is_empty() { list(value) } else { Err("`acl` has a value and lines below it".into()) };
    }
    let mut found = Vec::new();
    let mut kind: Option<&str> = None;
    for line in below {
        if let Some(item) = line.strip_prefix("- ") {
            found.push(match kind {
                Some(kind) => format!("{kind}:{}", unquoted(item)),
                None => unquoted(item),
            });
            continue;
        }
        let (key, value) = line.split_once(':').ok_or_else(|| format!("`{line}` is no part of an acl"))?;
        let singular = match key.trim() {
            "users" => "user",
            "groups" => "group",
            other => return Err(format!("an acl has `users` and `groups`, not `{other}`")),
        };
        kind = Some(singular);
        let value = without_comment(value.trim());
        if !value.is_empty() {
            found.extend(list(value)?.into_iter().map(|name| format!("{singular}:{name}")));
        }
    }
    if found.is_empty() { Err("`acl` names nobody".into()) } else { Ok(found) }
}

fn list(value: &str) -> Result<Vec<String>, String> {
    let inner = match value.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("a list ends with `]`")?,
        None => value,
    };
    let items: Vec<String> = inner.split(',').map(unquoted).filter(|item| !item.is_empty()).collect();
    if items.is_empty() { Err("a list is empty".into()) } else { Ok(items) }
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or_default().to_string();
        }
    }
    without_comment(value).to_string()
}

fn without_comment(value: &str) -> &str {
    if value.starts_with('#') { "" } else { value.split(" #").next().unwrap_or_default().trim() }
}
