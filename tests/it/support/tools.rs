//! Tool providers: NATS micro services that count and record their calls.

use std::collections::HashMap;

use async_nats::{
    Client,
    client::RequestErrorKind,
    service::{Request, Service, ServiceExt, endpoint::Endpoint, error::Error as ServiceError},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use super::{WAIT_MAX, nats::NatsServer};

/// A tool and how it behaves.
pub struct Tool {
    name: &'static str,
    metadata: Vec<(&'static str, &'static str)>,
    behaviour: Behaviour,
}

enum Behaviour {
    Answer(&'static str),
    Fail(usize, &'static str),
    /// Answers when the test says so.
    Held(watch::Receiver<bool>, &'static str),
    Silent,
}

impl Tool {
    /// Answers every call with this text.
    pub fn answers(name: &'static str, text: &'static str) -> Self {
        Self { name, metadata: Vec::new(), behaviour: Behaviour::Answer(text) }
    }

    /// Answers every call with an error of the services API.
    pub fn fails(name: &'static str, code: usize, text: &'static str) -> Self {
        Self { behaviour: Behaviour::Fail(code, text), ..Self::answers(name, "") }
    }

    /// Takes calls and answers none.
    pub fn is_silent(name: &'static str) -> Self {
        Self { behaviour: Behaviour::Silent, ..Self::answers(name, "") }
    }

    /// Answers when the sender says `true`.
    pub fn held(name: &'static str, text: &'static str) -> (watch::Sender<bool>, Self) {
        let (release, released) = watch::channel(false);
        (release, Self { behaviour: Behaviour::Held(released, text), ..Self::answers(name, "") })
    }

    /// Adds endpoint metadata.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.metadata.push((name, value));
        self
    }
}

/// A call that a provider got.
#[derive(Clone, Debug)]
pub struct Call {
    pub tool: &'static str,
    /// The idempotency key.
    pub id: String,
    pub arguments: Value,
    /// The files that came with the message, as the provider is told of them; null = none.
    pub files: Value,
    /// What the agent's configuration tells the tool.
    pub settings: Option<String>,
}

/// The names of the tools in a request, without those that every conversation has for asking its visitor.
pub fn offered(request: &Value) -> Vec<String> {
    let tools = request["tools"].as_array().into_iter().flatten();
    let names = tools.map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| !["request_choices", "request_identity_intake"].contains(&name.as_str())).collect()
}

/// A running provider; its tools end with it.
pub struct Provider {
    service: Service,
    calls: watch::Sender<Vec<Call>>,
    /// Their subjects and tasks.
    endpoints: Vec<(String, AbortHandle)>,
}

impl Provider {
    /// Starts a service with these tools; it is known to the server when this returns.
    pub async fn start(nats: &NatsServer, tools: Vec<Tool>) -> Self {
        let client = nats.client().await;
        let service = client.service_builder().start("test-tools", "1.0.0").await.unwrap();
        let calls = watch::Sender::new(Vec::new());
        let mut endpoints = Vec::new();
        for tool in tools {
            let subject = format!("tool.test.{}", tool.name);
            let mut metadata = HashMap::from([("tool".to_owned(), "true".to_owned())]);
            let parameters = json!({"type": "object", "properties": {"id": {"type": "string"}}});
            metadata.insert("parameters".to_owned(), parameters.to_string());
            metadata.extend(tool.metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            let endpoint = service.endpoint_builder().name(tool.name).metadata(metadata).add(&subject).await.unwrap();
            endpoints.push((subject, tokio::spawn(serve(endpoint, tool, calls.clone())).abort_handle()));
        }
        // The server takes what a connection sends in order: this answer proves that it knows the endpoints.
        client.request(format!("$SRV.PING.{}", service.info().await.name), "".into()).await.unwrap();
        Self { service, calls, endpoints }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Waits until so many calls came.
    pub async fn wait_for_calls(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        let waited = timeout(WAIT_MAX, calls.wait_for(|calls| calls.len() >= count)).await;
        assert!(waited.is_ok(), "waited for {count} calls, there are {:?}", self.calls());
    }

    /// Takes the tools away; the server knows when this returns.
    pub async fn stop(self, nats: &NatsServer) {
        for (_, endpoint) in &self.endpoints {
            endpoint.abort();
        }
        self.service.stop().await.unwrap();
        let client = nats.client().await;
        for (subject, _) in self.endpoints {
            while !nobody_serves(&client, &subject).await {}
        }
    }
}

async fn nobody_serves(client: &Client, subject: &str) -> bool {
    let answer = client.request(subject.to_owned(), "".into()).await;
    answer.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
}

async fn serve(mut endpoint: Endpoint, tool: Tool, calls: watch::Sender<Vec<Call>>) {
    while let Some(request) = endpoint.next().await {
        let header = |name: &str| Some(request.message.headers.as_ref()?.get(name)?.to_string());
        let id = header("Turnstream-Call-Id").expect("a call has an id");
        let files = header("Turnstream-Files").map_or(Value::Null, |files| serde_json::from_str(&files).unwrap());
        let arguments = serde_json::from_slice(&request.message.payload).expect("arguments are JSON");
        let settings = header("Turnstream-Settings");
        calls.send_modify(|calls| calls.push(Call { tool: tool.name, id, arguments, files, settings }));
        match &tool.behaviour {
            Behaviour::Answer(text) => request.respond(Ok((*text).into())).await.unwrap(),
            Behaviour::Fail(code, text) => {
                let error = ServiceError { code: *code, status: (*text).to_owned() };
                request.respond(Err(error)).await.unwrap();
            }
            Behaviour::Held(released, text) => drop(tokio::spawn(respond_later(request, released.clone(), text))),
            Behaviour::Silent => {}
        }
    }
}

async fn respond_later(request: Request, mut released: watch::Receiver<bool>, text: &'static str) {
    if released.wait_for(|released| *released).await.is_ok() {
        request.respond(Ok(text.into())).await.unwrap();
    }
}
