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
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(std::io::stderr).init();
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

/// What is logged. The MCP library tells of errors with all of a URL, which may hold a secret; what matters of them is logged by
/// this program, so that library speaks only when it is named.
fn log_filter() -> EnvFilter {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    match "rmcp=off".parse() {
        Ok(silent) if !asked.contains("rmcp") => filter.add_directive(silent),
        _ => filter,
    }
}
