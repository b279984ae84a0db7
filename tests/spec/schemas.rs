//! Generates the JSON Schemas and the OpenAPI document of `spec/` from the types of frames and events.
//!
//! Contract: what [`files`] makes is a function of the program alone, so a test can compare it with the committed files.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use turnstream::{
    admin::openapi,
    agents::AgentConfig,
    domain::event::{self, kind},
    host::{StepRequest, reply::AgentMessage},
    knowledge, lists, privacy,
    wire::{actions, frames, prompts, stored::SessionRecord},
};

/// Returns name and content of every generated file.
pub fn files() -> Vec<(&'static str, String)> {
    [
        ("actions.schema.json", actions()),
        ("agent.schema.json", agent()),
        ("agent-host.schema.json", agent_host()),
        ("frames.schema.json", frames()),
        ("events.schema.json", events()),
        ("openapi.json", openapi::document()),
    ]
    .map(|(name, schema)| (name, format!("{schema:#}\n")))
    .into()
}

/// Types collected into one document's `$defs`.
struct Document {
    generator: SchemaGenerator,
    defs: Map<String, Value>,
}

impl Document {
    /// Creates a document of types that this program and others read.
    fn of_readers() -> Self {
        Self { generator: SchemaSettings::draft2020_12().into_generator(), defs: Map::new() }
    }

    /// Creates a document of types that this program only writes: optional fields are not required, fields always written are.
    fn of_writer() -> Self {
        Self { generator: SchemaSettings::draft2020_12().for_serialize().into_generator(), defs: Map::new() }
    }

    /// Adds a type under a name of its own.
    fn add<T: JsonSchema>(&mut self, name: &str) -> &mut Value {
        let mut schema = self.generator.root_schema_for::<T>().to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            if let Some(Value::Object(shared)) = object.remove("$defs") {
                self.defs.extend(shared);
            }
        }
        self.defs.insert(name.to_string(), schema);
        &mut self.defs[name]
    }

    fn finish(self, title: &str, description: &str, one_of: Vec<Value>) -> Value {
        let mut document = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "description": description,
            "$defs": self.defs,
        });
        if !one_of.is_empty() {
            document["oneOf"] = one_of.into();
        }
        document
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The frames of clients: one definition per action, told apart by the field `action`.
fn actions() -> Value {
    let mut document = Document::of_readers();
    let mut one_of = Vec::new();
    let mut add = |name: &str, schema: &mut Value| {
        schema["properties"]["action"] = json!({ "const": name });
        match schema["required"].as_array_mut() {
            Some(required) => required.insert(0, "action".into()),
            None => schema["required"] = json!(["action"]),
        }
        one_of.push(reference(name));
    };
    for (action, name) in actions::Action::ALL {
        let schema = match action {
            actions::Action::Ping => document.add::<actions::Ping>(name),
            actions::Action::CreateConversationSession => document.add::<actions::CreateConversationSession>(name),
            actions::Action::GetSession => document.add::<actions::GetSession>(name),
            actions::Action::GetConversationMessages => document.add::<actions::GetConversationMessages>(name),
            actions::Action::ListConversations => document.add::<actions::ListConversations>(name),
            actions::Action::RenameConversation => document.add::<actions::RenameConversation>(name),
            actions::Action::SendMessage => document.add::<actions::SendMessage>(name),
            actions::Action::ConfirmToolAction => document.add::<actions::ConfirmToolAction>(name),
            actions::Action::SubmitInteraction => document.add::<actions::SubmitInteraction>(name),
            actions::Action::VerifyOtp => document.add::<actions::VerifyOtp>(name),
            actions::Action::Cancel => document.add::<actions::Cancel>(name),
            actions::Action::ResumeSession => document.add::<actions::ResumeSession>(name),
        };
        add(name, schema);
    }
    document.finish("Actions", "Frames that a client sends. Unknown fields are ignored.", one_of)
}

