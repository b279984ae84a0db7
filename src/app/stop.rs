//! Signals that stop a process.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The stop signals of a process: ctrl-c and SIGTERM.
///
/// No signal is lost after the creation of this value, so it is created before the process reports that it is ready.
pub struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns when the process is asked to stop. A second signal ends the process at once.
    pub async fn wait(mut self) {
        self.next().await;
        tracing::info!("stopping");
        tokio::spawn(async move {
            self.next().await;
            tracing::warn!("second stop signal; exiting at once");
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
