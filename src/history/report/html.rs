//! The report as a page: one file, without scripts, to be read, printed and kept.
//!
//! Invariant: the templates escape every value.

use std::fmt::{self, Display, Formatter};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, PreEscaped, Render, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{ConversationReport, ReportConfiguration, ReportEvent, ReportSession, steps};
use crate::{
    agents::AgentConfig,
    domain::{event::Usage, title::is_hidden},
    wire::stored,
};

const STYLE: &str = include_str!("report.css");

/// The page of a report.
pub struct ReportPage<'a>(pub &'a ConversationReport);

/// Returns the page's content security policy: its own style, by hash, and nothing else.
pub fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

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

impl Display for ReportPage<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&page(self.0).into_string())
    }
}

fn page(report: &ConversationReport) -> Markup {
    html! {
        (PreEscaped("<!doctype html>\n"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { "Report of conversation " (report.conversation) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { h1 { (EscapedText(&report.title)) } p.soft { "Report of a conversation" } }
                main {
                    (summary(report))
                    (chain(report))
                    (sessions(&report.sessions))
                    @if !report.configurations.is_empty() {
                        section {
                            h2 { "Configurations in force" }
                            @for known in &report.configurations { (configuration(known)) }
                        }
                    }
                    @for (n, turn) in report.turns.iter().enumerate() { (steps::turn(n + 1, turn)) }
                    (events(&report.events))
                }
            }
        }
    }
}

fn summary(report: &ConversationReport) -> Markup {
    let lasted = (report.last_at - report.begun_at).num_milliseconds();
    let totals = &report.totals;
    let (completed, failed, cancelled) = (totals.completed, totals.failed, totals.cancelled);
    let open = totals.turns.saturating_sub(completed + failed + cancelled);
    let ended = format!("{completed} completed, {failed} failed, {cancelled} cancelled, {open} open");
    let (calls, tools) = (Plural(totals.model_calls, "model call"), Plural(totals.tool_calls, "tool call"));
    let asked = Plural(totals.asked, "time");
    let used = totals.usage.map_or("not reported by the gateway".into(), |usage| Spending(usage).to_string());
    html! {
        section {
            dl {
                (fact("Conversation", html! { code { (report.conversation) } }))
                (fact("Organisation", EscapedText(&report.organisation)))
                (fact("Region", EscapedText(&report.region)))
                @if let Some(owner) = &report.owner { (fact("Belongs to", EscapedText(owner))) }
                @if let Some(agent) = &report.agent_id { (fact("Agent", EscapedText(agent))) }
                (fact("From, to", html! { (Timestamp(report.begun_at)) " to " (Timestamp(report.last_at)) " (" (Elapsed(lasted)) ")" }))
                (fact("Turns", html! { (totals.turns) ": " (ended) }))
                (fact("In them", html! { (calls) ", " (tools) "; people were asked " (asked) }))
                (fact("Used", used))
                (fact("Report made", html! { (Timestamp(report.made_at)) }))
            }
        }
    }
}

fn chain(report: &ConversationReport) -> Markup {
    let chain = &report.chain;
    html! {
        section {
            h2 { "Integrity of the record" }
            @if let (Some(problem), Some(seq)) = (&chain.problem, chain.first_broken) {
                p.bad {
                    "The record was changed: at " (EventLink(seq)) ", " (EscapedText(problem)) ". "
                    (chain.broken - 1) " more events do not follow."
                }
            } @else {
                p.ok { "Each of " (chain.events) " events follows from the one before it." }
            }
            @if chain.without_digest > 0 {
                p { (chain.without_digest) " events have no digest: an earlier version wrote them." }
            }
            @if report.is_erased {
                p { "The content was erased. The events and their order remain on record." }
            }
            p.soft {
                "Verified when this report was made. A noted digest of an event proves later that no event up to it "
                "was changed. The last one is " (EventLink(chain.last_seq)) ": " code { (chain.last_digest) }
            }
        }
    }
}

fn sessions(sessions: &[ReportSession]) -> Markup {
    html! {
        section {
            h2 { "Participants" }
            table {
                thead { tr { th { "Session" } th { "User" } th { "Agent" } th { "Opened" } } }
                tbody { @for known in sessions { (session(known)) } }
            }
        }
    }
}

fn session(known: &ReportSession) -> Markup {
    let ReportSession { session, seq, opened_at, user, user_id, email, agent, agent_id, identified_at } = known;
    html! {
        tr {
            td { code { (session) } }
            td {
                (EscapedText(user)) br; code { (user_id) }
                @if let Some(email) = email { br; (EscapedText(email)) }
                @if let Some(at) = identified_at { br; span.flag { "identity proved, " (Timestamp(*at)) } }
            }
            td { (EscapedText(agent)) br; (EscapedText(agent_id)) }
            td { (Timestamp(*opened_at)) br; (EventLink(*seq)) }
        }
    }
}

fn configuration(known: &ReportConfiguration) -> Markup {
    let ReportConfiguration { version, config } = known;
    let revision = version.revision;
    html! {
        h3 id={ "c" (revision) } { (EscapedText(&version.agent)) ", revision " (revision) }
        @match config {
            None => p { "This configuration was not found." },
            Some(config) => {
                dl {
                    (fact("Model", EscapedText(config.model.as_deref().unwrap_or("as the workers are configured"))))
                    (fact("Tools", EscapedText(&tools(config))))
                    @if !config.confirm_tools.is_empty() {
                        (fact("Asks a person before", EscapedText(&config.confirm_tools.join(", "))))
                    }
                }
                @for (name, text) in [("Persona", &config.persona), ("System prompt", &config.system_prompt)] {
                    @if let Some(text) = text { p.soft { (name) } (quote(text)) }
                }
                p.soft { "All of it" }
                (json(&serde_json::to_string(config).unwrap_or_default()))
            }
        }
    }
}

fn tools(config: &AgentConfig) -> String {
    let Some(rules) = &config.tools else { return "all that are offered".into() };
    let shown = rules.iter().map(|rule| match rule.confirm {
        true => format!("{} (asks a person)", rule.name),
        false => rule.name.clone(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn events(events: &[ReportEvent]) -> Markup {
    html! {
        section {
            h2 { "All events" }
            table {
                thead { tr { th { "Event" } th { "Written" } th { "Kind" } th { "Id, digest" } } }
                tbody {
                    @for ReportEvent { seq, time, id, kind, source, words, prev, digest } in events {
                        tr id={ "e" (seq) } {
                            td { (seq) br; span.soft { "after " (EscapedText(prev)) } }
                            td { (Timestamp(*time)) br; span.soft { "by " (EscapedText(source)) } }
                            td { code { (EscapedText(kind)) } br; (EscapedText(words)) }
                            td { code { (EscapedText(id)) } br; code { (digest) } }
                        }
                    }
                }
            }
            p.soft {
                "Schema version " (stored::SCHEMA_VERSION)
                "; the digest of an event is SHA-256 over it as it is stored."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        for (text, shown) in [
            ("a < b & \"c\" > 'd'", "a &lt; b &amp; &quot;c&quot; &gt; 'd'"),
            ("line\n\ttab", "line\n\ttab"),
            ("a\u{202e}b", "a<span class=\"hidden\">U+202E</span>b"),
            ("\0\u{1b}[31m", "<span class=\"hidden\">U+0000</span><span class=\"hidden\">U+001B</span>[31m"),
            ("שלום 👩\u{200d}💻", "שלום 👩\u{200d}💻"),
        ] {
            assert_eq!(EscapedText(text).render().into_string(), shown);
        }
    }

    #[test]
    fn durations_are_readable() {
        let shown = [0, 999, 1_500, 119_949, 180_000, 86_400_000].map(|ms| Elapsed(ms).to_string());
        assert_eq!(shown, ["0 ms", "999 ms", "1.5 s", "119.9 s", "3.0 min", "24.0 h"]);
    }
}
