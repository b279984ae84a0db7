//! The sandbox: reads a document in a process of its own, which may fail.
//!
//! A document can attack its reader: objects nested so deep that the stack overflows, a few kilobytes that unfold to
//! gigabytes, constructs that a parser handles in quadratic time. So this program starts itself once more, with limits
//! on memory and time that the child sets for itself before it reads a byte, and with nothing of this process's
//! environment. Every failure of the child is an error of that document alone.

use std::{
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use rlimit::Resource;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::Semaphore,
    time::timeout,
};

use super::{DocumentFormat, ExtractError, ExtractedText, TextChunk, chunks, extract};
use crate::limits;

/// The argument that makes this program a reader of one document. Internal: not a command for users.
const COMMAND: &str = "read-one-document";

/// The nice increment of a child, so that turns stream their tokens meanwhile.
const BEHIND: i32 = 5;

/// The allocator takes address space in steps, of 1 GiB if not told otherwise: the whole of the reader's bound at once.
const ALLOCATOR_STEP: &str = "MIMALLOC_ARENA_RESERVE";
const ALLOCATOR_STEP_KIB: &str = "32768";

/// A document that was read.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxOutput {
    pub extracted: ExtractedText,
    pub chunks: Vec<TextChunk>,
}

/// The reason why a document could not be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SandboxError {
    /// The document can't be read.
    #[error("{0}")]
    Document(String),
    /// The child could not be started, timed out or died.
    #[error("{0}")]
    Reader(String),
}

/// A reader of documents. Clones share its limits.
#[derive(Clone)]
pub struct SandboxReader {
    program: PathBuf,
    /// The CPU time that a child may use, in seconds.
    cpu_secs: u64,
    turns: Arc<Semaphore>,
}

impl SandboxReader {
    /// Creates a reader that starts this program.
    pub fn of_this_program() -> io::Result<Self> {
        // The running program, even when its file has been replaced since.
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        Ok(Self::of(program, limits::READER_CPU_SECS))
    }

    pub fn of(program: PathBuf, cpu_secs: u64) -> Self {
        Self { program, cpu_secs, turns: Arc::new(Semaphore::new(limits::READERS)) }
    }

    /// Reads a document and cuts it into passages.
    pub async fn read(&self, form: DocumentFormat, content: Vec<u8>) -> Result<SandboxOutput, SandboxError> {
        if content.len() > limits::DOCUMENT_MAX_BYTES {
            return Err(SandboxError::Document(ExtractError::TooLarge(limits::DOCUMENT_MAX_BYTES).to_string()));
        }
        if matches!(form, DocumentFormat::Plain | DocumentFormat::Table | DocumentFormat::Markdown)
            && content.len() <= limits::READ_HERE_MAX_BYTES
        {
            let here = tokio::task::spawn_blocking(move || read_here(form, &content));
            let here = here.await.map_err(|_| SandboxError::Reader("its reader gave up".into()))?;
            return here.map_err(SandboxError::Document);
        }
        let _turn = self.turns.acquire().await.map_err(|_| SandboxError::Reader("the sandbox is closed".into()))?;
        let read = timeout(Duration::from_millis(limits::READER_MS), self.ask_child(form, &content)).await;
        let answer = match read {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(SandboxError::Reader(format!("its reader can't be started: {error}"))),
            Err(_) => return Err(SandboxError::Reader("it takes too long to read".into())),
        };
        match serde_json::from_slice::<Result<SandboxOutput, String>>(&answer) {
            Ok(read) => read.map_err(SandboxError::Document),
            Err(_) => Err(SandboxError::Reader("its reader gave up: too large or too deep inside".into())),
        }
    }

    /// Returns the child's whole answer, or the part that it wrote before it died.
    async fn ask_child(&self, form: DocumentFormat, content: &[u8]) -> io::Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.args([COMMAND, form.name(), &self.cpu_secs.to_string()]).env_clear().kill_on_drop(true);
        command.env(ALLOCATOR_STEP, ALLOCATOR_STEP_KIB);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a pipe is missing"));
        };
        // A write to a dead child fails; its answer shows that.
        let _ = stdin.write_all(content).await;
        drop(stdin);
        let mut answer = Vec::new();
        stdout.take(limits::READ_ANSWER_MAX_BYTES as u64).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Serves as a reader, when this process was started as one, and returns the exit code.
pub fn serve_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let form = arguments.next().and_then(|name| DocumentFormat::of_argument(&name));
    let cpu_secs = arguments.next().and_then(|secs| secs.parse().ok());
    let asked = form.zip(cpu_secs).ok_or_else(|| io::Error::other("this command is internal"));
    let served = asked.and_then(|(form, cpu_secs)| serve(form, cpu_secs));
    Some(if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Limits this process for good, reads the document from standard input, answers on standard output.
fn serve(form: DocumentFormat, cpu_secs: u64) -> io::Result<()> {
    let bounds = [
        (Resource::AS, limits::READER_MEMORY_BYTES),
        (Resource::CPU, cpu_secs),
        (Resource::CORE, 0),
        (Resource::FSIZE, 0),
    ];
    for (resource, most) in bounds {
        rlimit::setrlimit(resource, most, most)?;
    }
    // SAFETY: nice has no memory effects.
    unsafe { libc::nice(BEHIND) };
    let mut content = Vec::new();
    io::stdin().take(limits::DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, &read_here(form, &content))?;
    out.flush()
}

fn read_here(form: DocumentFormat, content: &[u8]) -> Result<SandboxOutput, String> {
    let extracted = extract(form, content).map_err(|error| error.to_string())?;
    let chunks = chunks(form, &extracted.text);
    Ok(SandboxOutput { extracted, chunks })
}
