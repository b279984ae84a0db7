//! Directories of an edge: session records, the availability of workers, skills.

pub mod sessions;
pub mod skills;
pub mod worker_availability;
