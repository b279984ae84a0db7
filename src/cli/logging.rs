//! The program's log: to standard error, one line an event.

use std::fmt::{self, Debug, Write};

use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{Writer, debug_fn},
    },
};

use crate::domain::title::is_hidden;

/// Starts the log.
pub(super) fn start() {
    let log = tracing_subscriber::fmt().with_env_filter(log_filter()).fmt_fields(log_fields());
    log.with_writer(std::io::stderr).init();
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
}
