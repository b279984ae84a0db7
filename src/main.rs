//! The `turnstream` program. It is all in the library, which is compiled once for it and for the tests.

use std::process::ExitCode;

/// Chosen by measurement: a fifth of a token's processor time went to the system's allocator (`tests/MEASURED.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(served) = turnstream::extract::sandbox::serve_if_asked() {
        return served;
    }
    turnstream::cli::main()
}
