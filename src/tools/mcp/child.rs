//! An MCP server as a child process: its start, its standard error, and the end of its process group.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::limits;

/// Environment variables that a child inherits from the worker. The others hold keys that a child must not see.
const INHERITED: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TZ", "SSL_CERT_FILE"];

/// A running child and the processes that it started: one process group, killed on drop.
pub struct ProcessGroup {
    child: Child,
}

/// Starts a server. Its standard error goes to the log.
pub fn start(
    server: &str,
    command: &str,
    args: &[String],
    env: &[(String, String)],
    cwd: Option<&Path>,
) -> io::Result<(ProcessGroup, ChildStdout, ChildStdin)> {
    let mut command = Command::new(command);
    command.args(args).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stdin) = (child.stdout.take(), child.stdin.take());
    let (Some(stdout), Some(stdin), Some(stderr)) = (stdout, stdin, child.stderr.take()) else {
        return Err(io::Error::other("a pipe is missing"));
    };
    tokio::spawn(log_stderr(server.to_string(), stderr));
    Ok((ProcessGroup { child }, stdout, stdin))
}

impl ProcessGroup {
    /// Waits for the child to end, as it does when its input has been closed; kills the group after a timeout.
    pub async fn end(mut self) {
        let patience = Duration::from_millis(limits::MCP_CLOSE_MS);
        if timeout(patience, self.child.wait()).await.is_err() {
            self.kill();
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, "waiting for an MCP server's process failed");
            }
        }
    }

    /// Kills the group, only before the child was waited for: until then its process id can't be reused.
    fn kill(&self) {
        if let Some(pid) = self.child.id() {
            // SAFETY: kill has no memory effects here, and the group is the child's own.
            unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads all of a server's standard error, so that the server never blocks on it, and logs it in pieces of bounded
/// size.
async fn log_stderr(server: String, mut stderr: impl AsyncRead + Unpin) {
    let mut piece = vec![0; limits::MCP_STDERR_PIECE_BYTES];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let text = String::from_utf8_lossy(&piece[..length]);
        tracing::debug!(server, stderr = text.trim_end(), "stderr of an MCP server");
    }
}
