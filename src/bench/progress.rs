//! A progress line on standard error, if that is a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const TICK: Duration = Duration::from_millis(500);

/// A progress line, shown until dropped.
pub struct Progress {
    ticker: Option<JoinHandle<()>>,
}

impl Progress {
    /// Shows a line `label 3/10 s`.
    pub fn start(label: &str, seconds: f64) -> Progress {
        if !stderr().is_terminal() {
            return Progress { ticker: None };
        }
        let label = label.to_owned();
        let started = Instant::now();
        let ticking = async move {
            loop {
                show(&format!("{label} {:.0}/{seconds:.0} s", started.elapsed().as_secs_f64()));
                tokio::time::sleep(TICK).await;
            }
        };
        Progress { ticker: Some(tokio::spawn(ticking)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
            show("");
        }
    }
}

fn show(text: &str) {
    // A terminal that has gone away is no reason to stop measuring.
    let _ = write!(stderr(), "\r\x1b[K{text}");
    let _ = stderr().flush();
}
