//! Connectors: the sources of the organisation's documents. An ingester reads them, never an edge.

use chrono::Utc;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;

use super::{
    AdminApi,
    forms::{ConnectorList, ConnectorResponse, IngestRun, NewConnector, RunResponse},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
    settings::{BUCKET, STREAM},
};
use crate::{
    knowledge::{
        DEFAULT_SET,
        connector::{Connector, ConnectorKind, IngestItem, is_secret_name},
        runs::RunEvent,
    },
    limits,
    nats::{AppendError, ReadError, direct_get::LastMessages, jetstream::RawMessage},
    subjects,
};

/// Fields that would hold a secret itself. A refusal tells their senders that the secret was not kept.
const SECRET_FIELDS: [&str; 6] = ["secret", "token", "password", "apiKey", "accessToken", "credentials"];

/// `GET connectors`.
pub async fn list(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let mut connectors = all(admin, &asked.principal.org).await?;
    connectors.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(HttpResponse::ok(&ConnectorList { connectors: connectors.into_iter().map(Into::into).collect() }))
}

/// `POST connectors`.
pub async fn create(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let (id, now) = (Uuid::new_v4(), Utc::now());
    let connector = understand(asked.json()?, id)?;
    if all(admin, &asked.principal.org).await?.len() >= limits::CONNECTORS_MAX {
        return Err(HttpRefusal::invalid(format!("an organisation has at most {} connectors", limits::CONNECTORS_MAX)));
    }
    let connector = Connector { created_at: now, updated_at: now, ..connector };
    put(admin, &asked.principal.org, &connector).await?;
    Ok(HttpResponse::json(StatusCode::CREATED, &ConnectorResponse { connector: connector.into() }))
}

/// `PUT connectors/{id}`.
pub async fn replace(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let known = find(admin, asked).await?;
    let connector = understand(asked.json()?, known.id)?;
    let connector = Connector { created_at: known.created_at, updated_at: Utc::now(), ..connector };
    put(admin, &asked.principal.org, &connector).await?;
    Ok(HttpResponse::ok(&ConnectorResponse { connector: connector.into() }))
}

/// `DELETE connectors/{id}`. The connector's documents stay.
pub async fn delete(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let known = find(admin, asked).await?;
    let subject = subjects::kv(BUCKET, &subjects::connector_key(&asked.principal.org, Some(known.id)));
    let id = format!("connector-{}", Uuid::new_v4());
    admin.log.put(&subject, &id, &[("KV-Operation", "DEL")], "".into()).await?;
    Ok(HttpResponse::nothing())
}

/// `POST connectors/{id}/index`: requests a run, which an ingester takes up.
pub async fn index(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let connector = find(admin, asked).await?;
    let org = &asked.principal.org;
    let (id, source) = (Uuid::new_v4(), connector.source());
    let requested = RunEvent::Requested { run: id, at: Utc::now() };
    admin.runs.record(org, &source, &requested).await?;
    let subject = subjects::ingest_item(org, connector.id);
    let item = IngestItem { run: id, org: org.clone(), connector };
    let payload = serde_json::to_vec(&item).expect("an item is a map with string keys");
    admin.log.put(&subject, &format!("ingest-{id}"), &[], payload.into()).await?;
    let mut run = IngestRun::queued(id, source);
    run.take(requested);
    Ok(HttpResponse::ok(&RunResponse { run }))
}

/// Returns the connector that the path names.
async fn find(admin: &AdminApi, asked: &AdminRequest) -> Result<Connector, HttpRefusal> {
    let key = subjects::connector_key(&asked.principal.org, Some(asked.id()?));
    match admin.log.last_of(STREAM, &[subjects::kv(BUCKET, &key)]).await? {
        LastMessages::All(messages) => messages.iter().find_map(read).ok_or_else(HttpRefusal::not_found),
        LastMessages::TooMany => Err(HttpRefusal::not_found()),
    }
}

async fn all(admin: &AdminApi, org: &str) -> Result<Vec<Connector>, HttpRefusal> {
    match admin.log.last_of(STREAM, &[subjects::kv(BUCKET, &subjects::connector_key(org, None))]).await? {
        LastMessages::All(messages) => Ok(messages.iter().filter_map(read).collect()),
        LastMessages::TooMany => Err(ReadError::Unavailable("an organisation has too many connectors".into()).into()),
    }
}

