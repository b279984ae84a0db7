//! Front matter: a block at a file's head between a line `---` and a line `---` or `...`.
//!
//! The block is a small part of YAML, parsed strictly: text that decides who may read a document is understood or
//! refused, never guessed. So is text that looks as if it should decide that.

use serde::{Deserialize, Serialize};

/// The parsed front matter of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrontMatter {
    pub title: Option<String>,
    pub url: Option<String>,
    pub set: Option<String>,
    /// `public`, `user:NAME`, `group:NAME`.
    pub acl: Option<Vec<String>>,
}

/// Characters before a key that is written in another form.
const OPENERS: &[char] = &['{', ',', '/', '*', '<', '!', '-', '#', ':', '.', '@', ' ', '\t', '"', '\''];
/// The number of lines in a file's head, blank ones aside.
const HEAD_LINES: usize = 40;

/// Returns the front matter and the text after it. Lines end with a line feed here. Without an opening line, all is
/// text.
pub fn split(text: &str) -> Result<(FrontMatter, &str), String> {
    let mut lines = text.split_inclusive('\n');
    let Some(opening) = lines.by_ref().find(|line| !blank(line)) else { return Ok((FrontMatter::default(), text)) };
    if !is_fence(opening) {
        let opening = trimmed(opening);
        if opens_another_form(opening) {
            return Err(format!("the line `{opening}` opens none that is understood: write `---`"));
        }
        refuse_readers(text)?;
        return Ok((FrontMatter::default(), text));
    }
    let from = opening.as_ptr() as usize - text.as_ptr() as usize + opening.len();
    let (rest, mut at) = (&text[from..], 0);
    for line in rest.split_inclusive('\n') {
        if is_fence(line) || trimmed(line) == "..." {
            let (front, text) = (read(&rest[..at])?, &rest[at + line.len()..]);
            // A second block may name readers that the first does not.
            refuse_readers(text)?;
            return Ok((front, text));
        }
        at += line.len();
    }
    Err("a line `---` opens it, and no such line ends it".into())
}

/// Refuses a text that names its readers at its head outside of understood front matter.
///
/// Such a text has another form, lacks the opening line, or has the key below other text.
pub fn refuse_readers(text: &str) -> Result<(), String> {
    let head: Vec<&str> = text.lines().filter(|line| !blank(line)).take(HEAD_LINES).collect();
    // A heading ends the head, unless a block stands below the heading.
    let heading = head.iter().position(|line| line.starts_with("# "));
    let end = heading.filter(|at| !head[*at..].iter().any(|line| is_fence(line))).map_or(head.len(), |at| at + 1);
    for line in &head[..end] {
        if says_readers(line) {
            return Err(format!(
                "the line `{}` is in none, which a line `---` opens in a Markdown file",
                shortened(line)
            ));
        }
    }
    Ok(())
}

/// Returns whether a line, or a part of it, is a key that means the readers, and its value.
///
/// Such lines are `acl: …`, `:acl: …`, `"acl": …`, `acl = …`, `{owner: ann, acl: …}`, `<meta name="acl" …`. Words of a
/// sentence do not count.
fn says_readers(line: &str) -> bool {
    let line = trimmed(line).trim_start_matches(OPENERS);
    let is_key = |part: &str| {
        let key = part.trim_start_matches(OPENERS);
        !key.trim().contains(char::is_whitespace) && names_readers(key)
    };
    let first = line.split([':', '=']).next().filter(|key| key.len() < line.len()).is_some_and(is_key);
    let is_map = line.contains(['{', '"', '\'', '[', ',']);
    let parts = line.split(['{', ',', '[']).filter_map(|part| part.split_once([':', '='])).any(|(key, _)| is_key(key));
    let lower = line.to_lowercase();
    let in_meta =
        lower.contains("meta") && ["name=\"acl\"", "name='acl'", "name=acl"].iter().any(|mark| lower.contains(mark));
    let in_quotes = ["\"acl\":", "'acl':", "\"acl\" :"].iter().any(|mark| lower.contains(mark));
    first || is_map && parts || in_meta || in_quotes
}

fn shortened(line: &str) -> String {
    trimmed(line).chars().take(80).collect()
}

/// Returns whether a line opens another form: `+++`, `---yaml`, three dashes that an editor has replaced, and the like.
fn opens_another_form(line: &str) -> bool {
    let rest = line
        .trim_start_matches(['-', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2015}', '\u{2212}']);
    let dashes = &line[..line.len() - rest.len()];
    let is_word = !rest.is_empty() && rest.trim().chars().all(char::is_alphabetic);
    let is_foreign = ["+++", ";;;", "%YAML"].iter().any(|mark| line.starts_with(mark));
    is_foreign || !dashes.is_ascii() && rest.is_empty() || dashes == "---" && (is_word || rest.contains(':'))
}

fn is_fence(line: &str) -> bool {
    let line = trimmed(line);
    line == "---"
        || line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_start().starts_with('#') && rest.starts_with([' ', '\t']))
}

