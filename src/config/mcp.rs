//! The MCP servers that provide tools to a worker: a file in the format of other MCP hosts, with a few more keys.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;

use super::{ConfigError, ValueSource, is_token, wrong};

const NAME: &str = "SMOOTH_AGENT_MCP_CONFIG";

/// The file of declarations and its servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct McpConfig {
    pub file: Option<PathBuf>,
    pub servers: Vec<McpServer>,
}

/// A server that provides tools.
#[derive(Clone, Debug, PartialEq)]
pub struct McpServer {
    /// The prefix of the names of the server's tools.
    pub name: String,
    pub link: McpLink,
    /// The only organisation that may use the server's tools; `None` = all.
    pub org: Option<String>,
    /// The tools that wait for a person's approval.
    pub confirm: ToolSelection,
    /// The tools that may be called again with the same idempotency key; `None` = as the server declares.
    pub idempotent: Option<ToolSelection>,
    /// Time for one call; `None` = the default of all tools.
    pub timeout: Option<Duration>,
    /// The server's names of the tools to offer; `None` = all.
    pub tools: Option<Vec<String>>,
    /// It is never asked for the current revision of the protocol, only for those with a handshake.
    pub handshake: bool,
}

/// The transport to a server.
#[derive(Clone, PartialEq)]
pub enum McpLink {
    /// A child process, over its standard input and output.
    Child { command: String, args: Vec<String>, env: Vec<(String, String)>, cwd: Option<PathBuf> },
    /// Streamable HTTP.
    Http { url: Url, headers: Vec<(String, String)> },
}

/// A selection of a server's tools.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolSelection {
    None,
    All,
    /// Tools with one of these texts, in lower case, in their names.
    Parts(Vec<String>),
}

impl ToolSelection {
    pub fn includes(&self, tool: &str) -> bool {
        let tool = tool.to_lowercase();
        match self {
            Self::None => false,
            Self::All => true,
            Self::Parts(parts) => parts.iter().any(|part| tool.contains(part)),
        }
    }
}

/// The file's format. Unknown keys are refused: a misspelt `confirm` must not count as none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    disabled: bool,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    org: Option<String>,
    confirm: Option<Selection>,
    idempotent: Option<Selection>,
    timeout_ms: Option<u64>,
    tools: Option<Vec<String>>,
    #[serde(default)]
    handshake: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Selection {
    Each(bool),
    Parts(Vec<String>),
}

impl From<Selection> for ToolSelection {
    fn from(selection: Selection) -> Self {
        match selection {
            Selection::Each(false) => Self::None,
            Selection::Each(true) => Self::All,
            Selection::Parts(parts) => Self::Parts(parts.iter().map(|part| part.to_lowercase()).collect()),
        }
    }
}

/// Reads the file named by `SMOOTH_AGENT_MCP_CONFIG`.
pub fn read(text: &dyn Fn(&str) -> Option<String>, source: ValueSource) -> Result<McpConfig, ConfigError> {
    let Some(file) = text(NAME).map(PathBuf::from) else { return Ok(McpConfig::default()) };
    let refuse = |problem: String| wrong(NAME, format!("{}: {problem}", file.display()));
    let content = std::fs::read_to_string(&file).map_err(|error| refuse(format!("can't be read: {error}")))?;
    let servers = parse(&content, source).map_err(refuse)?;
    Ok(McpConfig { file: Some(file), servers })
}

fn parse(content: &str, source: ValueSource) -> Result<Vec<McpServer>, String> {
    let file: File = serde_json::from_str(content).map_err(|error| error.to_string())?;
    let enabled = file.servers.into_iter().filter(|(_, entry)| !entry.disabled);
    enabled
        .map(|(name, entry)| {
            if !is_token(&name) {
                return Err(format!("the server name `{name}` may hold only letters, digits, - and _"));
            }
            let link = link(&entry, source).map_err(|problem| format!("server `{name}`: {problem}"))?;
            Ok(McpServer {
                name,
                link,
                org: entry.org,
                confirm: entry.confirm.map_or(ToolSelection::None, ToolSelection::from),
                idempotent: entry.idempotent.map(ToolSelection::from),
                timeout: entry.timeout_ms.map(Duration::from_millis),
                tools: entry.tools,
                handshake: entry.handshake,
            })
        })
        .collect()
}

fn link(entry: &Entry, source: ValueSource) -> Result<McpLink, String> {
    let kind = entry.kind.as_deref();
    let filled = |(name, value): (&String, &String)| {
        let value = fill(value, source).map_err(|problem| format!("`{name}`: {problem}"))?;
        Ok::<_, String>((name.clone(), value))
    };
    match (&entry.command, &entry.url) {
        (Some(command), None) if entry.headers.is_empty() && kind.is_none_or(|kind| kind == "stdio") => {
            Ok(McpLink::Child {
                command: command.clone(),
                args: entry.args.clone(),
                env: entry.env.iter().map(filled).collect::<Result<_, _>>()?,
                cwd: entry.cwd.clone(),
            })
        }
        (None, Some(url)) if entry.env.is_empty() && kind.is_none_or(|kind| kind.contains("http")) => {
            let parsed = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
            let url = parsed.ok_or_else(|| "`url` is not an http or https URL".to_string())?;
            let headers = entry.headers.iter().map(filled).collect::<Result<Vec<_>, _>>()?;
            let legal = |(name, value): &(String, String)| {
                reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
                    && reqwest::header::HeaderValue::from_str(value).is_ok()
            };
            match headers.iter().find(|header| !legal(header)) {
                Some((name, _)) => Err(format!("the header `{name}` is malformed")),
                None => Ok(McpLink::Http { url, headers }),
            }
        }
        _ => Err("needs either `command` (with `args`, `env`, `cwd`; type stdio) or `url` (with `headers`; type http)"
            .into()),
    }
}

