//! The log in order: reading it, showing it to people and programs.
//!
//! - [`stream_reader`]: the events of a region or of one conversation, in the stream's order, without a consumer.
//! - [`chain_reader`]: one conversation, at a cost independent of the stream's size.
//! - [`event_reader`]: decrypts payloads.   - [`redact`]: hides arguments from auditors.   - [`message_view`]: the events that remain visible.
//! - [`formats`]: the external formats of events.   - [`timeline`]: events in words.
//! - [`report`]: a whole conversation for a reader.   - [`view`], [`swim_lanes`], [`changes`]: the data of a viewer.

pub mod chain_reader;
pub mod changes;
pub mod event_reader;
pub mod formats;
pub mod message_view;
pub mod redact;
pub mod report;
pub mod stream_reader;
pub mod swim_lanes;
pub mod timeline;
pub mod view;
