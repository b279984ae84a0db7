//! Traces, as a projection of the log: spans by the GenAI conventions of OpenTelemetry.
//!
//! - [`projection`]: events of turns to spans; [`span`]: a span and its ids.   - [`otlp`]: spans to a collector, as OTLP over HTTP.
//!
//! Invariant: the ids of spans are derived from the log's ids, so exporting the same events again changes nothing.

pub mod otlp;
pub mod projection;
pub mod span;
