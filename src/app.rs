//! The roles of a process: the only place that wires rooms together, starts them and stops them.

mod callers;
mod health;
mod index;
pub mod operations;
mod stop;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::{TimeDelta, Utc};
use health::ProcessHealth;
pub use stop::StopSignal;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::Filter;

use crate::{
    admin::{self, AdminApi},
    agents::{self, CurrentAgents, config::AgentWidgetPolicy},
    auth::{
        REFERENCE_ORG, TokenVerifier,
        widget::{self, WidgetGate},
    },
    config::{self, AuthMode, Config, GatewayConfig, Retrieval},
    edge::{self, Edge, delivery::push::PushRegistry, directory::skills::SkillFolder, transport::server},
    extract::SandboxReader,
    fetch::{FetchPolicy, Fetcher},
    history::{event_reader::EventReader, redact::Redaction},
    host::AgentHost,
    ingest::{self, EmbedFn, EmbedFuture, IngestArgs, Ingester},
    knowledge::{self, KnowledgeStore, Retriever, retrieve::RemoteRetriever, runs::RunLog},
    limits,
    log::{jetstream_log::NatsLog, key_store::KeyStore},
    model::{Gateway, Timeouts},
    nats::{
        backoff::Backoff,
        connection::{ConnectError, NatsConnection},
        streams,
    },
    otp::allowance::OtpAllowance,
    secrets::Secrets,
    tools::{self, Builtins, McpTools, fetch_url::FetchUrl, github_search::GitHubSearch, web_search::WebSearch},
    worker::{self, Worker, gateways::OrgGateways},
};

/// Time that a starting process waits for NATS.
const CONNECT_MS: u64 = 30_000;
/// Longest outage of all workers before their consumer is recreated: turns overdue by this much are still ended.
const OUTAGE_MAX: TimeDelta = TimeDelta::days(1);

