//! The OpenAPI document of the API, made from the table of routes and the types of its JSON.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    forms,
    route::{ROUTES, Route, RouteTask},
};
use crate::{auth::Role, history::report::ConversationReport};

/// The request and the response of a route.
struct Operation {
    summary: &'static str,
    takes: Option<Value>,
    status: u16,
    gives: Option<Value>,
    is_paged: bool,
}

/// Collects the schemas of requests and of responses.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// Builds the document from the table of routes.
pub fn document() -> Value {
    let settings = || SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let (read, written) = (settings().into_generator(), settings().for_serialize().into_generator());
    let mut schemas = Schemas { read, written };
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(format!("/admin/{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = describe(route, schemas.operation(route.task));
    }
    let mut components = schemas.read.take_definitions(true);
    components.extend(schemas.written.take_definitions(true));
    components.insert("Error".into(), error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Turnstream administration",
            "version": "1.0.0",
            "description": "Served by every edge. Everything is of the token's organisation; what another one has is as what does \
                            not exist. Roles: admin may what curator may, and curator what basic may.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

impl Schemas {
    fn takes<T: JsonSchema>(&mut self) -> Option<Value> {
        Some(self.read.subschema_for::<T>().to_value())
    }

    fn gives<T: JsonSchema>(&mut self, summary: &'static str) -> Operation {
        let gives = Some(self.written.subschema_for::<T>().to_value());
        Operation { summary, takes: None, status: 200, gives, is_paged: false }
    }

    fn operation(&mut self, task: RouteTask) -> Operation {
        match task {
            RouteTask::Health => self.gives::<forms::HealthReport>("Whether the API is served. Needs no token"),
            RouteTask::Me => self.gives::<forms::CallerView>("Who the token stands for"),
            RouteTask::Conversations => Operation {
                is_paged: true,
                ..self.gives::<forms::ConversationList>("Conversations, newest first; below curator one's own")
            },
            RouteTask::Messages => Operation {
                is_paged: true,
                ..self.gives::<forms::MessageList>("Messages of a conversation, oldest first; below curator one's own")
            },
            RouteTask::Events => Operation {
                is_paged: true,
                ..self.gives::<forms::EventPage>(
                    "Events of a conversation, from its end backwards, with all that is stored",
                )
            },
            RouteTask::States => Operation {
                is_paged: true,
                ..self.gives::<forms::StatePage>("What each event of a page of events changed in the state")
            },
            RouteTask::Verification => {
                self.gives::<forms::Verification>("Whether a conversation's chain of digests holds")
            }
            RouteTask::Report => {
                self.gives::<ConversationReport>("All of a conversation; as a page where `text/html` is accepted")
            }
            RouteTask::Runs => self.gives::<forms::RunList>("Runs of ingest, newest first"),
            RouteTask::DocumentSets => self.gives::<forms::DocumentSets>("Sets of documents"),
            RouteTask::Connectors => self.gives::<forms::ConnectorList>("Where documents come from"),
            RouteTask::CreateConnector => Operation {
                takes: self.takes::<forms::NewConnector>(),
                status: 201,
                ..self.gives::<forms::ConnectorResponse>("A new connector")
            },
            RouteTask::ReplaceConnector => Operation {
                takes: self.takes::<forms::NewConnector>(),
                ..self.gives::<forms::ConnectorResponse>("A connector, described anew")
            },
            RouteTask::DeleteConnector => Operation {
                summary: "Deletes a connector; the documents that it brought stay",
                takes: None,
                status: 204,
                gives: None,
                is_paged: false,
            },
            RouteTask::IndexConnector => {
                self.gives::<forms::RunResponse>("Has a connector's documents ingested by an ingester")
            }
            RouteTask::Settings => self.gives::<forms::SettingsResponse>("The organisation's settings"),
            RouteTask::ReplaceSettings => Operation {
                takes: self.takes::<forms::OrgSettingsUpdate>(),
                ..self.gives::<forms::SettingsResponse>("The organisation's settings, set anew")
            },
            RouteTask::Publish => Operation {
                takes: self.takes::<forms::PublishRequest>(),
                ..self.gives::<forms::PublishReceipt>("An event for connected clients, sent to them as it is")
            },
        }
    }
}

fn describe(route: &Route, operation: Operation) -> Value {
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    if operation.is_paged {
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": 200, "default": 50 });
        parameters.push(json!({ "name": "limit", "in": "query", "schema": limit }));
        let cursor = json!({ "type": "integer", "minimum": 0 });
        parameters.push(json!({ "name": "cursor", "in": "query", "description": "`nextCursor` of the page before.", "schema": cursor }));
    }
    if route.task == RouteTask::Conversations {
        let day = json!({ "type": "string", "format": "date" });
        for (name, what, schema) in [
            ("q", "Part of a title or of an owner's address, or an id.", json!({ "type": "string" })),
            ("from", "The first day on which something was said last.", day.clone()),
            ("to", "The last such day.", day),
        ] {
            parameters.push(json!({ "name": name, "in": "query", "description": what, "schema": schema }));
        }
    }
    let mut responses = Map::new();
    let mut success = match operation.gives {
        Some(schema) => json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } }),
        None => json!({ "description": "Done." }),
    };
    if route.task == RouteTask::Report {
        success["content"]["text/html"] = json!({ "schema": { "type": "string" } });
    }
    responses.insert(operation.status.to_string(), success);
    let mut refuse = |status: &str, why: &str| {
        let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
        responses.insert(status.into(), json!({ "description": why, "content": content }));
    };
    let mut described = json!({ "operationId": format!("{:?}", route.task), "summary": operation.summary });
    if let Some(role) = route.role {
        refuse("401", "UNAUTHENTICATED, INVALID_TOKEN or MISSING_ROLE.");
        if role > Role::Basic || route.task == RouteTask::Messages {
            refuse("403", "FORBIDDEN: this needs another role.");
        }
        refuse("503", "STORAGE_ERROR: please try again.");
        described["security"] = json!([{ "bearer": [] }]);
        described["x-role"] = json!(role);
    }
    if operation.takes.is_some() || operation.is_paged {
        refuse("400", "VALIDATION_ERROR.");
    }
    if [RouteTask::States, RouteTask::Verification, RouteTask::Report].contains(&route.task) {
        refuse("413", "VALIDATION_ERROR: the conversation is too large to be read whole by an edge.");
    }
    if route.path.contains("{id}") || route.task == RouteTask::Publish {
        refuse("404", "NOT_FOUND.");
    }
    if let Some(schema) = operation.takes {
        described["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    described["parameters"] = parameters.into();
    described["responses"] = responses.into();
    described
}

/// Returns the schema of an `error` frame that answers no request.
fn error() -> Value {
    let object = json!({
        "type": "object",
        "properties": { "code": { "type": "string" }, "message": { "type": "string" } },
        "required": ["code", "message"],
    });
    json!({
        "type": "object",
        "properties": {
            "type": { "const": "error" },
            "timestamp": { "type": "integer" },
            "error": object,
            "data": { "type": "object", "properties": { "error": object }, "required": ["error"] },
        },
        "required": ["type", "timestamp", "error", "data"],
    })
}
