//! Flow tests: the whole product over real parts — a nats-server, processes, sockets, an HTTP gateway.

mod admin;
mod approvals;
mod bad_input;
mod builtin_tools;
mod cancel;
mod configuration;
mod documents;
mod edges_and_workers;
mod history;
mod identity;
mod ingest;
mod ingest_web;
mod knowledge;
mod limits;
mod lists;
mod model_faults;
mod outages;
mod races;
mod returning;
mod slow_reader;
mod streaming;
mod support;
mod tool_calls;
mod widgets;
