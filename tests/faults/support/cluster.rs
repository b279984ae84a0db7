//! A cluster of three nats-servers on one machine.

use std::{fs, net::TcpListener, path::PathBuf, time::Duration};

use async_nats::{Client, jetstream};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use super::{WAIT_MAX, nats, processes::Process};

struct Member {
    name: String,
    port: u16,
    config: PathBuf,
    process: Process,
}

/// The cluster; it ends with the value.
pub struct Cluster {
    members: Vec<Member>,
    _store: TempDir,
}

impl Cluster {
    /// Starts the servers; they have found each other and chosen a leader when this returns.
    pub async fn start() -> Self {
        let store = tempfile::tempdir().unwrap();
        let ports = free_ports(6);
        let routes: Vec<String> = ports[3..].iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let mut members = Vec::new();
        for n in 0..3 {
            let name = format!("S{}", n + 1);
            let folder = store.path().join(&name);
            let config = store.path().join(format!("{name}.conf"));
            let (port, route) = (ports[n], ports[n + 3]);
            let text = format!(
                "server_name: {name}\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: {folder:?} }}\n\
                 cluster {{ name: faults, listen: 127.0.0.1:{route}, routes: [{}], no_advertise: true }}\n",
                routes.join(", ")
            ) + &nats::users();
            fs::write(&config, text).unwrap();
            let process = run(&name, &config);
            members.push(Member { name, port, config, process });
        }
        for member in &mut members {
            member.process.line(|line| line.contains("Server is ready")).await;
            member.process.line(|line| line.contains("metadata leader")).await;
        }
        Self { members, _store: store }
    }

    /// Returns the URLs of all servers, as `NATS_URL` takes them.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.members.iter().map(|m| format!("nats://127.0.0.1:{}", m.port)).collect();
        urls.join(",")
    }

    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Suspends a server for a while.
    pub async fn nap(&mut self, name: &str, pause: Duration) {
        let member = self.member(name);
        member.process.signal(libc::SIGSTOP);
        sleep(pause).await;
        member.process.signal(libc::SIGCONT);
    }

    /// Connects a client of the test's own.
    pub async fn client(&self) -> Client {
        async_nats::connect(self.url().split(',').collect::<Vec<_>>()).await.unwrap()
    }

    /// Returns the server that leads a stream.
    pub async fn leader_of(&self, stream: &str) -> String {
        let context = jetstream::new(self.client().await);
        let found = async {
            loop {
                let info = context.get_stream(stream).await.ok().map(|stream| stream.cached_info().clone());
                match info.and_then(|info| info.cluster).and_then(|cluster| cluster.leader) {
                    Some(leader) => return leader,
                    None => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(WAIT_MAX, found).await.expect("a leader in time")
    }

    /// Waits until this number of replicas hold all of a stream. A server that has just come back may answer late.
    pub async fn wait_for_copies(&self, stream: &str, copies: usize) {
        let context = jetstream::new(self.client().await);
        let complete = async {
            loop {
                let info = context.get_stream(stream).await.ok().map(|stream| stream.cached_info().clone());
                let followers = info.and_then(|info| info.cluster).map(|cluster| cluster.replicas).unwrap_or_default();
                if followers.iter().filter(|copy| copy.current && !copy.offline).count() + 1 >= copies {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(WAIT_MAX, complete).await.expect("all copies in time");
    }

    pub async fn kill(&mut self, name: &str) {
        self.member(name).process.kill().await;
    }

    /// Starts a killed server again.
    pub async fn restart(&mut self, name: &str) {
        let member = self.member(name);
        member.process = run(name, &member.config);
        member.process.line(|line| line.contains("Server is ready")).await;
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.name == name).expect("the server is of this cluster")
    }
}

fn run(name: &str, config: &PathBuf) -> Process {
    let mut command = Command::new(nats::binary());
    command.arg("--config").arg(config);
    Process::spawn(name, command)
}

/// Returns ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
