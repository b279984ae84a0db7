//! The demo model: what `turnstream dev` talks to when no gateway key is set.
//!
//! Contract: it is reached over HTTP like any other gateway, so the product has one model client
//! and one way to a model. It knows nothing by itself; it answers from the passages and the tools
//! that a request puts before it.
//!
//! Architecture invariant: it shares no code with the rest of the crate.

pub mod gateway;
mod model;
mod passages;
mod request;
mod words;
