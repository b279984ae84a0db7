//! Configuration: read once from the environment (flags have been folded into it by `cli`), validated, passed by value.
//!
//! The `SMOOTH_AGENT_*` names are shared by every server of this protocol; the `NATS_*` names are the NATS ecosystem's.

mod access;
mod auth;
mod mcp;
mod nats;
mod operations;
mod privacy;
mod quota;
mod urls;
mod values;
mod web;
mod widget;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use values::{at_least_one, name_of, one_of, optional, parsed};

pub use crate::host::AgentAddress;
pub use access::AccessConfig;
pub use auth::{AuthConfig, AuthMode};
pub use mcp::{McpConfig, McpLink, McpServer, ToolSelection};
pub use nats::{NatsConfig, NatsLogin};
pub use operations::{LogFormat, OperationsAddress, OperationsConfig};
pub use privacy::PrivacyConfig;
pub use quota::{PerOrg, Quotas};
pub use urls::{each_without_secrets, without_secrets};
pub use web::WebConfig;
pub use widget::{WidgetConfig, WidgetService};

/// Environment variables that this server reads.
///
/// Any other name with one of [`PREFIXES`] is reported at start as a likely typing error.
const KNOWN: &[&str] = &[
    "SMOOTH_AGENT_BIND",
    "SMOOTH_AGENT_PORT",
    "SMOOTH_AGENT_HEALTH_PORT",
    "SMOOTH_AGENT_OPERATIONS",
    "SMOOTH_AGENT_METRICS_ORGS",
    "SMOOTH_AGENT_LOG",
    "SMOOTH_AGENT_MODEL",
    "SMOOTH_AGENT_TITLE_MODEL",
    "SMOOTH_AGENT_HOSTED_AGENT",
    "SMOOTH_AGENT_MAX_ITERATIONS",
    "SMOOTH_AGENT_MAX_TOKENS",
    "SMOOTH_AGENT_MODEL_SILENCE_SECS",
    "SMOOTH_AGENT_HUMAN_WAIT_SECS",
    "SMOOTH_AGENT_TURN_LIMIT_SECS",
    "SMOOTH_AGENT_TURN_CAP_SECS",
    "SMOOTH_AGENT_DRAIN_SECS",
    "SMOOTH_AGENT_SEED_KB",
    "SMOOTH_AGENT_EMBEDDING_MODEL",
    "SMOOTH_AGENT_RERANK",
    "SMOOTH_AGENT_RETRIEVAL",
    "SMOOTH_AGENT_PREAMBLE_MODEL",
    "SMOOTH_AGENT_JUDGE_MODEL",
    "SMOOTH_AGENT_CONFIRM_TOOLS",
    "SMOOTH_AGENT_AUTH_TOOLS",
    "SMOOTH_AGENT_SECRETS_DIR",
    "SMOOTH_AGENT_MASTER_KEY",
    "SMOOTH_AGENT_MASTER_KEY_FILE",
    "SMOOTH_AGENT_RETAIN_DAYS",
    "SMOOTH_AGENT_RETAIN_TOOLS_DAYS",
    "SMOOTH_AGENT_REDACT_ARGUMENTS",
    "SMOOTH_AGENT_AUDIT_KEY_FILE",
    "SMOOTH_AGENT_CALL_KEY_FILE",
    "SMOOTH_SKILLS_DIR",
    "SMOOTH_AGENT_REGION",
    "SMOOTH_AGENT_REGIONS",
    "SMOOTH_AGENT_POOL",
    "SMOOTH_AGENT_AGENT_NAME",
    "SMOOTH_AGENT_FETCH",
    "SMOOTH_AGENT_FETCH_ALLOW",
    "SMOOTH_AGENT_WEB_SEARCH_URL",
    "SMOOTH_AGENT_WEB_SEARCH_KEY",
    "SMOOTH_AGENT_GITHUB_SEARCH",
    "SMOOTH_AGENT_GITHUB_URL",
    "SMOOTH_AGENT_GITHUB_TOKEN",
    "SMOOTH_AGENT_LIMIT_CONNECTION_MESSAGES",
    "SMOOTH_AGENT_LIMIT_CONNECTION_WRITES",
    "SMOOTH_AGENT_LIMIT_ADDRESS_WRITES",
    "SMOOTH_AGENT_LIMIT_ADDRESS_CODES",
    "SMOOTH_AGENT_LIMIT_ORG_CODES",
    "SMOOTH_AGENT_LIMIT_SESSION_MESSAGES",
    "SMOOTH_AGENT_LIMIT_ORG_MESSAGES",
    "SMOOTH_AGENT_LIMIT_ORG_TURNS",
    "SMOOTH_AGENT_LIMIT_ORG_TOKENS",
    "SMOOTH_AGENT_LIMIT_ORG_CONNECTIONS",
    "SMOOTH_AGENT_LIMIT_ADDRESS_CONNECTIONS",
    "SMOOTH_AGENT_LIMIT_ADDRESS_SESSIONS",
    "SMOOTH_AGENT_PROXIES",
    "SMOOTH_AGENT_ALLOWED_ORIGINS",
    "SMOOTH_AGENT_ALLOWED_HOSTS",
    "SMOOTH_AGENT_EVERYBODY_SEES_ALL",
    "SMOOTH_AGENT_MODELS",
    "SMOOTH_AGENT_PING_SECS",
    "SMOOTH_AGENT_SESSION_WAIT_SECS",
    "SMOOTH_AGENT_MCP_CONFIG",
    "SMOOTH_AGENT_AUTH_MODE",
    "SMOOTH_AGENT_AUTH_STRICT",
    "SMOOAI_GATEWAY_URL",
    "SMOOAI_GATEWAY_KEY",
    "AUTH_MODE",
    "AUTH_DEV_ORG_ID",
    "AUTH_JWT_HS256_SECRET",
    "AUTH_JWT_RS256_PUBLIC_KEY",
    "AUTH_JWT_JWKS_URL",
    "AUTH_JWT_ISSUER",
    "AUTH_JWT_AUDIENCE",
    "WIDGET_AUTH_FILE",
    "WIDGET_AUTH_URL",
    "WIDGET_AUTH_BEARER",
    "WIDGET_AUTH_TTL_SECS",
    "WIDGET_AUTH_STRICT",
];
const PREFIXES: &[&str] = &["SMOOTH_AGENT_", "SMOOAI_GATEWAY_", "AUTH_JWT_", "WIDGET_AUTH_"];

