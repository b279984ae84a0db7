//! The fault suite: the built programs, broken on purpose.
//!
//! Contract: no test asserts timing; deadlines only fail a test whose event does not come. Random choices come from a
//! seed that is printed.

mod chaos;
mod clocks;
mod cluster;
mod deadlines;
mod outages;
mod paused;
mod poison;
mod resume;
mod support;
