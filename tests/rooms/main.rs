//! Tests of the inner rooms: the pure core, the log's contract, loading, and the house rules of the source itself.

mod acts;
mod agents;
mod circles;
mod domain;
mod domain_fold;
mod domain_random;
mod elicitation;
mod frames;
mod fuzz;
mod golden;
mod hostile_documents;
mod hub;
mod knowledge;
mod lists;
mod load;
mod load_bucket;
mod log_contract;
mod retain;
mod sizes;
mod strays;
mod streams;
mod support;
mod tidy;
mod time_limits;
mod vocabulary;