/// The settings of all roles. Secrets print as `set`.
#[derive(Clone)]
pub struct Config {
    pub bind: IpAddr,
    pub port: u16,
    /// Port of a worker's `/health` and `/ready`; `None` = none.
    pub health_port: Option<u16>,
    pub operations: OperationsConfig,
    pub nats: NatsConfig,
    pub regions: Regions,
    pub pool: String,
    pub agent_name: String,
    pub gateway: Option<GatewayConfig>,
    pub model: String,
    /// The program that answers turns in the model's place.
    pub hosted_agent: Option<AgentAddress>,
    /// The model that titles conversations after their first turn.
    pub title_model: Option<String>,
    pub max_iterations: u32,
    pub max_tokens: u32,
    /// Longest silence of the gateway, before its answer and within it.
    pub model_silence_secs: u32,
    /// Time for a person to decide; an approval then counts as declined.
    pub human_wait_secs: u32,
    /// Longest time of a turn without progress, queued time included, waits for people excluded.
    pub turn_limit_secs: u32,
    /// Longest time of a turn in all, waits for people included.
    pub turn_cap_secs: u32,
    /// Time that a stopping edge leaves to the turns of its connections.
    pub drain_secs: u32,
    pub seed_kb: bool,
    /// The model that embeds passages and queries; without one, retrieval is by words only.
    pub embedding_model: Option<String>,
    pub rerank: Option<RerankBy>,
    pub retrieval: Retrieval,
    /// Lower-cased parts of tool names that wait for approval.
    pub confirm_tools: Vec<String>,
    /// Lower-cased parts of tool names that ask for proof of identity where an agent's configuration demands it.
    pub auth_tools: Vec<String>,
    /// The model that writes a preamble while the answer is awaited; `None` = no preamble.
    pub preamble_model: Option<String>,
    /// The model that judges workflows; `None` = the turn's model.
    pub judge_model: Option<String>,
    /// The folder of the organisations' secrets.
    pub secrets: Option<PathBuf>,
    /// The folder of skills that messages may name.
    pub skills: Option<PathBuf>,
    pub privacy: PrivacyConfig,
    /// The file of the key that signs checkpoints.
    pub audit_key: Option<PathBuf>,
    /// The file of the key that signs calls of services.
    pub call_key: Option<PathBuf>,
    pub access: AccessConfig,
    pub auth: AuthConfig,
    pub widgets: WidgetConfig,
    pub quotas: Quotas,
    pub web: WebConfig,
    pub mcp: McpConfig,
}

