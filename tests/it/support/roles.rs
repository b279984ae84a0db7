//! The NATS users of the product's processes.

/// Returns the user that a command of the product connects as.
pub fn user_of(command: &str) -> &'static str {
    match command {
        "edge" | "end-turn" => "edge",
        "worker" => "worker",
        "ingest" => "ingester",
        "dev" => "test",
        "replay" | "audit" | "telemetry" => "auditor",
        "erase" | "hold" | "retain" => "eraser",
        _ => "administrator",
    }
}

/// Returns the users for calls of services, and the key that signs calls.
pub fn callers() -> Vec<(&'static str, String)> {
    let users = [
        ("NATS_TOOL_USER", "NATS_TOOL_PASSWORD", "tool_caller"),
        ("NATS_OTP_USER", "NATS_OTP_PASSWORD", "otp_caller"),
        ("NATS_RETRIEVE_USER", "NATS_RETRIEVE_PASSWORD", "retrieve_caller"),
    ];
    let users = users.iter().flat_map(|(name, word, user)| [(*name, user.to_string()), (*word, user.to_string())]);
    let mut variables: Vec<_> = users.collect();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/ed25519.pem");
    variables.push(("SMOOTH_AGENT_CALL_KEY_FILE", key.to_owned()));
    variables
}
