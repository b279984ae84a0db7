//! Flow tests: the whole product over real parts — a nats-server, processes, sockets, an HTTP gateway.

mod approvals;
mod bad_input;
mod edges_and_workers;
mod races;
mod support;
