//! A connection to an MCP server that is ready for calls.
//!
//! The current revision of the protocol is asked for first (`server/discover`); a server that does not know it is initialised as
//! earlier ones have it.

#![expect(deprecated, reason = "sampling and roots are deprecated, and servers still ask for them")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use reqwest::redirect::Policy;
use rmcp::{
    ClientHandler, ErrorData, Peer, RoleClient, ServiceError,
    model::{
        ClientCapabilities, ClientConfig, ClientRequest, CreateMessageRequestParams, CreateMessageResult,
        CustomRequest, CustomResult, ElicitRequestParams, ElicitResult, ElicitationCapability, ErrorCode,
        FormElicitationCapability, Implementation, ListRootsResult, PingRequest, ProtocolVersion, SubscriptionFilter,
        TASKS_EXTENSION_ID, Tool,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext, RunningService,
        RunningServiceCancellationToken,
    },
    transport::{
        StreamableHttpClientTransport, async_rw::AsyncRwTransport, common::client_side_sse::ExponentialBackoff,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::{
    sync::Notify,
    time::{error::Elapsed, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::claims::RefusedDeclaration,
    child::{self, ProcessGroup},
    elicit::{Dialogue, FormRequest},
    lenient, lines,
    tangle::SharedQuestions,
};
use crate::{
    config::{McpLink, McpServer},
    limits,
};

pub struct McpConnection {
    pub peer: Peer<RoleClient>,
    /// Notified when the server says that its tools have changed.
    pub changed: Arc<Notify>,
    stop: RunningServiceCancellationToken,
    ended: AbortOnDropHandle<()>,
    /// Follows changes of the list of tools where the server has to be asked to tell of them.
    _follows: AbortOnDropHandle<()>,
    child: Option<ProcessGroup>,
}

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum McpConnectionError {
    #[error("the process can't be started: {0}")]
    Start(#[from] std::io::Error),
    #[error("the HTTP client can't be built: {0}")]
    Client(#[from] reqwest::Error),
    #[error("{0}")]
    Initialize(Box<rmcp::service::ClientInitializeError>),
    #[error("the tools can't be listed: {0}")]
    List(#[from] ServiceError),
    #[error("the server does not answer in time")]
    Late(#[from] Elapsed),
}

/// The way in which a server's questions to the visitor are answered.
#[derive(Clone)]
pub enum QuestionPolicy {
    /// The connection is shared: a question could be anybody's.
    Shared(Arc<SharedQuestions>),
    /// The connection belongs to one call.
    Alone(Arc<Dialogue>),
}

/// Whether a server is asked for the current revision of the protocol first. One that ends or says nothing when it is gets the
/// handshake of the earlier ones at the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolPreference {
    CurrentFirst,
    Earlier,
}

/// This side of a connection: it listens for changes of the server's tools, answers pings and puts questions to the visitor.
///
/// A server that asks for a model's reply, for folders or for a person's input gets an error at once, regardless of the
/// negotiated capabilities: a declined form would claim that a person was asked.
struct McpHandler {
    changed: Arc<Notify>,
    questions: QuestionPolicy,
}

impl McpHandler {
    /// The result of an elicitation. One that a visitor is asked is never answered here: its call is given up.
    async fn elicit(&self, form: FormRequest) -> serde_json::Value {
        match &self.questions {
            QuestionPolicy::Shared(tangle) => {
                tangle.asked().await;
                serde_json::json!({ "action": "decline" })
            }
            QuestionPolicy::Alone(dialogue) => match dialogue.answer(&form) {
                Some(answer) => answer,
                None => std::future::pending().await,
            },
        }
    }
}

fn not_offered(words: &'static str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, words, None)
}

impl ClientHandler for McpHandler {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::new().with_form(FormElicitationCapability::new()));
        capabilities.extensions = Some(BTreeMap::from([(TASKS_EXTENSION_ID.to_string(), Default::default())]));
        ClientConfig::new(capabilities, Implementation::new("turnstream", env!("CARGO_PKG_VERSION")))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Err(not_offered("sampling is not offered: servers have no replies of the model"))
    }

    async fn list_roots(&self, _context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Err(not_offered("roots are not offered: there are no folders to share"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let answer = self.elicit(FormRequest::of(&request)).await;
        serde_json::from_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
    }

    /// An elicitation that the library can't read is one all the same.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleClient>,
    ) -> Result<CustomResult, ErrorData> {
        match request.method.as_str() {
            "elicitation/create" => {
                let form = FormRequest::odd(request.params.unwrap_or_default());
                Ok(CustomResult::new(self.elicit(form).await))
            }
            _ => Err(not_offered("there is no such method")),
        }
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

impl McpConnection {
    /// Connects and agrees on a revision of the protocol.
    pub async fn open(
        settings: &McpServer,
        greeting: ProtocolPreference,
        questions: QuestionPolicy,
    ) -> Result<Self, McpConnectionError> {
        let patience = Duration::from_millis(limits::MCP_OPEN_MS);
        let changed = Arc::new(Notify::new());
        let handler = McpHandler { changed: changed.clone(), questions };
        let lifecycle = match greeting {
            ProtocolPreference::CurrentFirst if !settings.handshake => {
                ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::LATEST], legacy_version: None }
            }
            ProtocolPreference::CurrentFirst | ProtocolPreference::Earlier => ClientLifecycleMode::Initialize,
        };
        let (service, child) = match &settings.link {
            McpLink::Child { command, args, env, cwd } => {
                let (group, stdout, stdin) = child::start(&settings.name, command, args, env, cwd.as_deref())?;
                let transport =
                    AsyncRwTransport::new_client(lines::bounded(stdout, limits::MCP_MESSAGE_MAX_BYTES), stdin);
                let transport = transport.with_max_line_length(limits::MCP_MESSAGE_MAX_BYTES + 1);
                (timeout(patience, handler.serve_with_lifecycle(transport, lifecycle)).await?, Some(group))
            }
            McpLink::Http { url, headers } => {
                let transport = http(url.as_str(), headers)?;
                (timeout(patience, handler.serve_with_lifecycle(transport, lifecycle)).await?, None)
            }
        };
        let service = service.map_err(|error| McpConnectionError::Initialize(Box::new(error)))?;
        Ok(Self::over(service, changed, child))
    }

    fn over(
        service: RunningService<RoleClient, McpHandler>,
        changed: Arc<Notify>,
        child: Option<ProcessGroup>,
    ) -> Self {
        let (peer, stop) = (service.peer().clone(), service.cancellation_token());
        let ended = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = service.waiting().await {
                tracing::error!(%error, "the task of an MCP connection failed");
            }
        }));
        let follows = AbortOnDropHandle::new(tokio::spawn(follow(peer.clone(), changed.clone())));
        Self { peer, changed, stop, ended, _follows: follows, child }
    }

    /// Waits until the connection has ended by itself.
    pub async fn closed(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Closes the connection; a child has ended when this returns.
    pub async fn close(self, has_ended: bool) {
        self.stop.cancel();
        if !has_ended && timeout(Duration::from_millis(limits::MCP_CLOSE_MS), self.ended).await.is_err() {
            tracing::debug!("an MCP connection does not close in time");
        }
        if let Some(child) = self.child {
            child.end().await;
        }
    }

    /// Returns all tools, page by page up to the limit, and the refusals of those that can't be read.
    pub async fn tools(&self, server: &str) -> Result<(Vec<Tool>, Vec<RefusedDeclaration>), McpConnectionError> {
        let (mut tools, mut refused, mut cursor) = (Vec::new(), Vec::new(), None);
        loop {
            let page = lenient::list(&self.peer, server, cursor);
            let page = timeout(Duration::from_millis(limits::MCP_LIST_MS), page).await??;
            cursor = page.next;
            // Without this, a server could send empty pages for ever.
            let more =
                !(page.tools.is_empty() && page.refused.is_empty()) && tools.len() + refused.len() < limits::TOOLS_MAX;
            tools.extend(page.tools);
            refused.extend(page.refused);
            if cursor.is_none() || !more {
                return Ok((tools, refused));
            }
        }
    }

    /// Returns whether the server can be reached. A busy server that does not answer in time counts as reachable.
    pub async fn is_reachable(&self) -> bool {
        let ping = self.peer.send_request(ClientRequest::PingRequest(PingRequest::default()));
        match timeout(Duration::from_millis(limits::MCP_PING_MS), ping).await {
            Ok(Err(ServiceError::TransportSend(_) | ServiceError::TransportClosed)) => false,
            Ok(_) | Err(_) => true,
        }
    }
}

/// Asks a server of the current revision to tell of changes of its tools; one of an earlier revision does so unasked.
async fn follow(peer: Peer<RoleClient>, changed: Arc<Notify>) {
    let tells_if_asked = peer.peer_info().is_some_and(|info| {
        let tells = info.capabilities.tools.as_ref().and_then(|tools| tools.list_changed) == Some(true);
        tells && !info.protocol_version.has_initialize()
    });
    while tells_if_asked && !peer.is_transport_closed() {
        if let Ok(mut told) = peer.listen(SubscriptionFilter::builder().tools_list_changed().build()).await {
            while let Ok(Some(_)) = told.next().await {
                changed.notify_one();
            }
        }
        sleep(Duration::from_millis(limits::MCP_RETRY_MAX_MS)).await;
    }
}

/// The transport over HTTP. Redirects are not followed: they would take the headers elsewhere.
fn http(
    url: &str,
    headers: &[(String, String)],
) -> Result<StreamableHttpClientTransport<reqwest::Client>, reqwest::Error> {
    // Connections are not reused: one whose last answer was not read to its end delays the next request.
    let client = reqwest::Client::builder()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(Duration::from_millis(limits::MCP_CONNECT_MS))
        .build()?;
    let headers = headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .custom_headers(headers.collect::<HashMap<_, _>>())
        .max_concurrent_requests(limits::MCP_HTTP_PARALLEL)
        .max_json_response_size(limits::MCP_MESSAGE_MAX_BYTES)
        .max_sse_event_size(limits::MCP_MESSAGE_MAX_BYTES);
    let mut retries = ExponentialBackoff::default();
    retries.max_times = Some(limits::MCP_STREAM_TRIES);
    retries.base_duration = Duration::from_millis(limits::MCP_RETRY_FIRST_MS);
    config.retry_config = Arc::new(retries);
    Ok(StreamableHttpClientTransport::with_client(client, config))
}
