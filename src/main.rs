//! The `turnstream` program.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn,rmcp=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Fails only when a provider is installed already, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match turnstream::cli::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turnstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}
