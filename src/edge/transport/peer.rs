//! The address of a client.

use std::net::IpAddr;

/// The address at the other end of a connection.
#[derive(Clone, Copy)]
pub struct PeerAddress(pub IpAddr);
