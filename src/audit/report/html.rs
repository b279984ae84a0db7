//! The report as a page: one file without scripts, to be read, printed and kept.

use std::fmt::{self, Display, Formatter, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Configuration, Event, Report, Session, steps};
use crate::{
    domain::{event::Usage, title::is_hidden},
    wire::stored,
};

const STYLE: &str = include_str!("report.css");

/// The page of a report.
pub struct Page<'a>(pub &'a Report);

/// Returns the page's content security policy: its own style, by hash, and nothing else.
pub fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

/// Escaped text.
///
/// Invisible characters that change how others are shown appear as their code points.
pub(super) struct Text<'a>(pub &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\n' | '\t' => f.write_char(c),
            c if is_hidden(c) => write!(f, "<span class=\"hidden\">U+{:04X}</span>", u32::from(c)),
            c => f.write_char(c),
        })
    }
}

/// A text of the conversation, set apart from the page's own words.
pub(super) struct Quote<'a>(pub &'a str);

impl Display for Quote<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.is_empty() {
            true => f.write_str("<p class=\"soft\">(no text)</p>"),
            false => write!(f, "<div class=\"text\" dir=\"auto\">{}</div>", Text(self.0)),
        }
    }
}

/// JSON, indented; text that is not JSON stays as it is.
pub(super) struct Json<'a>(pub &'a str);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match serde_json::from_str::<Value>(self.0) {
            Ok(value) => write!(f, "<pre>{}</pre>", Text(&format!("{value:#}"))),
            Err(_) => write!(f, "<pre>{}</pre>", Text(self.0)),
        }
    }
}

/// A time, to the millisecond.
pub(super) struct At(pub DateTime<Utc>);

impl Display for At {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// A duration for people.
pub(super) struct Took(pub i64);

impl Display for Took {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ ..1_000 => write!(f, "{ms} ms"),
            ms @ ..120_000 => write!(f, "{:.1} s", ms as f64 / 1_000.0),
            ms @ ..7_200_000 => write!(f, "{:.1} min", ms as f64 / 60_000.0),
            ms => write!(f, "{:.1} h", ms as f64 / 3_600_000.0),
        }
    }
}

pub(super) struct Spent(pub Usage);

impl Display for Spent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Usage { prompt_tokens, completion_tokens, cost_usd } = self.0;
        write!(f, "{prompt_tokens} tokens in, {completion_tokens} out")?;
        cost_usd.map_or(Ok(()), |cost| write!(f, ", {cost} USD"))
    }
}

/// A number and a noun, with a plural `s` where due.
pub(super) struct Count<'a>(pub usize, pub &'a str);

impl Display for Count<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        write!(f, "{count} {what}{}", if *count == 1 { "" } else { "s" })
    }
}

/// A link to the line of an event.
pub(super) struct Seq(pub u64);

impl Display for Seq {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(seq) = self;
        write!(f, "<a href=\"#e{seq}\">event {seq}</a>")
    }
}

/// Writes a name and a value of a definition list.
pub(super) fn fact(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "<dt>{name}</dt><dd>{value}</dd>")
}

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n\
             <title>Report of conversation {}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            policy(),
            report.conversation,
        )?;
        writeln!(f, "<header><h1>{}</h1><p class=\"soft\">Report of a conversation</p></header>", Text(&report.title))?;
        writeln!(f, "<main>")?;
        summary(f, report)?;
        chain(f, report)?;
        sessions(f, &report.sessions)?;
        if !report.configurations.is_empty() {
            writeln!(f, "<section><h2>Configurations in force</h2>")?;
            report.configurations.iter().try_for_each(|known| configuration(f, known))?;
            writeln!(f, "</section>")?;
        }
        report.turns.iter().enumerate().try_for_each(|(n, turn)| steps::turn(f, n + 1, turn))?;
        events(f, &report.events)?;
        writeln!(f, "</main>\n</body>\n</html>")
    }
}

fn summary(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(f, "<section><dl>")?;
    fact(f, "Conversation", format_args!("<code>{}</code>", report.conversation))?;
    fact(f, "Organisation", Text(&report.organisation))?;
    fact(f, "Region", Text(&report.region))?;
    if let Some(owner) = &report.owner {
        fact(f, "Belongs to", Text(owner))?;
    }
    if let Some(agent) = &report.agent_id {
        fact(f, "Agent", Text(agent))?;
    }
    let lasted = (report.last_at - report.begun_at).num_milliseconds();
    fact(f, "From, to", format_args!("{} to {} ({})", At(report.begun_at), At(report.last_at), Took(lasted)))?;
    let totals = &report.totals;
    let (completed, failed, cancelled) = (totals.completed, totals.failed, totals.cancelled);
    let open = totals.turns.saturating_sub(completed + failed + cancelled);
    let ended = format!("{completed} completed, {failed} failed, {cancelled} cancelled, {open} open");
    fact(f, "Turns", format_args!("{}: {ended}", totals.turns))?;
    let (calls, tools) = (Count(totals.model_calls, "model call"), Count(totals.tool_calls, "tool call"));
    let asked = Count(totals.asked, "time");
    fact(f, "In them", format_args!("{calls}, {tools}; people were asked {asked}"))?;
    match totals.usage {
        Some(usage) => fact(f, "Used", Spent(usage))?,
        None => fact(f, "Used", "not reported by the gateway")?,
    }
    fact(f, "Report made", At(report.made_at))?;
    writeln!(f, "</dl></section>")
}

