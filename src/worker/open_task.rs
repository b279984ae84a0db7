//! Tasks that MCP servers made of calls.

use crate::domain::Turn;

/// A task that an MCP server made of a call, by the tool's name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenTask {
    pub tool: String,
    pub id: String,
}

/// The tasks of a turn that may go on at their servers.
pub(super) fn open_tasks(turn: &Turn) -> Vec<OpenTask> {
    let calls = turn.replies.last().into_iter().flat_map(|reply| &reply.calls).filter(|call| call.result.is_none());
    calls.filter_map(|call| Some(OpenTask { tool: call.request.name.clone(), id: call.task.clone()? })).collect()
}
