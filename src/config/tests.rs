//! Tests of defaults, invalid values and hidden secrets.

use super::*;

fn read(values: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_source(&|name| values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
}

#[test]
fn defaults_match_the_protocol() {
    let config = read(&[]).unwrap();
    assert_eq!((config.bind.to_string().as_str(), config.port), ("127.0.0.1", 8787));
    assert_eq!((config.model.as_str(), config.max_iterations, config.max_tokens), ("claude-haiku-4-5", 20, 8192));
    assert_eq!((config.regions.home.as_str(), config.regions.name(0)), ("local", Some("local")));
    assert!(config.gateway.is_none() && !config.seed_kb && config.confirm_tools.is_empty());
}

#[test]
fn bad_values_name_the_setting() {
    for (name, value) in [
        ("SMOOTH_AGENT_PORT", "eighty"),
        ("SMOOTH_AGENT_BIND", "here"),
        ("SMOOTH_AGENT_MAX_TOKENS", "0"),
        ("SMOOTH_AGENT_REGION", "eu.west"),
        ("SMOOTH_AGENT_REGIONS", "us=1"),
        ("SMOOTH_AGENT_REGIONS", "local=0,us=0"),
        ("SMOOTH_AGENT_POOL", "a>b"),
        ("SMOOAI_GATEWAY_URL", "ftp://x"),
        ("SMOOTH_AGENT_FETCH_ALLOW", "wiki.corp"),
        ("SMOOTH_AGENT_WEB_SEARCH_URL", "search"),
        ("SMOOTH_AGENT_GITHUB_URL", "api.github.com"),
        ("SMOOTH_AGENT_MCP_CONFIG", "/nowhere/mcp.json"),
        ("SMOOTH_AGENT_RERANK", "twice"),
        ("SMOOTH_AGENT_RETRIEVAL", "remote"),
        ("SMOOTH_AGENT_AUTH_MODE", "maybe"),
        ("SMOOTH_AGENT_AUTH_MODE", "jwt"),
        ("SMOOTH_AGENT_AUTH_MODE", "smoo"),
        ("SMOOTH_AGENT_AUTH_STRICT", "yes"),
        ("SMOOTH_AGENT_ALLOWED_ORIGINS", "shop.example"),
        ("SMOOTH_AGENT_EVERYBODY_SEES_ALL", "perhaps"),
        ("SMOOTH_AGENT_PING_SECS", "often"),
        ("AUTH_JWT_HS256_SECRET", "short"),
        ("AUTH_JWT_JWKS_URL", "keys.json"),
        ("AUTH_JWT_ISSUER", "somebody"),
        ("WIDGET_AUTH_URL", "policies"),
        ("WIDGET_AUTH_TTL_SECS", "-1"),
        ("SMOOTH_AGENT_LIMIT_SESSION_MESSAGES", "26"),
        ("SMOOTH_AGENT_LIMIT_ORG_TURNS", "acme=501"),
        ("SMOOTH_AGENT_LIMIT_ORG_MESSAGES", "many"),
        ("SMOOTH_AGENT_SEED_KB", "ture"),
        ("WIDGET_AUTH_STRICT", "sure"),
        ("WIDGET_AUTH_FILE", "/nowhere/policies.json"),
        ("SMOOAI_GATEWAY_URL", "http://"),
        ("SMOOTH_AGENT_OPERATIONS", "localhost:9464"),
        ("SMOOTH_AGENT_METRICS_ORGS", "2000"),
        ("SMOOTH_AGENT_LOG", "xml"),
        ("SMOOTH_AGENT_AUDIT_KEY_FILE", "/nowhere/audit-key.pem"),
        ("SMOOTH_AGENT_CALL_KEY_FILE", "/"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token"),
        ("NATS_URL", "http://nats:4222"),
        ("NATS_URL", "nats://host:port"),
        ("NATS_CREDS", "/nowhere/user.creds"),
        ("NATS_CA", "/nowhere/ca.pem"),
        ("NATS_TOOL_NKEY", "/nowhere/tool.nk"),
    ] {
        assert_eq!(read(&[(name, value)]).err().map(|e| e.name), Some(name), "{name}={value}");
    }
    for (name, missing) in [
        ("SMOOAI_GATEWAY_KEY", "SMOOAI_GATEWAY_URL"),
        ("NATS_USER", "NATS_PASSWORD"),
        ("NATS_OTP_USER", "NATS_OTP_PASSWORD"),
        ("NATS_PASSWORD", "NATS_USER"),
    ] {
        assert_eq!(read(&[(name, "k")]).err().map(|e| e.name), Some(missing), "{name} alone");
    }
}

#[test]
fn secrets_do_not_print() {
    let config = read(&[
        ("SMOOAI_GATEWAY_URL", "http://user:secret@g/v1?api-key=secret"),
        ("SMOOAI_GATEWAY_KEY", "sk-secret"),
        ("NATS_URL", "nats://user:secret@host:4222,user:secret@other:4222, nats://secret@third"),
        ("SMOOTH_AGENT_WEB_SEARCH_URL", "https://search.example/s?key=secret&secret#secret"),
        ("SMOOTH_AGENT_GITHUB_URL", "https://secret@github.example/"),
        ("AUTH_JWT_JWKS_URL", "https://keys.example/jwks?token=secret"),
        ("AUTH_JWT_ISSUER", "https://user:secret@issuer.example"),
        ("NATS_TOKEN", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret"),
        ("NATS_USER", "worker"),
        ("NATS_PASSWORD", "secret"),
        ("SMOOTH_AGENT_WEB_SEARCH_KEY", "secret"),
        ("SMOOTH_AGENT_GITHUB_TOKEN", "secret"),
        ("WIDGET_AUTH_URL", "https://user:secret@policies.example?key=secret"),
        ("WIDGET_AUTH_BEARER", "secret"),
        ("AUTH_JWT_HS256_SECRET", "a secret that is as long as it has to be"),
    ]);
    assert!(!config.unwrap().to_string().contains("secret"));
}

#[test]
fn every_setting_is_printed() {
    let printed = read(&[]).unwrap().to_string();
    // A secret of the same thing is printed under its first name; credentials of a caller under the kind that is set.
    let elsewhere = ["SMOOTH_AGENT_MASTER_KEY_FILE", "AUTH_MODE", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let is_of_caller = |name: &str| ["NATS_TOOL_", "NATS_OTP_", "NATS_RETRIEVE_"].iter().any(|p| name.starts_with(p));
    let is_printed = |name: &str| printed.lines().any(|line| line.split_once('=').is_some_and(|(set, _)| set == name));
    let missing = KNOWN.iter().filter(|name| !elsewhere.contains(name) && !is_of_caller(name) && !is_printed(name));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn a_refused_url_is_named_without_its_secrets() {
    for name in ["SMOOAI_GATEWAY_URL", "SMOOTH_AGENT_WEB_SEARCH_URL", "SMOOTH_AGENT_GITHUB_URL", "WIDGET_AUTH_URL"] {
        for url in ["ftp://user:secret@host/v1?key=secret", "user:secret@host"] {
            let error = read(&[(name, url)]).err().expect("the value is not a URL");
            assert_eq!(error.name, name);
            assert!(!error.to_string().contains("secret") && error.to_string().contains("host"), "{error}");
        }
    }
}

#[test]
fn unsafe_settings_cause_warnings() {
    let warnings = |values: &[(&str, &str)]| read(values).unwrap().warnings().join("\n");
    assert_eq!(warnings(&[]), "");
    for (name, value) in [("SMOOTH_AGENT_EVERYBODY_SEES_ALL", "true"), ("SMOOTH_AGENT_BIND", "0.0.0.0")] {
        assert!(warnings(&[(name, value)]).contains(name), "{name}");
    }
    let open = [("SMOOTH_AGENT_BIND", "::"), ("SMOOTH_AGENT_AUTH_MODE", "none")];
    assert!(warnings(&open).contains("administrates"));
}

#[test]
fn misspelt_setting_names_are_reported() {
    for name in ["SMOOTH_AGENT_PROT", "SMOOTH_AGNET_PORT", "NATS_PASWORD", "SMOOAI_GATEWAY_URI"] {
        assert!(is_unknown(name), "{name}");
    }
    for name in ["SMOOTH_AGENT_PORT", "PATH", "NATS_SERVER", "NATS_CONTEXT", "NATS_URL"] {
        assert!(!is_unknown(name), "{name}");
    }
}

#[test]
fn the_operators_page_names_every_setting() {
    let page = include_str!("../../ops/configuration.md");
    let first_cell = |line: &'static str| Some(line.strip_prefix("| `")?.split_once('`')?.0);
    let named: Vec<&str> = page.lines().filter_map(first_cell).collect();
    let missing: Vec<_> = KNOWN.iter().filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "not in ops/configuration.md: {missing:?}");
    let unknown: Vec<_> = named.iter().filter(|name| is_unknown(name)).collect();
    assert!(unknown.is_empty(), "in ops/configuration.md, and read by nothing: {unknown:?}");
}
