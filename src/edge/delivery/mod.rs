//! Delivery to a connection: the frames of watched turns ([`tracker`]), and hosts' events ([`push`]).

pub mod push;
pub mod tracker;
