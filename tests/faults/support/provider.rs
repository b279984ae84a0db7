//! A provider of tools that counts its calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::service::{Request, ServiceExt, endpoint::Endpoint};
use futures_util::StreamExt;

/// A tool that answers `done` after a while.
pub struct Tool {
    pub name: &'static str,
    pub metadata: &'static [(&'static str, &'static str)],
    pub takes: Duration,
}

/// The number of deliveries of each call, by tool and call id.
type Calls = Arc<Mutex<HashMap<(&'static str, String), usize>>>;

/// A running provider.
pub struct Provider {
    calls: Calls,
    _service: async_nats::service::Service,
}

impl Provider {
    /// Starts a service with these tools; the server knows it when this returns, and it survives the server's restarts.
    pub async fn start(nats_url: &str, tools: Vec<Tool>) -> Self {
        let client = async_nats::connect(nats_url.split(',').collect::<Vec<_>>()).await.unwrap();
        let service = client.service_builder().start("fault-tools", "1.0.0").await.unwrap();
        let calls = Calls::default();
        for tool in tools {
            let mut metadata = HashMap::from([("tool".to_owned(), "true".to_owned())]);
            metadata.extend(tool.metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            let subject = format!("tool.faults.{}", tool.name);
            let endpoint = service.endpoint_builder().name(tool.name).metadata(metadata).add(&subject).await.unwrap();
            tokio::spawn(serve(endpoint, tool, calls.clone()));
        }
        // The server processes a connection's messages in order: this answer proves that it knows the endpoints.
        client.request(format!("$SRV.PING.{}", service.info().await.name), "".into()).await.unwrap();
        Self { calls, _service: service }
    }

    /// Returns the number of deliveries of each call of a tool, by call id.
    pub fn calls(&self, tool: &str) -> HashMap<String, usize> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|((name, _), _)| *name == tool).map(|((_, id), count)| (id.clone(), *count)).collect()
    }
}

async fn serve(mut endpoint: Endpoint, tool: Tool, calls: Calls) {
    while let Some(request) = endpoint.next().await {
        let id = request.message.headers.as_ref().and_then(|headers| headers.get("Turnstream-Call-Id"));
        let id = id.expect("a call has an id").to_string();
        *calls.lock().unwrap().entry((tool.name, id)).or_default() += 1;
        tokio::spawn(answer(request, tool.takes));
    }
}

/// Answers a call. An answer that is lost with the server is the caller's to miss.
async fn answer(request: Request, after: Duration) {
    tokio::time::sleep(after).await;
    let _ = request.respond(Ok("done".into())).await;
}
