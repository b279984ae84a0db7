//! Who the product's processes are on NATS.

/// The user that a command of the product connects as.
pub fn user_of(command: &str) -> &'static str {
    match command {
        "edge" | "end-turn" => "edge",
        "worker" => "worker",
        "ingest" => "ingester",
        "dev" => "test",
        "replay" | "audit" => "auditor",
        "erase" | "hold" | "retain" => "eraser",
        _ => "administrator",
    }
}