/// Connects to NATS, and waits for a server that is still starting.
pub async fn connect(config: &Config, role: &str) -> anyhow::Result<NatsConnection> {
    let mut backoff = Backoff::new(CONNECT_MS);
    loop {
        match NatsConnection::connect(&config.nats, role).await {
            Ok(nats) => return Ok(nats),
            Err(ConnectError::Connect(error)) if backoff.pause().await => {
                tracing::warn!(%error, "NATS does not answer yet");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the process's log, and checks its keys. Encrypted conversations can't be served without the master key.
pub async fn log(config: &Config, nats: &NatsConnection) -> anyhow::Result<NatsLog> {
    let log = match &config.privacy.master_keys {
        Some(masters) => NatsLog::encrypting(nats.client.clone(), KeyStore::new(masters.clone())),
        None => NatsLog::new(nats.client.clone()),
    };
    let log = log.over(nats);
    log.check_keys().await.context("stored conversations can't be decrypted")?;
    Ok(log)
}

pub struct RunningEdge {
    pub address: SocketAddr,
    edge: Arc<Edge>,
    readiness: Arc<ProcessHealth>,
    /// Cancelled first: no new connections are accepted.
    accepting: CancellationToken,
    /// Cancelled when the connections are closed.
    listening: CancellationToken,
    tasks: TaskTracker,
    /// Time that running turns get after `accepting` is cancelled.
    drain: Duration,
}

/// Starts an edge; it accepts connections when this returns.
pub async fn start_edge(config: &Config, nats: &NatsConnection) -> anyhow::Result<RunningEdge> {
    let settings = edge::EdgeSettings {
        regions: config.regions.clone(),
        pool: config.pool.clone(),
        agent_name: config.agent_name.clone(),
        quotas: config.quotas.clone(),
        turn_limit: Duration::from_secs(config.turn_limit_secs.into()),
        skills: SkillFolder(config.skills.clone()),
        passwords: callers::passwords(config, nats).await?,
        access: config.access.clone(),
        // Requests through a proxy come from other machines, although the edge listens on a loopback address.
        is_loopback: edge::policy::access::is_loopback_address(config.bind) && config.quotas.proxies == 0,
        model: config.model.clone(),
        fetch: config.web.allow.clone(),
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let auth = Arc::new(TokenVerifier::new(&config.auth)?);
    if config.auth.mode == AuthMode::Trusted {
        tracing::warn!("tokens are not verified (mode `trusted`): only a proxy that verifies them may reach this port");
    }
    streams::check(&nats.client, &config.regions.home).await?;
    let log = log(config, nats).await?;
    let agents = CurrentAgents::new(agents::AgentStore::new(log.clone()));
    agents.catch_up().await.context("agent configurations can't be read")?;
    let widgets = widgets(&config.widgets, &agents)?;
    let edge = Edge::new(log, auth, widgets, agents, settings, CancellationToken::new());
    let edge = Arc::new(edge);
    let health = ProcessHealth::start(nats, &config.regions.home, &config.pool, None).await?;
    if let Err(error) = edge.workers.read(&edge.log).await {
        tracing::warn!(%error, "the workers' advertisements can't be read yet");
    }
    let address = SocketAddr::new(config.bind, config.port);
    let listener = server::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    let address = listener.local_addr()?;
    let (accepting, listening, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    tasks.spawn(listening.clone().run_until_cancelled_owned(edge.quota.clone().keep()));
    tasks.spawn(listening.clone().run_until_cancelled_owned(edge.workers.clone().follow(edge.log.clone())));
    tasks.spawn(listening.clone().run_until_cancelled_owned(edge.agents.clone().follow()));
    tasks.spawn(listening.clone().run_until_cancelled_owned(health.clone().watch_streams()));
    tasks.spawn(listening.clone().run_until_cancelled_owned(health.clone().watch_storage(edge.log.clone())));
    tasks.spawn(listening.clone().run_until_cancelled_owned(edge.clone().forget_erased()));
    tasks.spawn(listening.clone().run_until_cancelled_owned(edge.clone().end_abandoned()));
    let pushed = PushRegistry::subscribe(&nats.client, &config.regions.home).await.map_err(anyhow::Error::msg)?;
    let presence = edge.presence();
    // Hosts wait for the answers of the edges that they know of, so the edge is advertised before it has clients.
    presence.renew(0).await;
    tasks.spawn(presence.keep(listening.clone()));
    let serve = edge.pushes.clone().serve(nats.client.clone(), pushed, edge.id);
    tasks.spawn(listening.clone().run_until_cancelled_owned(serve));
    let probe = (nats, health.clone().probe());
    // Alive until the last connection is closed: operators watch a drain.
    operations::serve(config, "edge", probe, &listening, &tasks).await?;
    let routes = server::routes(edge.clone(), health.clone().probe(), admin::routes(administration(config, &edge)));
    tasks.spawn(server::listen(listener, routes, accepting.clone()));
    tasks.close();
    let drain = Duration::from_secs(config.drain_secs.into());
    Ok(RunningEdge { address, edge, readiness: health, accepting, listening, tasks, drain })
}

impl RunningEdge {
    /// Turns `/ready` red, accepts no more connections, gives running turns time to finish, closes the connections with
    /// 1012.
    pub async fn stop(self) {
        self.readiness.draining.store(true, Ordering::Relaxed);
        self.accepting.cancel();
        server::drain(&self.edge, self.drain).await;
        self.listening.cancel();
        end(&self.tasks).await;
    }
}

/// Returns the policies for pages that open sessions.
fn widgets(config: &config::WidgetConfig, agents: &CurrentAgents) -> anyhow::Result<WidgetGate> {
    let (agents, any) = (agents.clone(), agents.clone());
    let lookup = Arc::new(move |agent: &str| {
        let (org, policy) = agents.widget(agent)?;
        let organization_id = policy.organization_id.or(Some(org));
        let AgentWidgetPolicy { allowed_origins, public_key, .. } = policy;
        Some(widget::WidgetPolicy { allowed_origins, public_key, organization_id })
    });
    let known = widget::PolicySource::Known { lookup, any: Arc::new(move || any.have_widgets()) };
    let file = config.file.as_deref().map(widget::PolicySource::file).transpose()?;
    let service = config
        .service
        .as_ref()
        .map(widget::PolicyService::new)
        .transpose()?
        .map(|service| widget::PolicySource::Service(Box::new(service)));
    if config.strict && file.is_none() && service.is_none() {
        tracing::warn!("WIDGET_AUTH_STRICT is on and no policies are configured: no session can be opened");
    }
    Ok(WidgetGate::new([known].into_iter().chain(file).chain(service).collect(), config.strict))
}

/// Returns the administrators' API of an edge: it shares the edge's caches.
fn administration(config: &Config, edge: &Edge) -> Arc<AdminApi> {
    Arc::new(AdminApi {
        client: edge.client.clone(),
        log: edge.log.clone(),
        event_reader: EventReader::new(edge.log.clone(), Redaction::new(config.privacy.redact.clone())),
        agents: agents::AgentStore::new(edge.log.clone()),
        auth: edge.auth.clone(),
        conversations: edge.conversations.clone(),
        lists: edge.lists.clone(),
        documents: KnowledgeStore::new(edge.client.clone()),
        runs: RunLog::new(edge.client.clone()),
        regions: config.regions.clone(),
    })
}

pub struct RunningWorker {
    shutdown: CancellationToken,
    readiness: Arc<ProcessHealth>,
    tasks: TaskTracker,
}

pub async fn start_worker(config: &Config, nats: &NatsConnection) -> anyhow::Result<RunningWorker> {
    let secrets = Secrets::new(config.secrets.clone());
    let gateway = gateway(config)?;
    if gateway.is_none() && secrets.orgs().is_empty() && config.hosted_agent.is_none() {
        tracing::warn!(
            "no gateway key: set SMOOAI_GATEWAY_URL and SMOOAI_GATEWAY_KEY; until then no message is answered"
        );
    }
    let settings = worker::WorkerSettings {
        region: config.regions.home.clone(),
        pool: config.pool.clone(),
        model: config.model.clone(),
        agent: config.hosted_agent.clone().map(AgentHost::new).transpose().context("SMOOTH_AGENT_HOSTED_AGENT")?,
        title_model: config.title_model.clone(),
        max_iterations: config.max_iterations,
        max_tokens: config.max_tokens,
        human_wait_secs: config.human_wait_secs,
        turn_limit_secs: config.turn_limit_secs,
        turn_cap_secs: config.turn_cap_secs,
        confirm_tools: config.confirm_tools.clone(),
        auth_tools: config.auth_tools.clone(),
        preamble_model: config.preamble_model.clone(),
        judge_model: config.judge_model.clone(),
        builtins: builtins(&config.web, SandboxReader::of_this_program()?),
        counts_tokens: config.quotas.org_tokens.is_set(),
        counts_turns: config.quotas.org_turns.is_set(),
        mcp: McpTools::new(&config.mcp.servers),
        tools: callers::tools(config, nats).await?,
        passwords: callers::passwords(config, nats).await?,
        codes: OtpAllowance { address: config.quotas.address_codes, org: config.quotas.org_codes.clone() },
    };
    streams::check(&nats.client, &config.regions.home).await?;
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let knowledge = knowledge(config, nats, &gateway, &shutdown, &tasks).await?;
    let has_own_key = gateway.is_some();
    let gateways = OrgGateways { gateway: gateway.or(gateway_without_key(config)?), has_own_key, secrets };
    let worker = Arc::new(Worker::new(log(config, nats).await?, knowledge, gateways, settings));
    let health = ProcessHealth::start(nats, &config.regions.home, &config.pool, Some(worker.clone())).await?;
    if config.seed_kb {
        // The demo tool starts before the worker's first discovery of tools.
        let tool = tools::demo::start(nats.client.clone(), callers::public_key(config)?)
            .await
            .map_err(anyhow::Error::from_boxed)?;
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(tool.serve()));
    }
    tasks.spawn(worker.clone().run(shutdown.clone()));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(health.clone().watch_streams()));
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(health.clone().watch_storage(worker.log.clone())));
    operations::serve(config, "worker", (nats, health.clone().probe()), &shutdown, &tasks).await?;
    if let Some(port) = config.health_port {
        let listener = TcpListener::bind((config.bind, port)).await.context("SMOOTH_AGENT_HEALTH_PORT")?;
        let routes = operations::routes(nats.clone(), health.clone().probe()).recover(server::refused);
        tasks.spawn(server::listen(listener, routes, shutdown.clone()));
    }
    tasks.close();
    Ok(RunningWorker { shutdown, readiness: health, tasks })
}

impl RunningWorker {
    /// Takes no more work, gives running turns time to finish, releases the rest.
    pub async fn stop(self) {
        self.readiness.draining.store(true, Ordering::Relaxed);
        self.shutdown.cancel();
        end(&self.tasks).await;
    }
}

/// Waits for a process's tasks, with a timeout: NATS may be away and accept no messages.
async fn end(tasks: &TaskTracker) {
    let longest = Duration::from_millis(limits::WORKER_DRAIN_MS + limits::WORKER_END_MS + limits::NATS_CALL_MS);
    if tokio::time::timeout(longest, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "some tasks did not end in time");
    }
}

/// Returns the retrieval of passages for a worker. A local index has caught up with the stream when this returns.
async fn knowledge(
    config: &Config,
    nats: &NatsConnection,
    gateway: &Option<Gateway>,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<Arc<dyn Retriever>> {
    if config.seed_kb {
        let store = KnowledgeStore::new(nats.client.clone());
        knowledge::demo::seed(&store, REFERENCE_ORG).await.context("the demo documents were not written")?;
    }
    if config.retrieval == Retrieval::Nats {
        return Ok(Arc::new(RemoteRetriever::new(callers::retrieval(config, nats).await?)));
    }
    index::follow(config, nats, gateway, shutdown, tasks).await
}

/// Returns the gateway with the process's own key, if configured.
fn gateway(config: &Config) -> anyhow::Result<Option<Gateway>> {
    let configured = config.gateway.as_ref().filter(|gateway| gateway.key.is_some());
    configured.map(|gateway| reach(config, gateway)).transpose()
}

/// Returns the gateway for organisations with keys of their own.
fn gateway_without_key(config: &Config) -> anyhow::Result<Option<Gateway>> {
    let keyless = config.gateway.as_ref().map(|gateway| GatewayConfig { key: None, ..gateway.clone() });
    keyless.map(|gateway| reach(config, &gateway)).transpose()
}

fn reach(config: &Config, gateway: &GatewayConfig) -> anyhow::Result<Gateway> {
    let silence = Duration::from_secs(config.model_silence_secs.into());
    let timeouts = Timeouts { head: silence, idle: silence, ..Timeouts::default() };
    let gateway = Gateway::with_timeouts(&gateway.url, gateway.key.clone(), timeouts);
    gateway.context("SMOOAI_GATEWAY_URL or SMOOAI_GATEWAY_KEY")
}

/// Returns the built-in tools that the configuration enables.
///
/// An address that the operator names is reachable only for the tool that needs it.
fn builtins(web: &config::WebConfig, reader: SandboxReader) -> Builtins {
    let search = |url: &url::Url| Fetcher::new(FetchPolicy::default().and(url));
    Builtins {
        fetch_url: web.fetch.then(|| FetchUrl { fetcher: Fetcher::new(web.allow.clone()), reader }),
        web_search: web.search_url.as_ref().map(|url| WebSearch {
            fetcher: search(url),
            url: url.clone(),
            key: web.search_key.clone(),
        }),
        github_search: web.github_search.then(|| GitHubSearch {
            fetcher: search(&web.github_url),
            url: web.github_url.clone(),
            token: web.github_token.clone(),
        }),
    }
}

/// Builds the ingester. `token_env` names the variable that holds a token for GitHub.
fn start_ingest(config: &Config, nats: &NatsConnection, token_env: &str) -> anyhow::Result<Ingester> {
    let embed: Option<Arc<dyn EmbedFn>> = match (&config.embedding_model, gateway(config)?) {
        (Some(model), Some(gateway)) => Some(Arc::new(Embedding { gateway, model: model.clone() })),
        (Some(_), None) => {
            bail!("SMOOTH_AGENT_EMBEDDING_MODEL needs a gateway: set SMOOAI_GATEWAY_URL and SMOOAI_GATEWAY_KEY")
        }
        (None, _) => None,
    };
    let web = &config.web;
    let token = std::env::var(token_env).ok().map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
    Ok(Ingester {
        store: KnowledgeStore::new(nats.client.clone()),
        runs: RunLog::new(nats.client.clone()),
        reader: SandboxReader::of_this_program()?,
        web: ingest::WebAccess {
            fetcher: Fetcher::new(web.allow.clone().and(&web.github_url)),
            github_url: web.github_url.to_string(),
            github_token: token.or_else(|| web.github_token.clone()),
        },
        embed,
    })
}

/// The gateway as the embedding model of the ingester.
struct Embedding {
    gateway: Gateway,
    model: String,
}

impl EmbedFn for Embedding {
    fn model(&self) -> &str {
        &self.model
    }

    fn embed(&self, texts: Vec<String>) -> EmbedFuture<'_> {
        Box::pin(async move { self.gateway.embed(&self.model, &texts).await.map_err(|error| error.to_string()) })
    }
}

/// Ingests at administrators' requests, until the process is told to stop.
pub async fn serve_ingest(config: &Config, args: IngestArgs) -> anyhow::Result<()> {
    let nats = connect(config, "ingester").await?;
    streams::check_kept(&nats.client, &config.regions.home).await?;
    let ingest = start_ingest(config, &nats, &args.token_env)?;
    operations::serve_command(config, "ingester", &nats).await?;
    let stop = StopSignal::new()?;
    println!("serving connectors");
    let places = ingest::serve::SourceFolders { files: args.files, secrets: args.secrets };
    tokio::select! {
        () = ingest::serve::serve(nats.clone(), ingest, places) => {}
        () = stop.wait() => {}
    }
    Ok(())
}

/// Ingests once, or repeatedly while watching. Returns false if some documents were not ingested.
pub async fn ingest(config: &Config, args: IngestArgs) -> anyhow::Result<bool> {
    let plan = args.plan().map_err(anyhow::Error::msg)?;
    let nats = connect(config, "ingest").await?;
    streams::check_kept(&nats.client, &config.regions.home).await?;
    let ingest = start_ingest(config, &nats, &args.token_env)?;
    let tell = |report: &ingest::IngestReport| match args.json {
        true => println!("{}", serde_json::json!(report)),
        false => println!("{report}"),
    };
    if args.watch {
        let stop = StopSignal::new()?;
        tokio::select! {
            ended = ingest::watch(&ingest, &args, &plan, tell) => ended?,
            () = stop.wait() => {}
        }
        return Ok(true);
    }
    let report = ingest.run(&args, &plan).await?;
    tell(&report);
    Ok(report.counts.failed == 0)
}

/// Creates or updates a region's streams. Returns one line for each definition.
pub async fn apply_streams(
    config: &Config,
    nats: &NatsConnection,
    replicas: Option<u32>,
) -> anyhow::Result<Vec<String>> {
    let turns_since = Utc::now() - TimeDelta::seconds(config.turn_limit_secs.into()) - OUTAGE_MAX;
    let mut lines = Vec::new();
    for definition in streams::definitions(&config.regions.home, replicas) {
        let differences = definition.apply(&nats.client, turns_since).await?;
        let done = match differences.first() {
            None => "unchanged",
            Some(streams::StreamDrift::Missing) => "created",
            Some(_) => "updated",
        };
        lines.push(format!("{} {done}", definition.title()));
    }
    Ok(lines)
}

/// Prints the differences between a region's streams and their definitions; fails if there are any.
pub async fn diff_streams(nats: &NatsConnection, region: &str, replicas: Option<u32>) -> anyhow::Result<()> {
    let mut differ = false;
    for definition in streams::definitions(region, replicas) {
        for difference in definition.differences(&nats.client).await? {
            differ = true;
            match difference {
                streams::StreamDrift::Missing => println!("{}: missing", definition.title()),
                streams::StreamDrift::Field { name, defined, actual } => {
                    println!("{}: {name} is {actual}, defined as {defined}", definition.title());
                }
            }
        }
    }
    if differ {
        bail!("the streams differ from their definitions");
    }
    println!("no differences");
    Ok(())
}
