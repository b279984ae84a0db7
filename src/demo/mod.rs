//! The demo model: the model of `turnstream dev` when no gateway key is set.
//!
//! Contract: the demo model is reached over HTTP like any other gateway, so the product has one model client and one way to a
//! model. It has no knowledge of its own: it answers from the passages and the tools of a request.
//!
//! Architecture invariant: this room shares no code with the rest of the crate.

pub mod gateway;
mod model;
mod passages;
mod request;
mod words;
