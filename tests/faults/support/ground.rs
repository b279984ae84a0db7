//! The servers that hold the log of a run: one server, or a cluster of three.

use std::time::Duration;

use async_nats::Client;

use super::{cluster::Cluster, nats::NatsServer};

/// Streams that need all replicas current before a server of a cluster may go away.
const COPIED: [&str; 3] = ["CHAT_local", "KV_KEYS", "SCHED_local"];

pub enum Ground {
    One(Box<NatsServer>),
    Three(Cluster),
}

impl Ground {
    pub async fn start(servers: usize) -> Self {
        match servers {
            1 => Self::One(Box::new(NatsServer::start().await)),
            3 => Self::Three(Cluster::start().await),
            _ => panic!("a run is on 1 server or on 3, not on {servers}"),
        }
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(cluster) => cluster.url(),
        }
    }

    /// Returns the number of replicas of each stream.
    pub fn copies(&self) -> &'static str {
        match self {
            Self::One(_) => "1",
            Self::Three(_) => "3",
        }
    }

    /// Connects a client of the test's own.
    pub async fn client(&self) -> Client {
        match self {
            Self::One(server) => server.client().await,
            Self::Three(cluster) => cluster.client().await,
        }
    }

    /// Kills a server and starts it again; of three, every second choice is the leader of the log.
    ///
    /// Two of three servers are never away at once: three replicas do not survive that.
    pub async fn kill_one(&mut self, choice: usize) {
        match self {
            Self::One(server) => {
                server.kill().await;
                server.restart().await;
            }
            Self::Three(cluster) => {
                let name = chosen(cluster, choice).await;
                cluster.kill(&name).await;
                cluster.restart(&name).await;
            }
        }
    }

    /// Suspends a server for a while.
    pub async fn nap_one(&mut self, choice: usize, pause: Duration) {
        match self {
            Self::One(server) => {
                server.process.signal(libc::SIGSTOP);
                tokio::time::sleep(pause).await;
                server.process.signal(libc::SIGCONT);
            }
            Self::Three(cluster) => {
                let name = chosen(cluster, choice).await;
                cluster.nap(&name, pause).await;
            }
        }
    }
}

async fn chosen(cluster: &Cluster, choice: usize) -> String {
    for stream in COPIED {
        cluster.wait_for_copies(stream, 3).await;
    }
    match choice % 2 {
        0 => cluster.leader_of(COPIED[0]).await,
        _ => cluster.names()[choice / 2 % 3].clone(),
    }
}