/// Replaces `${NAME}` by environment variables, so that the file needs no secrets.
fn fill(value: &str, source: ValueSource) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("`${` without `}`")?;
        let value = source(name).ok_or_else(|| format!("the environment variable {name} is not set; set it"))?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = after;
    }
    Ok(filled + rest)
}

impl fmt::Debug for McpLink {
    /// Prints the link without anything that may be secret: values of variables and headers, arguments, a URL's user and query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, _)| format!("{name}=set")).collect::<Vec<_>>().join(" ")
        };
        match self {
            Self::Child { command, args, env, cwd } => {
                write!(f, "command {command}, {} arguments, env [{}]", args.len(), names(env))?;
                cwd.as_ref().map_or(Ok(()), |cwd| write!(f, ", in {}", cwd.display()))
            }
            Self::Http { url, headers } => {
                let host = url.host_str().unwrap_or_default();
                let port = url.port().map_or(String::new(), |port| format!(":{port}"));
                write!(f, "{}://{host}{port}{}, headers [{}]", url.scheme(), url.path(), names(headers))
            }
        }
    }
}

impl fmt::Display for McpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}={}", self.file.as_ref().map_or("unset".into(), |file| file.display().to_string()))?;
        for server in &self.servers {
            write!(f, "\n  {}: {:?}", server.name, server.link)?;
            server.org.as_ref().map_or(Ok(()), |org| write!(f, ", only for {org}"))?;
            match &server.confirm {
                ToolSelection::None => Ok(()),
                ToolSelection::All => write!(f, ", all wait for approval"),
                ToolSelection::Parts(parts) => write!(f, ", wait for approval: {}", parts.join(" ")),
            }?;
            server.tools.as_ref().map_or(Ok(()), |tools| write!(f, ", only {}", tools.join(" ")))?;
            if server.handshake {
                write!(f, ", with the handshake of earlier revisions")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(content: &str) -> Result<Vec<McpServer>, String> {
        parse(content, &|name| (name == "KEY").then(|| "hush".to_string()))
    }

    #[test]
    fn the_common_format_of_mcp_servers_is_read() {
        let servers = parsed(
            r#"{"mcpServers": {
                "files": {"command": "npx", "args": ["-y", "x"], "env": {"TOKEN": "a-${KEY}-b"}, "confirm": ["Write"]},
                "off": {"command": "x", "disabled": true},
                "web": {"type": "http", "url": "https://u:p@mcp.example/mcp?k=v", "headers": {"Authorization": "Bearer ${KEY}"},
                        "org": "acme", "idempotent": true, "timeoutMs": 5, "tools": ["a"], "handshake": true}
            }}"#,
        )
        .unwrap();
        assert_eq!(servers.len(), 2);
        let McpLink::Child { env, .. } = &servers[0].link else { panic!("{servers:?}") };
        assert_eq!(env[0].1, "a-hush-b");
        assert!(servers[0].confirm.includes("overWRITE_all") && !servers[0].confirm.includes("read"));
        assert_eq!(
            (servers[1].idempotent.clone(), servers[1].timeout),
            (Some(ToolSelection::All), Some(Duration::from_millis(5)))
        );
        assert!(servers[1].handshake && !servers[0].handshake);
        let printed = McpConfig { file: None, servers }.to_string();
        assert!(printed.contains("TOKEN=set") && printed.contains("https://mcp.example/mcp"), "{printed}");
        assert!(!printed.contains("hush") && !printed.contains("k=v") && !printed.contains("u:p"), "{printed}");
    }

    #[test]
    fn an_invalid_file_is_refused_with_its_problem() {
        for (content, words) in [
            ("{}", "mcpServers"),
            (r#"{"mcpServers": {"a b": {"command": "x"}}}"#, "`a b`"),
            (r#"{"mcpServers": {"a": {"comand": "x"}}}"#, "comand"),
            (r#"{"mcpServers": {"a": {"command": "x", "confrim": true}}}"#, "confrim"),
            (r#"{"mcpServers": {"a": {}}}"#, "either `command`"),
            (r#"{"mcpServers": {"a": {"type": "sse", "url": "http://x"}}}"#, "either `command`"),
            (r#"{"mcpServers": {"a": {"url": "ftp://x"}}}"#, "not an http"),
            (r#"{"mcpServers": {"a": {"url": "http://x", "headers": {"a b": "c"}}}}"#, "`a b`"),
            (r#"{"mcpServers": {"a": {"command": "x", "env": {"T": "${NONE}"}}}}"#, "NONE is not set"),
            (r#"{"mcpServers": {"a": {"command": "x", "env": {"T": "${KEY"}}}}"#, "without `}`"),
        ] {
            let problem = parsed(content).unwrap_err();
            assert!(problem.contains(words), "{content}: {problem}");
        }
    }
}
