//! One call of an agent's tool: a turn of a conversation, to its end or until it waits for a person.
//!
//! Contract: the actions of the protocol are served on a connection without a socket, which sees its turn's frames like any
//! other.
//! (1) Opens a session, or finds the named one;
//! (2) sends the message;
//! (3) follows the turn until its last frame, or until it is parked.
//!
//! A caller that leaves does not end the turn.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use rmcp::model::{CallToolResult, InputRequiredResult, JsonObject};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    McpVisitor,
    answer::{self, CallRefusal},
    prompts::{self, FormAnswer, PromptAnswer, PromptHandle},
};
use crate::{
    auth::REFERENCE_ORG,
    domain::{Turn, event::Prompt},
    edge::{
        Edge, actions,
        client::{ClientIdentity, Connection},
        policy::admission,
    },
    limits,
    live::hub::FrameQueue,
    log::conversations::Freshness,
    subjects::ConversationKey,
    wire::stored::SessionRecord,
};

/// The forms of sessions with a client that can be asked.
const FORMS: [&str; 3] = ["identity_form", "choice_chips", "elicitation_form"];

/// Notifies a caller that its turn goes on, if the caller asked for progress.
pub struct ProgressNotifier(pub Option<Box<dyn Fn(f64) -> BoxFuture<'static, ()> + Send + Sync>>);

/// A tool call to be served.
pub struct AgentCall {
    /// The agent's id.
    pub agent: String,
    /// True if the client shows forms in the answer to its call.
    pub can_ask: bool,
    pub progress: ProgressNotifier,
    /// Cancelled when the caller no longer waits for the answer.
    pub given_up: CancellationToken,
}

/// The answer to a call.
pub enum CallOutcome {
    Over(CallToolResult),
    Asks(InputRequiredResult),
}

/// A followed turn, on a connection of its own.
struct FollowedTurn {
    connection: Connection,
    live: FrameQueue,
    record: Arc<SessionRecord>,
    key: ConversationKey,
}

/// The state of a turn when its call is answered.
enum TurnEnd {
    Answered(Value),
    Failed(CallRefusal),
    Parked(Box<Turn>, Uuid, Prompt),
}

impl AgentCall {
    /// Serves a call that brings a message.
    pub async fn begin(self, edge: Arc<Edge>, visitor: &McpVisitor, arguments: JsonObject) -> CallOutcome {
        let mut followed = match self.open(edge, visitor, &arguments).await {
            Ok(followed) => followed,
            Err(refused) => return CallOutcome::Over(refused.result(None)),
        };
        let request_id = Uuid::new_v4().to_string();
        let message = json!({
            "action": "send_message", "requestId": request_id, "sessionId": followed.record.session, "stream": false,
            "message": arguments.get("message"),
        });
        followed.act(message).await;
        self.follow(followed, &request_id).await
    }

    /// Serves a call that brings a person's answer. A late answer gets the turn's current state.
    pub async fn go_on(self, edge: Arc<Edge>, visitor: &McpVisitor, answered: PromptAnswer) -> CallOutcome {
        let PromptAnswer { handle, answer } = answered;
        let mut followed = match self.find(edge, visitor, handle.session).await {
            Ok(followed) => followed,
            Err(refused) => return CallOutcome::Over(refused.result(None)),
        };
        let served = followed.attach(handle.turn).await;
        let (request_id, parked) = match served {
            Ok(found) => found,
            Err(refused) => return CallOutcome::Over(refused.result(Some(&followed.record))),
        };
        if let Some((turn, park, prompt)) = parked.filter(|(_, park, _)| *park == handle.park) {
            followed.connection.out.clear();
            let Some(action) = decision(&prompt, park, followed.record.session, answer) else {
                return self.waiting(&followed.record, &turn, park, &prompt, "");
            };
            let answers = followed.act(action).await;
            let problems = problems(&answers);
            if !problems.is_empty() {
                return self.waiting(&followed.record, &turn, park, &prompt, &problems);
            }
        }
        self.follow(followed, &request_id).await
    }

    /// Finds the session that the call names, or opens a new one.
    async fn open(
        &self,
        edge: Arc<Edge>,
        visitor: &McpVisitor,
        arguments: &JsonObject,
    ) -> Result<FollowedTurn, CallRefusal> {
        let (conversation, session) = (id_in(arguments, "conversationId")?, id_in(arguments, "sessionId")?);
        if let Some(session) = session {
            let followed = self.find(edge, visitor, session).await?;
            return match conversation.is_none_or(|id| id == followed.record.conversation) {
                true => Ok(followed),
                false => Err(CallRefusal::new("CONVERSATION_NOT_FOUND", "the session is of another conversation")),
            };
        }
        let (mut connection, live) = connect(edge, visitor).await?;
        if let Some(id) = conversation
            && !actions::may_join(&connection, id).await?
        {
            return Err(CallRefusal::new("CONVERSATION_NOT_FOUND", "there is no such conversation"));
        }
        let mut action = json!({
            "action": "create_conversation_session", "requestId": Uuid::new_v4().to_string(), "agentId": self.agent,
            "conversationId": conversation,
        });
        if self.can_ask {
            action["supports"] = json!(FORMS);
        }
        let answers = act(&mut connection, action).await;
        let session = connection.session.ok_or_else(|| CallRefusal::among(&answers))?;
        let found = actions::session(&mut connection, Some(session)).await?;
        let (record, key) = found.ok_or_else(|| CallRefusal::new("SESSION_NOT_FOUND", "there is no such session"))?;
        Ok(FollowedTurn { connection, live, record, key })
    }

    /// Finds a session of this agent that the caller may use.
    async fn find(&self, edge: Arc<Edge>, visitor: &McpVisitor, session: Uuid) -> Result<FollowedTurn, CallRefusal> {
        let (mut connection, live) = connect(edge, visitor).await?;
        let found = actions::session(&mut connection, Some(session)).await?;
        let (record, key) = found
            .filter(|(record, _)| record.agent_id == self.agent)
            .ok_or_else(|| CallRefusal::new("SESSION_NOT_FOUND", "there is no such session of this agent"))?;
        Ok(FollowedTurn { connection, live, record, key })
    }

    /// Follows a turn and answers the call.
    async fn follow(self, mut followed: FollowedTurn, request_id: &str) -> CallOutcome {
        let record = followed.record.clone();
        let end = tokio::select! {
            end = Box::pin(followed.end_of(request_id, &self.progress)) => end,
            () = self.given_up.cancelled() => {
                TurnEnd::Failed(CallRefusal::new("CANCELLED", "The call was given up; the turn goes on."))
            }
        };
        match end {
            TurnEnd::Answered(data) => CallOutcome::Over(answer::answered(&record, &data)),
            TurnEnd::Failed(refused) => CallOutcome::Over(refused.result(Some(&record))),
            TurnEnd::Parked(turn, park, prompt) => self.waiting(&record, &turn, park, &prompt, ""),
        }
    }

    /// Builds the answer to a call with a turn that waits for a person.
    fn waiting(&self, record: &SessionRecord, turn: &Turn, park: Uuid, prompt: &Prompt, problems: &str) -> CallOutcome {
        let handle = PromptHandle { session: record.session, turn: turn.request.turn, park };
        if let Some(form) = prompts::form(prompt, &handle, problems).filter(|_| self.can_ask) {
            return CallOutcome::Asks(form);
        }
        let (words, waiting_for) = prompts::described(prompt);
        CallOutcome::Over(answer::waiting(record, words, waiting_for))
    }
}

impl FollowedTurn {
    async fn act(&mut self, action: Value) -> Vec<Value> {
        let begin = self.connection.out.len();
        Box::pin(actions::dispatch(&mut self.connection, action.to_string().into())).await;
        self.connection.out[begin..].iter().filter_map(|frame| serde_json::from_slice(frame).ok()).collect()
    }

    /// Attaches the connection to a turn that began on another one. Returns the turn's requestId and its pending prompt.
    async fn attach(&mut self, id: Uuid) -> Result<(String, Option<(Box<Turn>, Uuid, Prompt)>), CallRefusal> {
        let (connection, key) = (&mut self.connection, &self.key);
        connection.watch(key, false).await?;
        let state = connection.edge.conversations.load(key, Freshness::Leader).await?;
        if let Some(turn) = state.active(id) {
            connection.attach(key, turn).await;
            let park = turn.park.as_ref().map(|park| (Box::new(turn.clone()), park.id, park.prompt.clone()));
            return Ok((turn.request.request_id.clone(), park));
        }
        let finished = state.finished_turn(id);
        let finished = finished.ok_or_else(|| CallRefusal::new("NOT_FOUND", "there is no such turn"))?;
        let request_id = finished.request_id.clone();
        connection.delivery.open(key, id, &request_id, None);
        connection.show_end(key, &state, id).await;
        Ok((request_id, None))
    }

    /// Follows the turn of a request to its end, or until it is parked.
    async fn end_of(&mut self, request_id: &str, progress: &ProgressNotifier) -> TurnEnd {
        let shutdown = self.connection.edge.shutdown.clone();
        let pause = Duration::from_millis(limits::SILENCE_CHECK_MS / 4);
        let (mut check_at, mut steps) = (Instant::now() + pause, 0.0);
        loop {
            for frame in std::mem::take(&mut self.connection.out) {
                let Ok(frame) = serde_json::from_slice::<Value>(&frame) else { continue };
                if frame["requestId"] != request_id {
                    continue;
                }
                match frame["type"].as_str().unwrap_or_default() {
                    "eventual_response" => return TurnEnd::Answered(frame["data"]["data"].clone()),
                    "cancelled" => return TurnEnd::Failed(CallRefusal::new("CANCELLED", "The turn was cancelled.")),
                    "error" => return TurnEnd::Failed(CallRefusal::of(&frame)),
                    "write_confirmation_required" | "interaction_required" => {
                        if let Some(parked) = self.parked(request_id).await {
                            return parked;
                        }
                    }
                    _ => {}
                }
                if let Some(notify) = &progress.0 {
                    steps += 1.0;
                    notify(steps).await;
                }
            }
            tokio::select! {
                Some(frame) = self.live.next() => self.connection.take_live(frame, &mut self.live).await,
                () = sleep_until(check_at) => {
                    self.connection.look_after_silent_turns().await;
                    check_at = Instant::now() + pause;
                }
                () = shutdown.cancelled() => {
                    let words = "The server restarts; the turn goes on, and its answer will be in the conversation.";
                    return TurnEnd::Failed(CallRefusal::new("INTERNAL_ERROR", words));
                }
            }
        }
    }

    /// Returns the prompt that the turn waits for now. A prompt frame may be older than the decision about it.
    async fn parked(&self, request_id: &str) -> Option<TurnEnd> {
        let state = self.connection.edge.conversations.load(&self.key, Freshness::Leader).await.ok()?;
        let turn = state.turn.as_ref().filter(|turn| turn.request.request_id == request_id)?;
        let park = turn.park.as_ref()?;
        Some(TurnEnd::Parked(Box::new(turn.clone()), park.id, park.prompt.clone()))
    }
}

/// Makes a connection without a socket, with a slot in the quota.
async fn connect(edge: Arc<Edge>, visitor: &McpVisitor) -> Result<(Connection, FrameQueue), CallRefusal> {
    let org = visitor.principal.as_ref().map_or(REFERENCE_ORG, |principal| &principal.org);
    let place = edge
        .quota
        .connect(org, visitor.address)
        .await
        .map_err(|error| CallRefusal::from(admission::too_much(error)))?;
    let (listener, live) = edge.hub.listener();
    let caller = ClientIdentity {
        principal: visitor.principal.clone(),
        origin: visitor.origin.clone(),
        address: visitor.address,
        slot: place,
        resumes: false,
    };
    let (connection, _) = Connection::new(edge, listener, caller);
    Ok((connection, live))
}

/// Serves an action and takes its frames out of the connection.
async fn act(connection: &mut Connection, action: Value) -> Vec<Value> {
    Box::pin(actions::dispatch(connection, action.to_string().into())).await;
    let frames = std::mem::take(&mut connection.out);
    frames.iter().filter_map(|frame| serde_json::from_slice(frame).ok()).collect()
}

/// Converts a person's answer to an action; `None` for a form that was closed.
fn decision(prompt: &Prompt, park: Uuid, session: Uuid, answer: FormAnswer) -> Option<Value> {
    let request_id = Uuid::new_v4().to_string();
    let approved = match (prompt, answer) {
        (_, FormAnswer::Closed) | (Prompt::Task { .. }, _) => return None,
        (Prompt::Approval { .. }, FormAnswer::Accepted(content)) => content.get("approved") == Some(&json!(true)),
        (Prompt::Approval { .. }, FormAnswer::Declined) => false,
        (Prompt::Interaction { form, .. } | Prompt::Elicitation { form, .. }, answer) => {
            let mut action = json!({
                "action": "submit_interaction", "requestId": request_id, "sessionId": session, "interactionId": park,
                "kind": form.kind(),
            });
            match answer {
                FormAnswer::Accepted(content) => action["values"] = prompts::values(form, content),
                _ => action["declined"] = true.into(),
            }
            return Some(action);
        }
    };
    Some(json!({
        "action": "confirm_tool_action", "requestId": request_id, "sessionId": session, "approved": approved,
    }))
}

/// Returns the mistakes in a submitted form, in words.
fn problems(answers: &[Value]) -> String {
    let invalid = answers.iter().find(|frame| frame["type"] == "interaction_invalid");
    let errors = invalid.and_then(|frame| frame["data"]["data"]["errors"].as_array());
    let words = |error: &Value| {
        format!("{}: {}", error["field"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
    };
    errors.into_iter().flatten().map(words).collect::<Vec<_>>().join("; ")
}

fn id_in(arguments: &JsonObject, name: &str) -> Result<Option<Uuid>, CallRefusal> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let id = value.as_str().and_then(|id| id.parse().ok());
            let words = format!("`{name}` is not the id of one");
            id.map(Some).ok_or_else(|| CallRefusal::new("VALIDATION_ERROR", words))
        }
    }
}
