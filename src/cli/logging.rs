//! The program's log: to standard error, one line an event, in words or as JSON.

use std::{
    fmt::{self, Debug, Write},
    io::IsTerminal,
};

use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::{
    Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Writer, debug_fn},
    },
    registry::LookupSpan,
};

use crate::{config::LogFormat, domain::title::is_hidden};

/// Starts the log.
pub(super) fn start() {
    let log = tracing_subscriber::fmt().with_env_filter(log_filter()).fmt_fields(log_fields());
    // Colours are for people: a file or a collector of logs gets none.
    let has_colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = log.with_ansi(has_colours).with_writer(std::io::stderr);
    match LogFormat::from_env() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.event_format(JsonLine).init(),
    }
}

/// What is logged. The MCP library tells of errors with all of a URL, which may hold a secret; what matters of them is logged by
/// this program, so that library speaks only when it is named.
fn log_filter() -> EnvFilter {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    // `nats check` tries requests that must be refused, and reports by itself those that were not.
    let is_check = std::env::args().skip(1).take(2).eq(["nats", "check"]);
    let usual = if is_check { "error" } else { "info,async_nats=warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    match "rmcp=off".parse() {
        Ok(silent) if !asked.contains("rmcp") => filter.add_directive(silent),
        _ => filter,
    }
}

/// What an event says, on one line whatever is in it: values may be of strangers, who shall neither begin a line of their own
/// nor speak to the terminal that shows it.
fn log_fields() -> impl for<'writer> FormatFields<'writer> {
    let field = |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn Debug| match field.name() {
        "message" => write!(OneLine(writer), "{value:?}"),
        name => write!(OneLine(writer), "{name}={value:?}"),
    };
    debug_fn(field).delimited(" ")
}

/// An event as one JSON object: `time`, `level`, `target`, `message`, and the fields under their names.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut fields = JsonFields(Map::new());
        event.record(&mut fields);
        let mut line = Map::new();
        let meta = event.metadata();
        line.insert("time".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true).into());
        line.insert("level".into(), meta.level().as_str().into());
        line.insert("target".into(), meta.target().into());
        line.extend(fields.0);
        // JSON escapes the controls; the other hidden characters stand within strings alone.
        for c in Value::Object(line).to_string().chars() {
            match is_hidden(c) {
                true => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
                false => writer.write_char(c)?,
            }
        }
        writer.write_char('\n')
    }
}

/// The fields of an event, as JSON values.
struct JsonFields(Map<String, Value>);

impl Visit for JsonFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}

/// Writes characters that are not seen by their number.
struct OneLine<'a, 'w>(&'a mut Writer<'w>);

impl Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match is_hidden(c) {
            true => write!(self.0, "{}", c.escape_unicode()),
            false => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).fmt_fields(log_fields());
        let log = log.with_writer(move || writer.clone()).finish();
        let evil = "a\r\n\u{1b}[31mERROR forged\u{202e}";
        let error: &dyn std::error::Error = &io::Error::other(evil);
        tracing::subscriber::with_default(log, || {
            let _inside = tracing::info_span!("span", name = %evil).entered();
            tracing::warn!(%evil, debugged = ?evil, text = evil, error, "{evil}");
        });
        let said = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!((said.lines().count(), said.ends_with('\n')), (1, true), "{said:?}");
        assert!(!said.trim_end().contains(is_hidden), "{said:?}");
        assert_eq!(said.matches("forged").count(), 6, "{said:?}");
    }

    #[test]
    fn an_event_as_json_is_one_object_on_one_line() {
        let sink = Sink::default();
        let writer = sink.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).fmt_fields(log_fields());
        let log = log.event_format(JsonLine).with_writer(move || writer.clone()).finish();
        let evil = "a\r\n\u{1b}[31m\"ERROR\u{202e}\u{e0041}";
        tracing::subscriber::with_default(log, || {
            tracing::info!(text = evil, %evil, n = 7_u64, ratio = 0.5, yes = true, none = None::<u64>, "{evil}");
        });
        let said = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!((said.lines().count(), said.ends_with('\n')), (1, true), "{said:?}");
        assert!(!said.trim_end().contains(is_hidden), "{said:?}");
        let line: Value = serde_json::from_str(&said).unwrap();
        assert_eq!([&line["text"], &line["evil"], &line["message"]], [evil; 3], "{said}");
        assert_eq!((&line["n"], &line["ratio"], &line["yes"]), (&7.into(), &0.5.into(), &true.into()));
        assert_eq!((&line["level"], line.get("none")), (&"INFO".into(), None));
    }
}
