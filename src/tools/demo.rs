//! The demo write tool `issue_refund`: a NATS micro service like any other provider's.

use std::collections::HashMap;

use async_nats::{
    Client,
    service::{ServiceExt, error::Error as ServiceError},
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::subjects;

/// Serves the tool until the future is dropped.
pub async fn run(client: Client) -> Result<(), async_nats::Error> {
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
    let mut calls =
        service.endpoint_builder().name("issue_refund").metadata(metadata).add(subjects::DEMO_REFUND).await?;
    while let Some(call) = calls.next().await {
        call.respond(refund(&call.message.payload)).await?;
    }
    Ok(())
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