/// An OpenAI-compatible endpoint and its key.
#[derive(Clone)]
pub struct GatewayConfig {
    pub url: String,
    /// Without a key a turn is refused with `LLM_UNAVAILABLE`; the rest of the protocol works.
    pub key: Option<String>,
}

/// The method that reranks the best passages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RerankBy {
    Gateway,
    Lexical,
}

impl RerankBy {
    const NAMES: [(&str, Self); 2] = [("gateway", Self::Gateway), ("lexical", Self::Lexical)];
}

/// The provider of passages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retrieval {
    /// The index of each worker.
    #[default]
    Local,
    /// A NATS micro service: the organisation's own search.
    Nats,
}

impl Retrieval {
    const NAMES: [(&str, Self); 2] = [("local", Self::Local), ("nats", Self::Nats)];
}

/// The regions of a deployment: the home region, and the name behind each number that an id may carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    pub home: String,
    pub home_number: u8,
    table: BTreeMap<u8, String>,
}

impl Regions {
    /// Returns the names of all regions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.table.values().map(String::as_str)
    }

    /// Returns the name of the region with this number, if the deployment has one.
    pub fn name(&self, number: u8) -> Option<&str> {
        self.table.get(&number).map(String::as_str)
    }
}

/// An invalid setting, with a hint to the right value.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name}: {problem}")]
pub struct ConfigError {
    pub name: &'static str,
    pub problem: String,
}

