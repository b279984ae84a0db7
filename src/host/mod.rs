//! The agent host: another program answers the steps of turns, and this process keeps everything else.
//!
//! Contract: [`AgentHost::step`] sends one [`StepRequest`] and returns an [`AgentStream`] once the agent has said something.
//! Until then a program that dies, is silent or can't be reached is tried again. A reply counts only when the agent has
//! ended it. Everything that an agent can send is bounded in size and time, and checked; no text of its errors is in an
//! error's `Display`. Dropping the stream stops the agent's work on the step.
//!
//! - [`address`]: where the agent is.
//! - [`request`], [`reply`]: the two halves of the contract, `spec/guide/agent-host.md`.
//! - [`stream`]: the reply while it comes in.
//! - [`process`]: an agent that is one process for each step.
//!
//! Architecture invariant: this room knows nothing of the log, of events or of NATS.

pub mod address;
mod process;
pub mod reply;
pub mod request;
mod stream;

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client,
    header::{ACCEPT, CONTENT_TYPE},
    redirect,
};

use crate::model::ModelError;
pub use address::AgentAddress;
pub use request::StepRequest;
pub use stream::{AgentStream, STEP_MAX_MS};

/// Attempts to get a first word from an agent.
const TRIES_MAX: u32 = 3;
/// Pause before the second attempt; doubled before the third.
const RETRY_MS: u64 = 250;
/// Time for a connection to an agent's server.
const CONNECT_MS: u64 = 5_000;

/// Asks an agent for steps. Clones share the connections.
#[derive(Clone)]
pub struct AgentHost {
    address: AgentAddress,
    client: Client,
}

impl AgentHost {
    /// Returns a host of the agent at an address.
    pub fn new(address: AgentAddress) -> Result<Self, reqwest::Error> {
        let builder = Client::builder().redirect(redirect::Policy::none());
        let client = builder.connect_timeout(Duration::from_millis(CONNECT_MS)).build()?;
        Ok(Self { address, client })
    }

    /// Asks for a step, and waits for the first word of the reply.
    pub async fn step(&self, request: &StepRequest) -> Result<AgentStream, ModelError> {
        let body = Bytes::from(serde_json::to_vec(request).expect("strings and JSON values always serialise"));
        let mut attempt = 1;
        loop {
            let error = match self.attempt(body.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if attempt == TRIES_MAX || !is_passing(&error) {
                return Err(error);
            }
            tracing::warn!(%error, detail = error.detail(), attempt, "the agent did not begin a step; trying again");
            tokio::time::sleep(Duration::from_millis(RETRY_MS << (attempt - 1))).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<AgentStream, ModelError> {
        let mut stream = match &self.address {
            AgentAddress::Exec(words) => AgentStream::of_process(process::start(words, body)?),
            AgentAddress::Http(url) => {
                let request = self.client.post(url.clone()).header(CONTENT_TYPE, "application/json");
                AgentStream::of_request(request.header(ACCEPT, "application/x-ndjson").body(body)).await?
            }
        };
        stream.begin().await?;
        Ok(stream)
    }
}

/// Returns whether another attempt, or another instance of the agent, may end better.
pub fn is_passing(error: &ModelError) -> bool {
    match error {
        ModelError::Status { code, .. } => matches!(code, 408 | 429 | 502 | 503 | 504),
        ModelError::Connect { .. } | ModelError::Truncated { .. } | ModelError::Stalled { .. } => true,
        ModelError::Timeout { .. }
        | ModelError::NotTheApi { .. }
        | ModelError::Reported { .. }
        | ModelError::Filtered { .. }
        | ModelError::TooLarge { .. } => false,
    }
}
