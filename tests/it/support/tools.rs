//! Tool providers: NATS micro services that count and record their calls.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    Client,
    client::RequestErrorKind,
    service::{Request, Service, ServiceExt, endpoint::Endpoint, error::Error as ServiceError},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::AbortHandle, time::timeout};
use turnstream::{
    calls::is_signed,
    signing::{PublicKey, SigningKey},
};

use super::{WAIT_MAX, nats::NatsServer};

/// A tool and its behaviour.
pub struct Tool {
    name: &'static str,
    metadata: Vec<(&'static str, &'static str)>,
    behaviour: Behaviour,
}

enum Behaviour {
    Answer(&'static str),
    Fail(usize, &'static str),
    /// Answers when the test releases it.
    Held(watch::Receiver<bool>, &'static str),
    Silent,
    /// Reads the files that came with the call, and answers with their SHA-256.
    Reads,
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

    /// Reads the files that came with the call, and answers with their SHA-256.
    pub fn reads_files(name: &'static str) -> Self {
        Self { behaviour: Behaviour::Reads, ..Self::answers(name, "") }
    }

    /// Answers once `true` is sent.
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

/// A call that a provider received.
#[derive(Clone, Debug)]
pub struct Call {
    pub tool: &'static str,
    /// The idempotency key.
    pub id: String,
    pub arguments: Value,
    /// The description of the files that came with the message; null = none.
    pub files: Value,
    /// The tool's settings in the agent's configuration.
    pub settings: Option<String>,
    /// The unparsed payload.
    pub text: String,
    /// True if the worker's key signed the call.
    pub signed: bool,
}

/// Returns the names of the tools in a request, without the built-in ones that ask the visitor.
pub fn offered(request: &Value) -> Vec<String> {
    let tools = request["tools"].as_array().into_iter().flatten();
    let names = tools.map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| !["request_choices", "request_identity_intake"].contains(&name.as_str())).collect()
}

/// A running provider; its tools end with it.
pub struct Provider {
    service: Service,
    calls: watch::Sender<Vec<Call>>,
    /// The endpoints' subjects and tasks.
    endpoints: Vec<(String, AbortHandle)>,
}

impl Provider {
    /// Starts a service with these tools; the server knows it when this returns.
    pub async fn start(nats: &NatsServer, tools: Vec<Tool>) -> Self {
        Self::named(nats, "test-tools", tools).await
    }

    /// Starts a service of this name.
    pub async fn named(nats: &NatsServer, service: &str, tools: Vec<Tool>) -> Self {
        let client = client_as(nats, "tool_provider").await;
        let service = client.service_builder().start(service, "1.0.0").await.unwrap();
        let calls = watch::Sender::new(Vec::new());
        let mut endpoints = Vec::new();
        for tool in tools {
            let subject = format!("tool.test.{}", tool.name);
            let mut metadata = HashMap::from([("tool".to_owned(), "true".to_owned())]);
            let parameters = json!({"type": "object", "properties": {"id": {"type": "string"}}});
            metadata.insert("parameters".to_owned(), parameters.to_string());
            metadata.extend(tool.metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            let endpoint = service.endpoint_builder().name(tool.name).metadata(metadata).add(&subject).await.unwrap();
            endpoints
                .push((subject, tokio::spawn(serve(client.clone(), endpoint, tool, calls.clone())).abort_handle()));
        }
        // The asking client is of the same account, where users are in separate accounts.
        is_known(&client, &client_as(nats, "tool_caller").await).await;
        Self { service, calls, endpoints }
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    /// Waits for `count` calls.
    pub async fn wait_for_calls(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        let waited = timeout(WAIT_MAX, calls.wait_for(|calls| calls.len() >= count)).await;
        assert!(waited.is_ok(), "waited for {count} calls, there are {:?}", self.calls());
    }

    /// Stops the endpoints; the server knows when this returns.
    pub async fn stop(self, nats: &NatsServer) {
        for (_, endpoint) in &self.endpoints {
            endpoint.abort();
        }
        self.service.stop().await.unwrap();
        let client = nats.client().await;
        for (subject, _) in self.endpoints {
            while !has_no_responders(&client, &subject).await {}
        }
    }
}

async fn has_no_responders(client: &Client, subject: &str) -> bool {
    let answer = client.request(subject.to_owned(), "".into()).await;
    answer.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders)
}

/// Returns a client with a role of `ops/nats`.
pub async fn client_as(nats: &NatsServer, role: &str) -> Client {
    let options = async_nats::ConnectOptions::with_user_and_password(role.to_owned(), role.to_owned());
    options.custom_inbox_prefix(format!("_INBOX.{role}")).connect(nats.url()).await.unwrap()
}

/// Waits until the server has all of a client's subscriptions, since it handles a connection's messages in order.
pub async fn is_known(client: &Client, asking: &Client) {
    let last = client.new_inbox();
    let _subscribed = client.subscribe(last.clone()).await.unwrap();
    let ask = || asking.send_request(last.clone(), async_nats::Request::new().timeout(Some(Duration::from_millis(50))));
    while ask().await.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders) {}
}

/// Returns the key that verifies the product's calls.
pub fn public_key() -> PublicKey {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/ed25519.pem");
    SigningKey::read(std::path::Path::new(file)).unwrap().public()
}

async fn serve(client: Client, mut endpoint: Endpoint, tool: Tool, calls: watch::Sender<Vec<Call>>) {
    let key = public_key();
    while let Some(request) = endpoint.next().await {
        let header = |name: &str| Some(request.message.headers.as_ref()?.get(name)?.to_string());
        let id = header("Turnstream-Call-Id").unwrap_or_default();
        let files = header("Turnstream-Files").map_or(Value::Null, |files| serde_json::from_str(&files).unwrap());
        let arguments = serde_json::from_slice(&request.message.payload).unwrap_or_default();
        let settings = header("Turnstream-Settings");
        let text = String::from_utf8_lossy(&request.message.payload).into_owned();
        let signed = is_signed(&request.message, &key, chrono::Utc::now());
        calls.send_modify(|calls| {
            calls.push(Call { tool: tool.name, id, arguments, files: files.clone(), settings, text, signed })
        });
        match &tool.behaviour {
            Behaviour::Answer(text) => request.respond(Ok((*text).into())).await.unwrap(),
            Behaviour::Fail(code, text) => {
                let error = ServiceError { code: *code, status: (*text).to_owned() };
                request.respond(Err(error)).await.unwrap();
            }
            Behaviour::Held(released, text) => drop(tokio::spawn(respond_later(request, released.clone(), text))),
            Behaviour::Silent => {}
            Behaviour::Reads => {
                let mut found = Vec::new();
                for file in files.as_array().unwrap() {
                    let content = read_file(&client, file["object"]["read"].as_str().unwrap()).await.unwrap();
                    found.push(sha256(&content));
                }
                request.respond(Ok(found.join(" ").into())).await.unwrap();
            }
        }
    }
}

/// Returns the SHA-256 of a content, in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file that came with a call, piece by piece.
pub async fn read_file(client: &Client, subject: &str) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    loop {
        let asked = client.request(subject.to_owned(), json!({"offset": content.len()}).to_string().into());
        let piece = asked.await.map_err(|error| error.to_string())?;
        let headers = piece.headers.unwrap_or_default();
        if let Some(error) = headers.get("Nats-Service-Error") {
            return Err(error.to_string());
        }
        content.extend_from_slice(&piece.payload);
        if content.len() >= headers.get("Turnstream-Size").unwrap().as_str().parse().unwrap() {
            return Ok(content);
        }
    }
}

async fn respond_later(request: Request, mut released: watch::Receiver<bool>, text: &'static str) {
    if released.wait_for(|released| *released).await.is_ok() {
        request.respond(Ok(text.into())).await.unwrap();
    }
}