/// A source of values by name: the process environment, or a map in tests.
pub type ValueSource<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads the process environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_source(&|name| std::env::var(name).ok())
    }

    /// Reads `source`. Blank values count as absent.
    pub fn from_source(source: ValueSource) -> Result<Self, ConfigError> {
        let text = |name: &str| source(name).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let gateway_key = text("SMOOAI_GATEWAY_KEY");
        let gateway = match (text("SMOOAI_GATEWAY_URL"), gateway_key) {
            (Some(url), key) if url.starts_with("http://") || url.starts_with("https://") => {
                Some(GatewayConfig { url, key })
            }
            (Some(url), _) => {
                return Err(wrong(
                    "SMOOAI_GATEWAY_URL",
                    format!("`{}` is not an http or https URL", without_secrets(&url)),
                ));
            }
            (None, Some(_)) => {
                return Err(wrong(
                    "SMOOAI_GATEWAY_URL",
                    "a gateway key is set, so set the gateway's base URL too (it ends in /v1)".into(),
                ));
            }
            (None, None) => None,
        };
        Ok(Self {
            bind: parsed(&text, "SMOOTH_AGENT_BIND", "an IP address", || IpAddr::from([127, 0, 0, 1]))?,
            port: parsed(&text, "SMOOTH_AGENT_PORT", "a port number", || 8787)?,
            health_port: optional(&text, "SMOOTH_AGENT_HEALTH_PORT", "a port number")?,
            operations: operations::read(&text)?,
            nats: nats::read(&text),
            regions: regions(text("SMOOTH_AGENT_REGION"), text("SMOOTH_AGENT_REGIONS"))?,
            pool: token(&text, "SMOOTH_AGENT_POOL", "default")?,
            agent_name: text("SMOOTH_AGENT_AGENT_NAME").unwrap_or_else(|| "smooth-agent".into()),
            gateway,
            model: text("SMOOTH_AGENT_MODEL").unwrap_or_else(|| "claude-haiku-4-5".into()),
            title_model: text("SMOOTH_AGENT_TITLE_MODEL"),
            hosted_agent: hosted_agent(text("SMOOTH_AGENT_HOSTED_AGENT"))?,
            max_iterations: at_least_one(&text, "SMOOTH_AGENT_MAX_ITERATIONS", 20)?,
            max_tokens: at_least_one(&text, "SMOOTH_AGENT_MAX_TOKENS", 8192)?,
            turn_limit_secs: at_least_one(&text, "SMOOTH_AGENT_TURN_LIMIT_SECS", 3600)?,
            turn_cap_secs: at_least_one(&text, "SMOOTH_AGENT_TURN_CAP_SECS", 7 * 24 * 3600)?,
            drain_secs: parsed(&text, "SMOOTH_AGENT_DRAIN_SECS", "a number of seconds", || 30)?,
            human_wait_secs: at_least_one(&text, "SMOOTH_AGENT_HUMAN_WAIT_SECS", 300)?,
            model_silence_secs: at_least_one(&text, "SMOOTH_AGENT_MODEL_SILENCE_SECS", 60)?,
            seed_kb: text("SMOOTH_AGENT_SEED_KB").is_some_and(|value| is_yes(&value)),
            embedding_model: text("SMOOTH_AGENT_EMBEDDING_MODEL"),
            rerank: one_of(&text, "SMOOTH_AGENT_RERANK", &RerankBy::NAMES)?,
            retrieval: one_of(&text, "SMOOTH_AGENT_RETRIEVAL", &Retrieval::NAMES)?.unwrap_or_default(),
            confirm_tools: patterns(text("SMOOTH_AGENT_CONFIRM_TOOLS")),
            auth_tools: patterns(text("SMOOTH_AGENT_AUTH_TOOLS")),
            preamble_model: text("SMOOTH_AGENT_PREAMBLE_MODEL"),
            judge_model: text("SMOOTH_AGENT_JUDGE_MODEL"),
            secrets: folder(text("SMOOTH_AGENT_SECRETS_DIR"), "SMOOTH_AGENT_SECRETS_DIR")?,
            skills: folder(text("SMOOTH_SKILLS_DIR"), "SMOOTH_SKILLS_DIR")?,
            privacy: privacy::read(&text)?,
            audit_key: text("SMOOTH_AGENT_AUDIT_KEY_FILE").map(PathBuf::from),
            call_key: text("SMOOTH_AGENT_CALL_KEY_FILE").map(PathBuf::from),
            access: access::read(&text)?,
            auth: auth::read(&text)?,
            widgets: widget::read(&text)?,
            quotas: quota::read(&text)?,
            web: web::read(&text)?,
            mcp: mcp::read(&text, source)?,
        })
    }

    /// Warns about settings that are valid and unsafe, with the reason.
    pub fn warnings(&self) -> Vec<String> {
        let tokens = matches!(self.auth.mode, AuthMode::Jwt | AuthMode::Smoo | AuthMode::Trusted);
        access::warnings(&self.access, self.bind, tokens, self.auth.mode == AuthMode::None)
    }

    /// Returns environment variables with one of our prefixes and an unknown name.
    pub fn unknown_names() -> Vec<String> {
        std::env::vars().map(|(name, _)| name).filter(|name| is_unknown(name)).collect()
    }
}

