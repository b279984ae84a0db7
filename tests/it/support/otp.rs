//! The host's service for one-time passwords: a NATS micro service with one code.

use async_nats::service::{Service, ServiceExt, error::Error as ServiceError};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use turnstream::calls::is_signed;

use super::{
    nats::NatsServer,
    tools::{client_as, is_known, public_key},
};

/// The code that the service takes.
pub const CODE: &str = "424242";
const ATTEMPTS: u32 = 3;

/// A running service; it ends with the value.
pub struct OtpService {
    _service: Service,
    _endpoints: [AbortOnDropHandle<()>; 2],
    sent: watch::Sender<Vec<Value>>,
}

impl OtpService {
    /// A service for an organisation; `delivers` false: sending fails.
    pub async fn start(nats: &NatsServer, org: &str, delivers: bool) -> Self {
        let client = client_as(nats, "otp_provider").await;
        let service = client.service_builder().start("test-otp", "1.0.0").await.unwrap();
        let sent = watch::Sender::new(Vec::new());
        let mut sends = service.endpoint(format!("otp.{org}.send")).await.unwrap();
        let mut verifies = service.endpoint(format!("otp.{org}.verify")).await.unwrap();
        is_known(&client, &nats.client().await).await;
        let record = sent.clone();
        let sending = tokio::spawn(async move {
            while let Some(request) = sends.next().await {
                assert!(
                    is_signed(&request.message, &public_key(), chrono::Utc::now()),
                    "a call that nobody has signed"
                );
                let question: Value = serde_json::from_slice(&request.message.payload).unwrap();
                let answer = json!({ "channel": "email", "maskedDestination": "a**@example.org" });
                record.send_modify(|sent| sent.push(question));
                let answer = match delivers {
                    true => Ok(answer.to_string().into()),
                    false => Err(ServiceError { code: 500, status: "mail server at 10.0.0.7 is down".into() }),
                };
                request.respond(answer).await.unwrap();
            }
        });
        let verifying = tokio::spawn(async move {
            let mut left = ATTEMPTS;
            while let Some(request) = verifies.next().await {
                assert!(
                    is_signed(&request.message, &public_key(), chrono::Utc::now()),
                    "a call that nobody has signed"
                );
                let question: Value = serde_json::from_slice(&request.message.payload).unwrap();
                let answer = if left > 0 && question["code"] == CODE {
                    json!({ "verified": true })
                } else {
                    left = left.saturating_sub(1);
                    let error = if left == 0 { "MAX_ATTEMPTS" } else { "INVALID_CODE" };
                    json!({ "verified": false, "attemptsRemaining": left, "error": error, "message": "Not that one." })
                };
                request.respond(Ok(answer.to_string().into())).await.unwrap();
            }
        });
        Self { _service: service, _endpoints: [sending, verifying].map(AbortOnDropHandle::new), sent }
    }

    /// What was asked to be sent so far.
    pub fn sent(&self) -> Vec<Value> {
        self.sent.borrow().clone()
    }
}
