//! The `turnstream` program.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// Buffers from here on are given back to the system when they are freed, not kept for the next one: frames with attachments
/// come rarely, and there are many threads that would each keep some.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_FROM_BYTES: i32 = 1024 * 1024;

fn main() -> ExitCode {
    if let Some(served) = turnstream::extract::apart::serve_if_asked() {
        return served;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM_BYTES);
    }
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
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