/// Parses lower-cased parts of names, separated by commas.
fn patterns(list: Option<String>) -> Vec<String> {
    let list = list.unwrap_or_default();
    list.split(',').map(|part| part.trim().to_lowercase()).filter(|part| !part.is_empty()).collect()
}

/// Checks that a folder exists.
fn folder(path: Option<String>, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    match path.map(PathBuf::from) {
        Some(path) if !path.is_dir() => Err(wrong(name, format!("`{}` is not a folder", path.display()))),
        path => Ok(path),
    }
}

fn is_yes(value: &str) -> bool {
    ["1", "true", "yes"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn is_unknown(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !KNOWN.contains(&name)
}

fn wrong(name: &'static str, problem: String) -> ConfigError {
    ConfigError { name, problem }
}

/// Reads a value that becomes part of a subject: letters, digits, `-` and `_`.
fn token(text: &dyn Fn(&str) -> Option<String>, name: &'static str, default: &str) -> Result<String, ConfigError> {
    let value = text(name).unwrap_or_else(|| default.into());
    if is_token(&value) {
        Ok(value)
    } else {
        Err(wrong(name, format!("`{value}` may hold only letters, digits, - and _")))
    }
}

fn is_token(value: &str) -> bool {
    !value.is_empty() && value.len() <= 64 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Parses the address of a hosted agent. The error does not repeat it: it may hold a password.
fn hosted_agent(value: Option<String>) -> Result<Option<AgentAddress>, ConfigError> {
    let parse = |value: String| value.parse().map_err(|error| wrong("SMOOTH_AGENT_HOSTED_AGENT", format!("{error}")));
    value.map(parse).transpose()
}

/// Parses `SMOOTH_AGENT_REGIONS`: `name=number,…`. Without it the home region has number 0.
fn regions(home: Option<String>, table: Option<String>) -> Result<Regions, ConfigError> {
    let home = home.unwrap_or_else(|| "local".into());
    if !is_token(&home) {
        return Err(wrong("SMOOTH_AGENT_REGION", format!("`{home}` may hold only letters, digits, - and _")));
    }
    let list = table.unwrap_or_else(|| format!("{home}=0"));
    let mut table = BTreeMap::new();
    for entry in list.split(',') {
        let parsed = entry
            .trim()
            .split_once('=')
            .and_then(|(name, number)| Some((name.trim(), number.trim().parse::<u8>().ok()?)));
        match parsed {
            Some((name, number)) if is_token(name) && !table.contains_key(&number) => {
                table.insert(number, name.to_string());
            }
            _ => {
                return Err(wrong(
                    "SMOOTH_AGENT_REGIONS",
                    format!("`{entry}` is not a new `name=number` with a number from 0 to 255"),
                ));
            }
        }
    }
    match table.iter().find(|(_, name)| **name == home).map(|(number, _)| *number) {
        Some(home_number) => Ok(Regions { home, home_number, table }),
        None => Err(wrong("SMOOTH_AGENT_REGIONS", format!("does not name the home region `{home}`"))),
    }
}

impl fmt::Display for Config {
    /// Prints the effective values, without secrets, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |present: bool| if present { "set" } else { "unset" };
        writeln!(f, "SMOOTH_AGENT_BIND={}", self.bind)?;
        writeln!(f, "SMOOTH_AGENT_PORT={}", self.port)?;
        writeln!(f, "SMOOTH_AGENT_HEALTH_PORT={}", self.health_port.map_or("unset".into(), |p| p.to_string()))?;
        writeln!(f, "{}", self.operations)?;
        writeln!(f, "SMOOTH_AGENT_REGION={}", self.regions.home)?;
        let table: Vec<String> = self.regions.table.iter().map(|(number, name)| format!("{name}={number}")).collect();
        writeln!(f, "SMOOTH_AGENT_REGIONS={}", table.join(","))?;
        writeln!(f, "SMOOTH_AGENT_POOL={}", self.pool)?;
        writeln!(f, "SMOOTH_AGENT_AGENT_NAME={}", self.agent_name)?;
        writeln!(
            f,
            "SMOOAI_GATEWAY_URL={}",
            self.gateway.as_ref().map_or("unset".into(), |g| without_secrets(&g.url))
        )?;
        writeln!(f, "SMOOAI_GATEWAY_KEY={}", set(self.gateway.as_ref().is_some_and(|g| g.key.is_some())))?;
        writeln!(f, "SMOOTH_AGENT_MODEL={}", self.model)?;
        writeln!(f, "SMOOTH_AGENT_TITLE_MODEL={}", self.title_model.as_deref().unwrap_or("unset"))?;
        let agent = self.hosted_agent.as_ref().map_or("unset".into(), AgentAddress::to_string);
        writeln!(f, "SMOOTH_AGENT_HOSTED_AGENT={agent}")?;
        writeln!(f, "SMOOTH_AGENT_MAX_ITERATIONS={}", self.max_iterations)?;
        writeln!(f, "SMOOTH_AGENT_MAX_TOKENS={}", self.max_tokens)?;
        writeln!(f, "SMOOTH_AGENT_MODEL_SILENCE_SECS={}", self.model_silence_secs)?;
        writeln!(f, "SMOOTH_AGENT_HUMAN_WAIT_SECS={}", self.human_wait_secs)?;
        writeln!(f, "SMOOTH_AGENT_TURN_LIMIT_SECS={}", self.turn_limit_secs)?;
        writeln!(f, "SMOOTH_AGENT_TURN_CAP_SECS={}", self.turn_cap_secs)?;
        writeln!(f, "SMOOTH_AGENT_DRAIN_SECS={}", self.drain_secs)?;
        writeln!(f, "SMOOTH_AGENT_SEED_KB={}", self.seed_kb)?;
        writeln!(f, "SMOOTH_AGENT_EMBEDDING_MODEL={}", self.embedding_model.as_deref().unwrap_or("unset"))?;
        writeln!(f, "SMOOTH_AGENT_RERANK={}", self.rerank.map_or("unset", |by| name_of(&RerankBy::NAMES, &by)))?;
        writeln!(f, "SMOOTH_AGENT_RETRIEVAL={}", name_of(&Retrieval::NAMES, &self.retrieval))?;
        writeln!(f, "SMOOTH_AGENT_CONFIRM_TOOLS={}", self.confirm_tools.join(","))?;
        writeln!(f, "SMOOTH_AGENT_AUTH_TOOLS={}", self.auth_tools.join(","))?;
        writeln!(f, "SMOOTH_AGENT_PREAMBLE_MODEL={}", self.preamble_model.as_deref().unwrap_or("unset"))?;
        writeln!(f, "SMOOTH_AGENT_JUDGE_MODEL={}", self.judge_model.as_deref().unwrap_or("unset"))?;
        writeln!(f, "SMOOTH_AGENT_SECRETS_DIR={}", set(self.secrets.is_some()))?;
        writeln!(f, "SMOOTH_SKILLS_DIR={}", self.skills.as_ref().map_or("unset".into(), |p| p.display().to_string()))?;
        writeln!(f, "{}", self.privacy)?;
        writeln!(f, "{}", self.access)?;
        writeln!(f, "{}", self.auth)?;
        writeln!(f, "{}", self.widgets)?;
        writeln!(f, "{}", self.quotas)?;
        writeln!(f, "{}", self.web)?;
        writeln!(f, "{}", self.mcp)?;
        writeln!(f, "SMOOTH_AGENT_CALL_KEY_FILE={}", set(self.call_key.is_some()))?;
        write!(f, "{}", self.nats)
    }
}

#[cfg(test)]
mod tests;
