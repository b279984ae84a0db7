//! How a process is asked to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to stop: ctrl-c and SIGTERM. From its making on none of them is lost, so it is made before
/// the process says that it is there.
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when the process is asked to stop. Who asks a second time does not want to wait: the process then ends at once.
    pub async fn wait(mut self) {
        self.next().await;
        tracing::info!("stopping");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("asked to stop a second time; ending at once");
            std::process::exit(1);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