/// Parses the connector in a message of the bucket; `None` if it was deleted.
fn read(message: &RawMessage) -> Option<Connector> {
    if message.headers.contains_key("KV-Operation") {
        return None;
    }
    let read = serde_json::from_slice(&message.payload);
    read.inspect_err(|error| tracing::error!(%error, subject = message.subject, "a malformed connector")).ok()
}

async fn put(admin: &AdminApi, org: &str, connector: &Connector) -> Result<(), AppendError> {
    let subject = subjects::kv(BUCKET, &subjects::connector_key(org, Some(connector.id)));
    let payload = serde_json::to_vec(connector).expect("a connector is a map with string keys");
    admin.log.put(&subject, &format!("connector-{}", Uuid::new_v4()), &[], payload.into()).await
}

/// Checks a connector that an administrator wrote.
fn understand(new: NewConnector, id: Uuid) -> Result<Connector, HttpRefusal> {
    let config = new.config.unwrap_or(new.more.clone());
    for name in SECRET_FIELDS {
        if config.contains_key(name) || new.more.contains_key(name) {
            return Err(HttpRefusal::invalid(format!(
                "`{name}`: secrets are not kept here; put it into the ingesters' environment and give its name as `secretName`"
            )));
        }
    }
    if !["github", "web", "file"].contains(&new.kind.as_str()) {
        return Err(HttpRefusal::invalid("`kind` is github, web or file"));
    }
    let kind: ConnectorKind = serde_json::from_value(json!({ "kind": new.kind, "config": config }))
        .map_err(|error| HttpRefusal::invalid(format!("`config`: {error}")))?;
    kind.check().map_err(HttpRefusal::invalid)?;
    if let Some(name) = new.secret_name.as_deref().filter(|name| !is_secret_name(name)) {
        let length = name.len();
        return Err(HttpRefusal::invalid(format!(
            "`secretName` is the name of an environment variable in capitals, not a text of {length} characters like this"
        )));
    }
    if new.secret_name.is_some() && !matches!(kind, ConnectorKind::Github { .. }) {
        return Err(HttpRefusal::invalid("`secretName` is for github connectors only"));
    }
    let name = short(new.name, "name")?.unwrap_or_else(|| default_name(&kind));
    let set = short(new.document_set, "documentSet")?.unwrap_or_else(|| DEFAULT_SET.into());
    let (created_at, updated_at) = Default::default();
    Ok(Connector { id, name, kind, set, secret_name: new.secret_name, created_at, updated_at })
}

fn default_name(kind: &ConnectorKind) -> String {
    match kind {
        ConnectorKind::Github { owner, repo } => format!("{owner}/{repo}"),
        ConnectorKind::Web { url } => url.clone(),
        ConnectorKind::File { path } => path.clone(),
    }
}

/// Checks a short text without control characters; a blank one counts as absent.
fn short(text: Option<String>, name: &str) -> Result<Option<String>, HttpRefusal> {
    let text = text.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
    match &text {
        Some(long) if long.chars().count() > limits::NAME_MAX_CHARS || long.chars().any(char::is_control) => {
            Err(HttpRefusal::invalid(format!("`{name}` is one line of at most {} characters", limits::NAME_MAX_CHARS)))
        }
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn understood(value: Value) -> Result<Connector, HttpRefusal> {
        understand(serde_json::from_value(value).unwrap(), Uuid::nil())
    }

    #[test]
    fn a_connectors_settings_stand_in_config_or_beside_it() {
        let nested = understood(json!({"kind": "github", "config": {"owner": "acme", "repo": "help"}})).unwrap();
        let flat = understood(json!({"kind": "github", "owner": "acme", "repo": "help"})).unwrap();
        assert_eq!(nested, flat);
        assert_eq!((flat.name.as_str(), flat.set.as_str()), ("acme/help", "default"));
    }

    #[test]
    fn malformed_connectors_are_refused() {
        for wrong in [
            json!({"kind": "ftp", "url": "https://a.example"}),
            json!({"kind": "github", "owner": "acme"}),
            json!({"kind": "web", "url": 7}),
            json!({"kind": "file", "path": "../secrets"}),
            json!({"kind": "web", "url": "https://a.example", "token": "abc"}),
            json!({"kind": "github", "config": {"owner": "a", "repo": "b", "apiKey": "abc"}}),
            json!({"kind": "github", "owner": "a", "repo": "b", "secretName": "ghp_0123"}),
            json!({"kind": "web", "url": "https://a.example", "secretName": "A_TOKEN"}),
            json!({"kind": "web", "url": "https://a.example", "name": "two\nlines"}),
        ] {
            assert!(understood(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
