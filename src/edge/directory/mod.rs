//! What an edge looks up: session records, the availability of workers, skills.

pub mod sessions;
pub mod skills;
pub mod worker_availability;
