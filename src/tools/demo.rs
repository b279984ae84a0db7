//! The demo write tool `issue_refund`: a NATS micro service like any other provider's.

use std::collections::HashMap;

use async_nats::{
    Client,
    service::{Service, ServiceExt, endpoint::Endpoint, error::Error as ServiceError},
};
use chrono::Utc;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::{calls::is_signed, signing::PublicKey, subjects};

/// The tool's service and its endpoint; both end when dropped.
pub struct DemoTool {
    _service: Service,
    calls: Endpoint,
    /// The key that calls must be signed with, if any.
    key: Option<PublicKey>,
}

/// Starts the service.
///
/// A later discovery through the same connection finds the tool.
pub async fn start(client: Client, key: Option<PublicKey>) -> Result<DemoTool, async_nats::Error> {
    let service = client
        .service_builder()
        .description("Demo tools of Turnstream")
        .start("turnstream-demo", env!("CARGO_PKG_VERSION"))
        .await?;
    let parameters = json!({
        "type": "object",
        "properties": {
            "order_id": { "type": "string", "description": "The order, such as ORD-1234" },
            "reason": { "type": "string", "description": "Why the customer wants the refund" },
        },
        "required": ["order_id"],
    });
    let metadata = HashMap::from([
        ("tool".to_string(), "true".to_string()),
        ("description".to_string(), "Refunds an order to the customer's payment method.".to_string()),
        ("parameters".to_string(), parameters.to_string()),
    ]);
    let calls = service.endpoint_builder().name("issue_refund").metadata(metadata).add(subjects::DEMO_REFUND).await?;
    Ok(DemoTool { _service: service, calls, key })
}

impl DemoTool {
    pub async fn serve(mut self) {
        while let Some(call) = self.calls.next().await {
            let is_genuine = self.key.as_ref().is_none_or(|key| is_signed(&call.message, key, Utc::now()));
            let answer = match is_genuine {
                true => refund(&call.message.payload),
                false => Err(ServiceError { code: 403, status: "the call is not signed by Turnstream".into() }),
            };
            if let Err(error) = call.respond(answer).await {
                tracing::warn!(%error, "the demo tool could not answer");
            }
        }
    }
}

fn refund(arguments: &[u8]) -> Result<bytes::Bytes, ServiceError> {
    let arguments: Value = serde_json::from_slice(arguments).unwrap_or_default();
    match arguments["order_id"].as_str().map(str::trim).filter(|id| !id.is_empty()) {
        Some(order) => {
            let refund = format!("RF-{}", order.trim_start_matches("ORD-"));
            Ok(json!({ "status": "refunded", "order_id": order, "refund_id": refund }).to_string().into())
        }
        None => Err(ServiceError { code: 400, status: "order_id is required".into() }),
    }
}
