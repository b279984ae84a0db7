//! Typical mistakes of operators: each ends soon, with a message that names it.

use crate::support::{Stage, processes::Process};

/// Returns the exit's success and everything that was said.
async fn outcome(mut process: Process) -> (bool, String) {
    let status = process.ended().await;
    (status.success(), process.output())
}

/// Settings that can't work, and the name in the message.
const WRONG: [(&str, &str, &str); 16] = [
    ("SMOOTH_AGENT_PORT", "eighty", "SMOOTH_AGENT_PORT"),
    ("SMOOTH_AGENT_PROT", "8080", "SMOOTH_AGENT_PORT is one"),
    ("SMOOTH_AGENT_LIMIT_ORG_MESSAGE", "100", "SMOOTH_AGENT_LIMIT_ORG_MESSAGES is one"),
    ("SMOOTH_AGENT_LIMIT_ORG_TURNS", "many", "SMOOTH_AGENT_LIMIT_ORG_TURNS"),
    ("SMOOTH_AGENT_SEED_KB", "ture", "SMOOTH_AGENT_SEED_KB"),
    ("SMOOTH_AGENT_POOL", "a.b", "SMOOTH_AGENT_POOL"),
    ("SMOOTH_AGENT_REGION", "eu.west", "SMOOTH_AGENT_REGION"),
    ("SMOOTH_AGENT_CALL_KEY_FILE", "/nowhere/call-key.pem", "/nowhere/call-key.pem"),
    ("SMOOTH_AGENT_MASTER_KEY_FILE", "/nowhere/master", "SMOOTH_AGENT_MASTER_KEY_FILE"),
    ("SMOOTH_AGENT_OPERATIONS", "localhost", "SMOOTH_AGENT_OPERATIONS"),
    ("SMOOAI_GATEWAY_URL", "gateway.example/v1", "SMOOAI_GATEWAY_URL"),
    ("SMOOAI_GATEWAY_KEY", "sk-secret", "SMOOAI_GATEWAY_URL"),
    ("NATS_URL", "http://nats:4222", "NATS_URL"),
    ("NATS_CREDS", "/nowhere/user.creds", "/nowhere/user.creds"),
    ("NATS_PASWORD", "pw", "NATS_PASSWORD is one"),
    ("AUTH_JWT_HS256_SECRET", "short", "AUTH_JWT_HS256_SECRET"),
];

#[tokio::test]
async fn the_check_of_the_configuration_names_what_can_not_work() {
    let stage = Stage::without_streams().await;
    let (fine, said) = outcome(stage.run("config", &["config", "check"], &[])).await;
    assert!(fine, "{said}");
    for (name, value, named) in WRONG {
        let mut variables = vec![(name, value)];
        if name == "SMOOTH_AGENT_MASTER_KEY_FILE" {
            variables.push(("SMOOTH_AGENT_MASTER_KEY", ""));
        }
        let (fine, said) = outcome(stage.run("config", &["config", "check"], &variables)).await;
        assert!(!fine && said.contains(named), "{name}={value}: {said}");
        assert!(!said.contains("sk-secret"), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_login_or_role_ends_a_process_with_a_line_that_names_it() {
    let stage = Stage::start().await;
    let (edge, worker): (&[&str], &[&str]) = (&["edge", "--port", "0"], &["worker"]);
    for (role, variables, named) in [
        (edge, [("NATS_USER", "edge"), ("NATS_PASSWORD", "wrong")], "NATS_USER and NATS_PASSWORD"),
        (worker, [("NATS_USER", "nobody"), ("NATS_PASSWORD", "worker")], "NATS_USER and NATS_PASSWORD"),
        (worker, [("NATS_USER", "edge"), ("NATS_PASSWORD", "edge")], "turnstream nats check worker"),
        (edge, [("NATS_USER", "auditor"), ("NATS_PASSWORD", "auditor")], "turnstream nats check edge"),
    ] {
        let (fine, said) = outcome(stage.run(role[0], role, &variables)).await;
        assert!(!fine, "{said}");
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("turnstream: ")).collect();
        assert!(told.len() == 1 && told[0].contains(named), "{variables:?}: {said}");
    }
}
