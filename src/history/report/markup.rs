//! Parts of the page: texts, times, figures and links, escaped.

use std::fmt::{self, Display, Formatter};

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, Render, html};
use serde_json::Value;

use crate::domain::{event::Usage, title::is_hidden};

/// Escaped text.
///
/// Invisible characters that change how others are shown appear as their code points.
pub(super) struct EscapedText<'a>(pub &'a str);

impl Render for EscapedText<'_> {
    fn render_to(&self, page: &mut String) {
        let mut rest = self.0;
        while let Some(at) = rest.find(|c| !matches!(c, '\n' | '\t') && is_hidden(c)) {
            let (before, after) = rest.split_at(at);
            before.render_to(page);
            let hidden = after.chars().next().unwrap_or_default();
            html! { span.hidden { "U+" (format_args!("{:04X}", u32::from(hidden))) } }.render_to(page);
            rest = &after[hidden.len_utf8()..];
        }
        rest.render_to(page);
    }
}

/// A text of the conversation, set apart from the page's own words.
pub(super) fn quote(text: &str) -> Markup {
    html! {
        @if text.is_empty() { p.soft { "(no text)" } } @else { div.text dir="auto" { (EscapedText(text)) } }
    }
}

/// JSON, indented; text that is not JSON stays as it is.
pub(super) fn json(text: &str) -> Markup {
    let indented = serde_json::from_str::<Value>(text).map(|value| format!("{value:#}"));
    html! { pre { (EscapedText(indented.as_deref().unwrap_or(text))) } }
}

/// A time, to the millisecond.
pub(super) struct Timestamp(pub DateTime<Utc>);

impl Display for Timestamp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// A duration for people.
pub(super) struct Elapsed(pub i64);

impl Display for Elapsed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ ..1_000 => write!(f, "{ms} ms"),
            ms @ ..120_000 => write!(f, "{:.1} s", ms as f64 / 1_000.0),
            ms @ ..7_200_000 => write!(f, "{:.1} min", ms as f64 / 60_000.0),
            ms => write!(f, "{:.1} h", ms as f64 / 3_600_000.0),
        }
    }
}

pub(super) struct Spending(pub Usage);

impl Display for Spending {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = self.0;
        write!(f, "{prompt_tokens} tokens in, {completion_tokens} out")?;
        cost_usd.map_or(Ok(()), |cost| write!(f, ", {cost} USD"))
    }
}

/// A number and a noun, with a plural `s` where due.
pub(super) struct Plural<'a>(pub usize, pub &'a str);

impl Display for Plural<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

/// A link to the line of an event.
pub(super) struct EventLink(pub u64);

impl Render for EventLink {
    fn render_to(&self, page: &mut String) {
        let Self(seq) = self;
        html! { a href={ "#e" (seq) } { "event " (seq) } }.render_to(page);
    }
}

/// A name and a value of a list of facts.
pub(super) fn fact(name: &str, value: impl Render) -> Markup {
    html! { dt { (name) } dd { (value) } }
}
