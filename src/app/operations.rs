//! The operations address of a process: `/metrics`, `/health`, `/ready`, for operators and never for visitors.

use anyhow::Context;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{Filter, Reply};

use crate::{
    config::Config,
    edge::transport::server::{self, Readiness},
    metrics::{self, metrics},
    nats::connection::NatsConnection,
};

/// Serves the operations address of a role, if one is configured.
pub async fn serve(
    config: &Config,
    role: &str,
    (nats, ready): (&NatsConnection, Readiness),
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<()> {
    metrics().process.runs(env!("TURNSTREAM_VERSION"), role, &config.regions.home);
    metrics::names::name_organisations(config.operations.metrics_orgs as usize);
    let Some(address) = config.operations.address else { return Ok(()) };
    let address = address.at(config.bind);
    let listener = server::bind(address).await.with_context(|| format!("SMOOTH_AGENT_OPERATIONS: {address}"))?;
    println!("operations on http://{}", listener.local_addr()?);
    tasks.spawn(server::listen(listener, routes(nats.clone(), ready).recover(server::refused), shutdown.clone()));
    Ok(())
}

/// The routes of an operations address.
pub fn routes(
    nats: NatsConnection,
    ready: Readiness,
) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
    let probe = ready.clone();
    let text = warp::path!("metrics").and(warp::get()).map(move || {
        metrics().process.scraped(probe().is_ok(), nats.is_connected(), nats.clock.offset().as_seconds_f64());
        warp::reply::with_header(metrics::text(), "content-type", metrics::MEDIA_TYPE).into_response()
    });
    server::probes(ready).map(Reply::into_response).or(text).unify()
}

/// Serves the operations address of a command that repeats: it is ready while it is connected.
pub async fn serve_command(config: &Config, role: &str, nats: &NatsConnection) -> anyhow::Result<()> {
    let connection = nats.clone();
    let ready: Readiness = std::sync::Arc::new(move || match connection.healthy() {
        true => Ok(()),
        false => Err("NATS is not connected, or denies a permission".into()),
    });
    let (ends_with_process, tasks) = (CancellationToken::new(), TaskTracker::new());
    serve(config, role, (nats, ready), &ends_with_process, &tasks).await
}
