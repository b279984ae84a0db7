//! A real nats-server, one per test.

use std::{path::PathBuf, sync::OnceLock};

use tempfile::TempDir;
use tokio::process::Command;

use super::processes::Process;

/// All roles of `ops/nats`.
pub const ROLES: [&str; 12] = [
    "edge",
    "worker",
    "ingester",
    "tool_caller",
    "otp_caller",
    "retrieve_caller",
    "tool_provider",
    "otp_provider",
    "retrieve_provider",
    "auditor",
    "eraser",
    "administrator",
];

/// The file of a server's users, in the folder of its store.
const USERS: &str = "users.conf";

/// A nats-server with JetStream in a folder of its own, killed on drop.
pub struct NatsServer {
    pub process: Process,
    port: String,
    /// The folder of the server's files.
    pub store: TempDir,
}

impl NatsServer {
    /// Starts a server on a free port; it accepts connections when this returns.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &users()).await
    }

    /// Starts a server with these users on an existing store.
    pub async fn start_in(store: TempDir, users: &str) -> Self {
        std::fs::write(store.path().join(USERS), users).unwrap();
        let (process, port) = run(&store, "-1").await;
        Self { process, port, store }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns a client with the test's own rights.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts the killed server again, on the same port and store.
    pub async fn restart(&mut self) {
        (self.process, _) = run(&self.store, &self.port).await;
    }
}

async fn run(store: &TempDir, port: &str) -> (Process, String) {
    let config = store.path().join("server.conf");
    std::fs::write(&config, format!("jetstream {{ store_dir: {:?} }}\ninclude {USERS}\n", store.path())).unwrap();
    let mut command = Command::new(binary());
    command.args(["--addr", "127.0.0.1", "--port", port, "--config"]).arg(config);
    let mut process = Process::spawn("nats-server", command);
    let port = process.line_after("Listening for client connections on 127.0.0.1:").await;
    process.line(|line| line.contains("Server is ready")).await;
    (process, port)
}

/// Returns the product's users of `ops/nats`, each with its name as password.
///
/// A connection without a user is the test itself, which may do everything.
pub fn users() -> String {
    with_passwords(
        include_str!("../../../ops/nats/users.conf"),
        "  TURNSTREAM {\n    jetstream: enabled\n    users: [\n",
    )
}

/// Fills in the passwords of users, and adds the test's own user after this place in the text.
pub fn with_passwords(users: &str, place: &str) -> String {
    let mut users = users.to_owned();
    for role in ROLES {
        users = users.replace(&format!("$TURNSTREAM_{}_PASSWORD", role.to_uppercase()), role);
    }
    assert!(users.contains(place));
    users.replacen(place, &format!("{place}      {{ user: test, password: test }}\n"), 1) + "no_auth_user: test\n"
}

/// Returns the path in `NATS_SERVER`, else the one that `ops/nats-server` finds or fetches.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("NATS_SERVER") {
            return path.into();
        }
        let finder = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/nats-server");
        let found = std::process::Command::new(finder).output().expect("ops/nats-server runs");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        String::from_utf8(found.stdout).unwrap().trim().into()
    })
}