fn chain(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    let chain = &report.chain;
    writeln!(f, "<section><h2>Integrity of the record</h2>")?;
    match (&chain.problem, chain.first_broken) {
        (Some(problem), Some(seq)) => {
            let more = chain.broken - 1;
            writeln!(
                f,
                "<p class=\"bad\">The record was changed: at {}, {}. {more} more events do not follow.</p>",
                Seq(seq),
                Text(problem)
            )?;
        }
        _ => writeln!(f, "<p class=\"ok\">Each of {} events follows from the one before it.</p>", chain.events)?,
    }
    if chain.without_digest > 0 {
        writeln!(f, "<p>{} events have no digest: an earlier version wrote them.</p>", chain.without_digest)?;
    }
    if report.is_erased {
        writeln!(f, "<p>The content was erased. The events and their order remain on record.</p>")?;
    }
    writeln!(
        f,
        "<p class=\"soft\">Verified when this report was made. A noted digest of an event proves later that no event up to it \
         was changed. The last one is {}: <code>{}</code></p></section>",
        Seq(chain.last_seq),
        chain.last_digest
    )
}

fn sessions(f: &mut Formatter<'_>, sessions: &[Session]) -> fmt::Result {
    writeln!(
        f,
        "<section><h2>Participants</h2><table><thead><tr><th>Session</th><th>User</th><th>Agent</th><th>Opened</th></tr></thead><tbody>"
    )?;
    for known in sessions {
        let Session { session, seq, opened_at, user, user_id, email, agent, agent_id, identified_at } = known;
        write!(f, "<tr><td><code>{session}</code></td><td>{}<br><code>{user_id}</code>", Text(user))?;
        if let Some(email) = email {
            write!(f, "<br>{}", Text(email))?;
        }
        if let Some(at) = identified_at {
            write!(f, "<br><span class=\"flag\">identity proved, {}</span>", At(*at))?;
        }
        let (agent, agent_id) = (Text(agent), Text(agent_id));
        writeln!(f, "</td><td>{agent}<br>{agent_id}</td><td>{}<br>{}</td></tr>", At(*opened_at), Seq(*seq))?;
    }
    writeln!(f, "</tbody></table></section>")
}

fn configuration(f: &mut Formatter<'_>, known: &Configuration) -> fmt::Result {
    let Configuration { version, config } = known;
    let revision = version.revision;
    writeln!(f, "<h3 id=\"c{revision}\">{}, revision {revision}</h3>", Text(&version.agent))?;
    let Some(config) = config else { return writeln!(f, "<p>This configuration was not found.</p>") };
    writeln!(f, "<dl>")?;
    fact(f, "Model", config.model.as_deref().map_or(Text("as the workers are configured"), Text))?;
    let tools = config.tools.as_ref().map(|rules| {
        let shown = rules.iter().map(|rule| match rule.confirm {
            true => format!("{} (asks a person)", rule.name),
            false => rule.name.clone(),
        });
        shown.collect::<Vec<_>>().join(", ")
    });
    fact(f, "Tools", Text(tools.as_deref().unwrap_or("all that are offered")))?;
    if !config.confirm_tools.is_empty() {
        fact(f, "Asks a person before", Text(&config.confirm_tools.join(", ")))?;
    }
    writeln!(f, "</dl>")?;
    for (name, text) in [("Persona", &config.persona), ("System prompt", &config.system_prompt)] {
        if let Some(text) = text {
            writeln!(f, "<p class=\"soft\">{name}</p>{}", Quote(text))?;
        }
    }
    let all = serde_json::to_string(config).map_err(|_| fmt::Error)?;
    writeln!(f, "<p class=\"soft\">All of it</p>{}", Json(&all))
}

fn events(f: &mut Formatter<'_>, events: &[Event]) -> fmt::Result {
    writeln!(
        f,
        "<section><h2>All events</h2><table><thead><tr><th>Event</th><th>Written</th><th>Kind</th><th>Id, digest</th></tr></thead><tbody>"
    )?;
    for Event { seq, time, id, kind, source, words, prev, digest } in events {
        writeln!(
            f,
            "<tr id=\"e{seq}\"><td>{seq}<br><span class=\"soft\">after {}</span></td>\
             <td>{}<br><span class=\"soft\">by {}</span></td><td><code>{}</code><br>{}</td>\
             <td><code>{}</code><br><code>{digest}</code></td></tr>",
            Text(prev),
            At(*time),
            Text(source),
            Text(kind),
            Text(words),
            Text(id),
        )?;
    }
    let digest = "the digest of an event is SHA-256 over it as it is stored";
    writeln!(f, "</tbody></table><p class=\"soft\">Schema version {}; {digest}.</p></section>", stored::SCHEMA_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        for (text, shown) in [
            ("a < b & \"c\" > 'd'", "a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;"),
            ("line\n\ttab", "line\n\ttab"),
            ("a\u{202e}b", "a<span class=\"hidden\">U+202E</span>b"),
            ("\0\u{1b}[31m", "<span class=\"hidden\">U+0000</span><span class=\"hidden\">U+001B</span>[31m"),
            ("שלום 👩\u{200d}💻", "שלום 👩\u{200d}💻"),
        ] {
            assert_eq!(Text(text).to_string(), shown);
        }
    }

    #[test]
    fn durations_are_readable() {
        let shown = [0, 999, 1_500, 119_949, 180_000, 86_400_000].map(|ms| Took(ms).to_string());
        assert_eq!(shown, ["0 ms", "999 ms", "1.5 s", "119.9 s", "3.0 min", "24.0 h"]);
    }
}
