//! The report as a page: one file, without scripts, to be read, printed and kept.
//!
//! Invariant: the templates escape every value.

use std::fmt::{self, Display, Formatter};

use base64::{Engine, prelude::BASE64_STANDARD};
use maud::{Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::{
    ConversationReport, ReportConfiguration, ReportEvent, ReportSession,
    markup::{Elapsed, EscapedText, EventLink, Plural, Spending, Timestamp, fact, json, quote},
    steps,
};
use crate::{agents::AgentConfig, wire::stored};

const STYLE: &str = include_str!("report.css");

/// The page of a report.
pub struct ReportPage<'a>(pub &'a ConversationReport);

/// Returns the page's content security policy: its own style, by hash, and nothing else.
pub fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
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
    use maud::Render;

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