fn blank(line: &str) -> bool {
    trimmed(line).is_empty()
}

/// Returns a line without invisible characters at both ends.
fn trimmed(line: &str) -> &str {
    line.trim_matches(|c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')
    })
}

/// Returns whether a key means the readers, also when misspelt.
fn names_readers(key: &str) -> bool {
    let key = trimmed(key).trim_matches(['"', '\'', '`']).to_lowercase();
    key.split(|letter: char| !letter.is_alphanumeric()).any(|word| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters == ['a', 'c', 'l'] || word == "acls"
    })
}

/// Parses top-level keys, each with the lines below it that are indented or list items. Unknown keys may hold any
/// value.
fn read(block: &str) -> Result<FrontMatter, String> {
    let mut entries: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in block.lines().filter(|line| !blank(line) && !line.trim_start().starts_with('#')) {
        let below = line.starts_with([' ', '\t', '-']);
        match (below, entries.last_mut(), line.split_once(':')) {
            (true, Some(entry), _) => entry.2.push(line.trim().to_string()),
            (false, _, Some((key, value))) => {
                entries.push((plain_key(key)?, value.trim().to_string(), vec![]));
            }
            _ => return Err(format!("the line `{}` is no `key: value`", trimmed(line))),
        }
    }
    let mut front = FrontMatter::default();
    for (key, value, below) in entries {
        let again = match key.as_str() {
            "title" => front.title.replace(one(&key, &value, &below)?).is_some(),
            "url" => front.url.replace(one(&key, &value, &below)?).is_some(),
            "set" => front.set.replace(one(&key, &value, &below)?).is_some(),
            "acl" => front.acl.replace(readers(&value, &below)?).is_some(),
            other if names_readers(other) => return Err(format!("`{other}` means nothing; `acl` does")),
            other => {
                let says = below.iter().map(String::as_str).chain([value.as_str()]).any(says_readers);
                if says {
                    return Err(format!("it says who may read it below `{other}`, which means nothing"));
                }
                false
            }
        };
        if again {
            return Err(format!("`{key}` is there twice"));
        }
    }
    Ok(front)
}

/// Returns a key in lower case if it has a usual form; other keys may belong to parts of YAML that are not read here.
fn plain_key(key: &str) -> Result<String, String> {
    let key = trimmed(key);
    let inner = ['"', '\''].into_iter().find_map(|quote| key.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(key);
    let is_plain = |c: char| c.is_alphanumeric() || "_-. /@$()+,;%~=".contains(c);
    match !inner.is_empty() && inner.chars().all(is_plain) {
        true => Ok(inner.to_lowercase()),
        false => Err(format!("`{key}` is no key")),
    }
}

fn one(key: &str, value: &str, below: &[String]) -> Result<String, String> {
    let value = unquoted(value)?;
    if value.is_empty() || value.starts_with(['[', '{', '|', '>', '&', '*']) || !below.is_empty() {
        return Err(format!("`{key}` is one line of text"));
    }
    Ok(value)
}

/// Parses `public`, or a list of `user:NAME` and `group:NAME`, or the keys `users` and `groups` with a list each.
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
                Some(kind) => format!("{kind}:{}", unquoted(item)?),
                None => unquoted(item)?,
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
    if found.is_empty() { Err("`acl` names no reader".into()) } else { Ok(found) }
}

fn list(value: &str) -> Result<Vec<String>, String> {
    let inner = match value.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or("a list ends with `]`")?,
        None => value,
    };
    let items: Result<Vec<String>, String> = inner.split(',').map(unquoted).collect();
    let items: Vec<String> = items?.into_iter().filter(|item| !item.is_empty()).collect();
    if items.is_empty() { Err("a list is empty".into()) } else { Ok(items) }
}

fn unquoted(value: &str) -> Result<String, String> {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inner, after) = rest.split_once(quote).ok_or_else(|| format!("`{value}` has no second quote"))?;
            return match without_comment(after.trim_start()).is_empty() {
                true => Ok(inner.to_string()),
                false => Err(format!("`{value}` goes on after its quote")),
            };
        }
    }
    Ok(without_comment(value).to_string())
}

fn without_comment(value: &str) -> &str {
    if value.starts_with('#') { "" } else { value.split(" #").next().unwrap_or_default().trim() }
}
