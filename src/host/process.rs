//! An agent as a process: one for each step, killed with all that it started.

use std::process::Stdio;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdout, Command},
};

use crate::model::ModelError;

/// Environment variables that an agent inherits. The others hold keys of the worker; names that begin with `AGENT_` are the
/// agent's own.
const INHERITED: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE"];
const OWN: &str = "AGENT_";
/// The most of standard error that is read at once, for one line of the log.
const STDERR_PIECE_BYTES: usize = 1024;

/// A running agent: one process group, killed on drop.
pub(super) struct AgentProcess {
    child: Child,
    pub stdout: ChildStdout,
}

/// Starts an agent, and writes the request to its standard input.
pub(super) fn start(words: &[String], request: Bytes) -> Result<AgentProcess, ModelError> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(OWN))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let failed = |detail: String| ModelError::Connect { detail };
    let mut child = command.spawn().map_err(|error| failed(format!("the agent does not start: {error}")))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(failed("a pipe is missing".into()));
    };
    // An agent may answer before it has read its request, so both go on at once. The task ends with the process.
    tokio::spawn(async move {
        if stdin.write_all(&request).await.is_ok() {
            let _ = stdin.write_all(b"\n").await;
        }
    });
    tokio::spawn(log_stderr(stderr));
    Ok(AgentProcess { child, stdout })
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Not waited for yet, so its process id can't be another process's.
        let Some(pid) = self.child.id() else { return };
        // SAFETY: kill has no memory effects here, and the group is the child's own.
        unsafe { libc::kill(-(pid as i32), libc::SIGKILL) };
    }
}

/// Reads all of an agent's standard error, so that it never blocks on it.
async fn log_stderr(mut stderr: impl AsyncRead + Unpin) {
    let mut piece = vec![0; STDERR_PIECE_BYTES];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let text = String::from_utf8_lossy(&piece[..length]);
        tracing::debug!(stderr = text.trim_end(), "stderr of an agent");
    }
}
