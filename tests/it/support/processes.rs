//! Programs under test: started, watched, signalled.
//!
//! Contract: a process never outlives its test. Its output is kept; waiting for a line is waiting for an event. When a
//! test fails, the output of its processes goes to the test's own.

use std::{
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::WAIT_MAX;

pub struct Process {
    title: String,
    child: Child,
    lines: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts a program and watches its output.
    pub fn spawn(title: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        end_with_test(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{title} did not start: {error}"));
        let (sender, lines) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        tokio::spawn(keep_lines(child.stdout.take().unwrap(), sender.clone()));
        tokio::spawn(keep_lines(child.stderr.take().unwrap(), sender));
        Self { title: title.into(), child, lines }
    }

    /// Returns the first line that fits, as soon as it is printed.
    pub async fn line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        self.nth_line(0, fits).await
    }

    /// Returns the line that fits after `before` others did, as soon as it is printed.
    pub async fn nth_line(&mut self, before: usize, fits: impl Fn(&str) -> bool) -> String {
        let find = |lines: &Vec<String>| lines.iter().filter(|line| fits(line)).nth(before).cloned();
        match timeout(WAIT_MAX, self.lines.wait_for(|lines| find(lines).is_some())).await {
            Ok(Ok(lines)) => find(&lines).unwrap(),
            Ok(Err(_)) => panic!("{} ended without saying it", self.title),
            Err(_) => panic!("{} did not say it in time", self.title),
        }
    }

    /// Returns the text after `prefix` on the first line that has it.
    pub async fn line_after(&mut self, prefix: &str) -> String {
        let line = self.line(|line| line.contains(prefix)).await;
        line.split_once(prefix).unwrap().1.trim().to_owned()
    }

    /// Returns all lines printed so far.
    pub fn output(&self) -> String {
        self.lines.borrow().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_else(|| panic!("{} has ended", self.title))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects here; the child was not waited for yet, so the pid is still its own.
        let sent = unsafe { libc::kill(self.pid() as i32, signal) };
        assert_eq!(sent, 0, "{} was not signalled", self.title);
    }

    /// Sends SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.ended().await;
    }

    /// Waits until the process has ended by itself and its output is complete.
    pub async fn ended(&mut self) -> ExitStatus {
        let status = timeout(WAIT_MAX, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} did not end in time", self.title)).unwrap();
        // The last line comes before the pipes close, which drops the senders.
        let _ = timeout(WAIT_MAX, self.lines.wait_for(|_| false)).await;
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            println!("---- output of {}:\n{}", self.title, self.output());
        }
    }
}

async fn keep_lines(pipe: impl AsyncRead + Unpin, lines: Arc<watch::Sender<Vec<String>>>) {
    let mut reader = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.send_modify(|lines| lines.push(line));
    }
}

/// Has the kernel kill the child when the test's thread ends for any reason.
fn end_with_test(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is async-signal-safe and touches only the child between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
