//! Tasks of a server: a call that goes on at the server after its answer, and is asked for until it is over.

use std::{collections::HashSet, time::Duration};

use rmcp::{
    Peer, RoleClient, ServiceError,
    model::{
        CancelTaskParams, CancelTaskRequest, ClientRequest, GetTaskParams, GetTaskRequest, InputResponses,
        ServerResult, TaskPayload, UpdateTaskParams, UpdateTaskRequest,
    },
};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    call,
    elicit::{self, ElicitationRound, ServerQuestions},
    lenient,
    server::McpServerHandle,
};
use crate::{
    limits,
    tools::{
        context::CallContext,
        outcome::{ToolCallOutcome, ToolResult},
        tool::Tool,
    },
};

/// A task, looked at.
enum Looked {
    /// It goes on; its server wants to be asked again after this time.
    Working(Option<u64>),
    Asks(ServerQuestions),
    Over(ToolResult),
}

impl McpServerHandle {
    /// Asks for a task until it is over, asks the visitor, or has gone on for the time of a call. If its server can't be
    /// reached counts as going on: the turn ends at its own limit.
    pub(super) async fn follow(&self, tool: &Tool, task: &str, context: &CallContext) -> ToolCallOutcome {
        let end = Instant::now() + tool.timeout;
        let mut answers = context.elicited.as_ref().map(elicit::responses);
        let mut declined: HashSet<String> = HashSet::new();
        loop {
            let Some(up) = self.up() else { return ToolCallOutcome::Working(pause(None)) };
            let patience = Duration::from_millis(limits::MCP_TASK_LOOK_MS);
            let looked = timeout(patience, tell_and_look(&up.peer, task, &mut answers)).await;
            let wait = match looked {
                Ok(Ok(Looked::Over(result))) => return result.into(),
                Ok(Ok(Looked::Working(wait))) => wait,
                Ok(Ok(Looked::Asks(requested))) => {
                    let requested = requested.without(context.elicited.as_ref(), &declined);
                    match (!requested.is_empty()).then(|| requested.round(context, true)) {
                        None => None,
                        Some(ElicitationRound::Ask(elicited)) => return ToolCallOutcome::Asks(elicited),
                        Some(ElicitationRound::Again(responses, _)) => {
                            declined.extend(responses.keys().cloned());
                            answers = Some(responses);
                            None
                        }
                        Some(ElicitationRound::End(why)) => {
                            self.cancel(task).await;
                            return ToolResult::error(why).into();
                        }
                    }
                }
                Ok(Err(ServiceError::McpError(error))) => {
                    tracing::warn!(
                        tool = tool.name,
                        code = error.code.0,
                        "a task of an MCP server is not known any more"
                    );
                    return lost(tool).into();
                }
                Ok(Err(ServiceError::UnexpectedResponse)) => return call::senseless().into(),
                Ok(Err(_)) | Err(_) => {
                    self.doubt();
                    None
                }
            };
            let wait = pause(wait);
            if Instant::now() + wait > end {
                return ToolCallOutcome::Working(wait);
            }
            sleep(wait).await;
        }
    }

    /// Tells the server that its task is no longer wanted. Nothing depends on it.
    pub(super) async fn cancel(&self, task: &str) {
        let Some(up) = self.up() else { return };
        let request = ClientRequest::CancelTaskRequest(CancelTaskRequest::new(CancelTaskParams::new(task)));
        let patience = Duration::from_millis(limits::MCP_TASK_LOOK_MS);
        if !matches!(timeout(patience, lenient::ask(&up.peer, request)).await, Ok(Ok(_))) {
            tracing::debug!(
                server = self.settings.name,
                "an MCP server can't be told that a task is not wanted any more"
            );
        }
    }
}

/// The time until a task is looked at again, as its server wants it within reason.
fn pause(wanted_ms: Option<u64>) -> Duration {
    let most = limits::MCP_TASK_POLL_MAX_MS;
    Duration::from_millis(wanted_ms.unwrap_or(limits::MCP_TASK_POLL_MS).clamp(limits::MCP_TASK_POLL_MIN_MS, most))
}

/// The result of a call after its task is gone.
fn lost(tool: &Tool) -> ToolResult {
    match tool.idempotent {
        true => ToolResult::error("The tool did not finish."),
        false => ToolResult::outcome_unknown(),
    }
}

/// Gives the server answers that it has not got yet, and looks at the task.
async fn tell_and_look(
    peer: &Peer<RoleClient>,
    task: &str,
    answers: &mut Option<InputResponses>,
) -> Result<Looked, ServiceError> {
    if let Some(responses) = answers.clone() {
        let params = UpdateTaskParams::new(task, responses);
        match lenient::ask(peer, ClientRequest::UpdateTaskRequest(UpdateTaskRequest::new(params))).await {
            // A task that is over takes no answers; its state says so.
            Ok(_) | Err(ServiceError::McpError(_)) => *answers = None,
            Err(error) => return Err(error),
        }
    }
    match lenient::ask(peer, ClientRequest::GetTaskRequest(GetTaskRequest::new(GetTaskParams::new(task)))).await? {
        ServerResult::GetTaskResult(result) => {
            let wait = result.task.task.poll_interval_ms;
            Ok(match result.task.payload {
                TaskPayload::InputRequired { input_requests } => Looked::Asks(ServerQuestions::of_task(input_requests)),
                TaskPayload::Completed { result } => Looked::Over(completed(Value::Object(result))),
                TaskPayload::Failed { .. } => Looked::Over(ToolResult::error("The tool failed.")),
                TaskPayload::Cancelled => Looked::Over(ToolResult::error("The tool's work was cancelled.")),
                _ => Looked::Working(wait),
            })
        }
        ServerResult::CustomResult(result) => odd(result.0).ok_or(ServiceError::UnexpectedResponse),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

/// A task that the library does not take, read as far as possible.
fn odd(task: Value) -> Option<Looked> {
    Some(match task["status"].as_str()? {
        "working" => Looked::Working(task["pollIntervalMs"].as_u64()),
        "input_required" => Looked::Asks(ServerQuestions::odd_of_task(&task)?),
        "completed" => Looked::Over(completed(task["result"].clone())),
        "failed" => Looked::Over(ToolResult::error("The tool failed.")),
        "cancelled" => Looked::Over(ToolResult::error("The tool's work was cancelled.")),
        _ => return None,
    })
}

fn completed(result: Value) -> ToolResult {
    let read = serde_json::from_value(result.clone()).ok().or_else(|| lenient::result_of(result));
    read.map_or_else(call::senseless, call::read)
}
