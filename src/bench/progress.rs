//! A progress line on standard error, if that is a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

const TICK: Duration = Duration::from_millis(500);

/// A progress line, shown until dropped.
pub struct ProgressLine {
    ticker: Option<JoinHandle<()>>,
}

impl ProgressLine {
    /// Shows a line `label 3/10 s`.
    pub fn start(label: &str, seconds: f64) -> ProgressLine {
        if !stderr().is_terminal() {
            return ProgressLine { ticker: None };
        }
        let label = label.to_owned();
        let started = Instant::now();
        let ticking = async move {
            loop {
                show(&format!("{label} {:.0}/{seconds:.0} s", started.elapsed().as_secs_f64()));
                tokio::time::sleep(TICK).await;
            }
        };
        ProgressLine { ticker: Some(tokio::spawn(ticking)) }
    }
}

impl Drop for ProgressLine {
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
