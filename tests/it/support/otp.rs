//! The host's service for one-time passwords: a NATS micro service with one code.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::service::{Service, ServiceExt, error::Error as ServiceError};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use turnstream::calls::is_signed;

use super::{
    WAIT_MAX,
    nats::NatsServer,
    tools::{client_as, is_known, public_key},
};

/// The code that the service accepts.
pub const CODE: &str = "424242";
const ATTEMPTS: u32 = 3;

/// A running service, stopped on drop.
pub struct OtpService {
    _service: Service,
    _endpoints: [AbortOnDropHandle<()>; 2],
    sent: watch::Sender<Vec<Value>>,
}

impl OtpService {
    /// Starts a service for an organisation; with `delivers` false, sending fails.
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
                assert!(is_signed(&request.message, &public_key(), chrono::Utc::now()), "an unsigned call");
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
                assert!(is_signed(&request.message, &public_key(), chrono::Utc::now()), "an unsigned call");
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

    /// Returns the requests to send so far.
    pub fn sent(&self) -> Vec<Value> {
        self.sent.borrow().clone()
    }
}

/// A service from before challenges: it keeps the last password of each session, and no more.
pub struct OldOtpService {
    _service: Service,
    _endpoints: [AbortOnDropHandle<()>; 2],
    sent: watch::Sender<Vec<(Value, String)>>,
    /// With false, the service refuses to send.
    pub delivers: Arc<AtomicBool>,
    /// A permit is one send; without one the asker is kept waiting.
    pub sends: Arc<Semaphore>,
}

impl OldOtpService {
    pub async fn start(nats: &NatsServer, org: &str) -> Self {
        let client = client_as(nats, "otp_provider").await;
        let service = client.service_builder().start("old-otp", "1.0.0").await.unwrap();
        let mut sends = service.endpoint(format!("otp.{org}.send")).await.unwrap();
        let mut verifies = service.endpoint(format!("otp.{org}.verify")).await.unwrap();
        is_known(&client, &nats.client().await).await;
        let sent = watch::Sender::new(Vec::new());
        let (delivers, permits) = (Arc::new(AtomicBool::new(true)), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let kept: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let (record, may, leave, codes) = (sent.clone(), delivers.clone(), permits.clone(), kept.clone());
        let sending = tokio::spawn(async move {
            while let Some(request) = sends.next().await {
                let question: Value = serde_json::from_slice(&request.message.payload).unwrap();
                let (record, may, leave, codes) = (record.clone(), may.clone(), leave.clone(), codes.clone());
                tokio::spawn(async move {
                    let code = format!("{}", 100_000 + record.borrow().len());
                    record.send_modify(|sent| sent.push((question.clone(), code.clone())));
                    leave.acquire().await.unwrap().forget();
                    if !may.load(Ordering::SeqCst) {
                        let refused = ServiceError { code: 502, status: "the mail server is down".into() };
                        return request.respond(Err(refused)).await.unwrap();
                    }
                    codes.lock().unwrap().insert(question["session"].to_string(), code);
                    let channel = if question["email"].is_string() { "email" } else { "sms" };
                    let answer = json!({ "channel": channel, "maskedDestination": "***" });
                    request.respond(Ok(answer.to_string().into())).await.unwrap();
                });
            }
        });
        let verifying = tokio::spawn(async move {
            while let Some(request) = verifies.next().await {
                let question: Value = serde_json::from_slice(&request.message.payload).unwrap();
                let known = kept.lock().unwrap().get(&question["session"].to_string()).cloned();
                let verified = known.is_some() && question["code"].as_str() == known.as_deref();
                let answer = json!({ "verified": verified, "attemptsRemaining": 3, "error": "INVALID_CODE" });
                request.respond(Ok(answer.to_string().into())).await.unwrap();
            }
        });
        let endpoints = [sending, verifying].map(AbortOnDropHandle::new);
        Self { _service: service, _endpoints: endpoints, sent, delivers, sends: permits }
    }

    /// Returns the passwords sent to an address or number, oldest first.
    pub fn codes_to(&self, address: &str) -> Vec<String> {
        let is_its = |question: &Value| question["email"] == address || question["phone"] == address;
        self.sent.borrow().iter().filter(|(question, _)| is_its(question)).map(|(_, code)| code.clone()).collect()
    }

    /// Waits until `count` passwords were requested, and returns the requests.
    pub async fn asked(&self, count: usize) -> Vec<Value> {
        let mut sent = self.sent.subscribe();
        let sent = timeout(WAIT_MAX, sent.wait_for(|sent| sent.len() >= count)).await.unwrap().unwrap();
        sent.iter().map(|(question, _)| question.clone()).collect()
    }

    /// Returns the number of requested passwords so far.
    pub fn count(&self) -> usize {
        self.sent.borrow().len()
    }
}
