//! A reply while it comes in.
//!
//! Contract: [`AgentStream::next`] waits only when there is nothing to give, and gives all lines that came together as one.
//! It answers `None` only after the agent has ended the step. Silence, a stream that ends early and a malformed line are
//! errors. Dropping the stream kills the process or closes the connection.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{RequestBuilder, Response};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::{
    process::AgentProcess,
    reply::{LINE_MAX_BYTES, StepReply},
};
use crate::model::{ModelError, ModelReply, ReplyDelta};

/// Time for the first line: programs start, and libraries load.
const START_MS: u64 = 30_000;
/// Longest silence after that; `{}` breaks it.
const SILENCE_MS: u64 = 3_000;
/// Longest time of a step.
pub const STEP_MAX_MS: u64 = 600_000;
/// Read from a process at once.
const READ_BYTES: usize = 16 * 1024;

enum ReplySource {
    Process(Box<AgentProcess>),
    Http(Response),
}

/// A streamed reply of an agent. See the module's contract.
pub struct AgentStream {
    source: ReplySource,
    reply: StepReply,
    /// Bytes of a line that is not complete.
    rest: Vec<u8>,
    /// Read, but not yet given to the caller.
    deltas: Vec<ReplyDelta>,
    /// An error that comes after the deltas.
    error: Option<ModelError>,
    deadline: Instant,
}

impl AgentStream {
    pub(super) fn of_process(process: AgentProcess) -> Self {
        Self::new(ReplySource::Process(Box::new(process)))
    }

    /// Sends a request, and waits for the head of its answer.
    pub(super) async fn of_request(request: RequestBuilder) -> Result<Self, ModelError> {
        let connect = |error: reqwest::Error| ModelError::Connect { detail: error.without_url().to_string() };
        let late = |_| ModelError::Stalled { detail: "the agent's server does not answer".into() };
        let wait = tokio::time::timeout(Duration::from_millis(START_MS), request.send());
        let response = wait.await.map_err(late)?.map_err(connect)?;
        let code = response.status().as_u16();
        if code != 200 {
            return Err(ModelError::Status { code, detail: "the agent's server refused the step".into() });
        }
        Ok(Self::new(ReplySource::Http(response)))
    }

    fn new(source: ReplySource) -> Self {
        let deadline = Instant::now() + Duration::from_millis(STEP_MAX_MS);
        let (reply, rest, deltas) = (StepReply::default(), vec![], vec![]);
        Self { source, reply, rest, deltas, error: None, deadline }
    }

    /// Waits for the first bytes.
    pub(super) async fn begin(&mut self) -> Result<(), ModelError> {
        let first = self.receive(Duration::from_millis(START_MS)).await?;
        self.error = self.take(&first).err();
        Ok(())
    }

    /// Returns the next deltas; `None` after the end of the step.
    pub async fn next(&mut self) -> Result<Option<Vec<ReplyDelta>>, ModelError> {
        loop {
            if !self.deltas.is_empty() {
                return Ok(Some(std::mem::take(&mut self.deltas)));
            }
            if let Some(error) = &self.error {
                return Err(error.clone());
            }
            if self.reply.is_done() {
                return Ok(None);
            }
            let received = self.receive(Duration::from_millis(SILENCE_MS)).await;
            self.error = received.and_then(|bytes| self.take(&bytes)).err();
        }
    }

    /// Returns the whole reply, and the ids of calls for which the agent demands approval, after `next` returned `None`.
    pub fn into_reply(self) -> (ModelReply, Vec<String>) {
        self.reply.into_reply()
    }

    /// Waits for bytes; their end is an error, for the agent has not ended the step.
    async fn receive(&mut self, silence: Duration) -> Result<Bytes, ModelError> {
        let until = self.deadline.min(Instant::now() + silence);
        let source = &mut self.source;
        let receive = async {
            match source {
                ReplySource::Http(response) => response.chunk().await.map_err(|error| error.without_url().to_string()),
                ReplySource::Process(process) => {
                    let mut bytes = vec![0; READ_BYTES];
                    let length = process.stdout.read(&mut bytes).await.map_err(|error| error.to_string())?;
                    bytes.truncate(length);
                    Ok((length > 0).then(|| bytes.into()))
                }
            }
        };
        match timeout_at(until, receive).await {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(ModelError::Truncated { detail: "the agent ended without `done`".into() }),
            Ok(Err(detail)) => Err(ModelError::Truncated { detail }),
            Err(_) if until == self.deadline => Err(ModelError::Timeout { detail: "the step took too long".into() }),
            Err(_) => Err(ModelError::Stalled { detail: format!("the agent was silent for {silence:?}") }),
        }
    }

    /// Takes the complete lines among these bytes, until the step is done.
    fn take(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            self.reply.take(&self.rest[begin..begin + length], &mut self.deltas)?;
            begin += length + 1;
            if self.reply.is_done() {
                break;
            }
        }
        self.rest.drain(..begin);
        match self.rest.len() > LINE_MAX_BYTES && !self.reply.is_done() {
            true => Err(ModelError::TooLarge { detail: "a line of the agent is too long".into() }),
            false => Ok(()),
        }
    }
}