/// The frames of the server, and the `data` of replies to actions.
fn frames() -> Value {
    let mut document = Document::of_writer();
    document.add::<frames::Frame>("Frame");
    document.add::<frames::SessionCreated>("create_conversation_session.data");
    document.add::<frames::SessionView>("get_session.data");
    document.add::<frames::MessagePage>("get_conversation_messages.data");
    document.add::<frames::ConversationPage>("list_conversations.data");
    document.add::<frames::RenameReply>("rename_conversation.data");
    document.add::<frames::ConfirmReply>("confirm_tool_action.data");
    document.add::<prompts::SubmitReply>("submit_interaction.data");
    document.add::<prompts::DeclineReply>("submit_interaction.data.declined");
    document.add::<frames::ResumeReply>("resume_session.data");
    let description = "Frames that a server sends, exactly: no other field may be there. On a connection that asked for the \
                       resume extension, turn frames also carry `seq`, a string. The data of an immediate_response is \
                       that of the action that it answers; the 202 of send_message has none.";
    document.finish("Frames", description, vec![reference("Frame")])
}

/// The schema of an agent's configuration.
fn agent() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.root_schema_for::<AgentConfig>().to_value()
}

/// The messages between the host and an agent that is another program.
fn agent_host() -> Value {
    let mut document = Document::of_writer();
    document.add::<StepRequest>("request");
    let mut replies = Document::of_readers();
    replies.add::<AgentMessage>("reply");
    document.defs.extend(replies.defs);
    let description = "What an agent is sent for a step, and each line of its reply: spec/guide/agent-host.md.";
    document.finish("Agent host", description, vec![reference("request"), reference("reply")])
}

/// The stored payloads: one definition per event name, the session record, and documents.
fn events() -> Value {
    let mut document = Document::of_readers();
    document.add::<event::SessionOpened>(kind::SESSION_OPENED);
    document.add::<event::SessionIdentified>(kind::SESSION_IDENTIFIED);
    document.add::<event::ConversationRenamed>(kind::CONVERSATION_RENAMED);
    document.add::<event::TurnRequested>(kind::TURN_REQUESTED);
    document.add::<event::TurnStarted>(kind::TURN_STARTED);
    document.add::<event::TurnReleased>(kind::TURN_RELEASED);
    document.add::<event::ModelReplied>(kind::TURN_MODEL_REPLIED);
    document.add::<event::ToolCalled>(kind::TURN_TOOL_CALLED);
    document.add::<event::ToolReturned>(kind::TURN_TOOL_RETURNED);
    document.add::<event::TurnParked>(kind::TURN_PARKED);
    document.add::<event::TurnResumed>(kind::TURN_RESUMED);
    document.add::<event::TurnCompleted>(kind::TURN_COMPLETED);
    document.add::<event::TurnFailed>(kind::TURN_FAILED);
    document.add::<event::TurnCancelled>(kind::TURN_CANCELLED);
    document.add::<SessionRecord>("session");
    document.add::<lists::ListEntry>("index.entry");
    document.add::<privacy::ledger::LedgerEntry>("privacy");
    document.add::<knowledge::Document>("knowledge.document");
    document.add::<knowledge::document::Chunk>("knowledge.chunk");
    document.add::<knowledge::runs::RunEvent>("knowledge.run");
    document.add::<knowledge::connector::Connector>("connector");
    document.add::<knowledge::connector::IngestItem>("ingest.item");
    // Closed types as parts of client frames, but stored ones may get more fields.
    for name in ["Citation", "Response"] {
        if let Some(Value::Object(schema)) = document.defs.get_mut(name) {
            schema.remove("additionalProperties");
        }
    }
    let description = "Payloads of stored events, by the event's name, which is its `ce-type` without `turnstream.`; \
                       the session record; entries of the index, and of the ledger of holds and erasures; documents with their \
                       passages; and connectors. A reader must accept fields that it does not know.";
    document.finish("Events", description, vec![])
}
