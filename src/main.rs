//! The `turnstream` program. It is all in the library, which is compiled once for it and for the tests.

use std::process::ExitCode;

/// Size from which freed buffers are returned to the system instead of kept for reuse: frames with attachments are rare,
/// and each of many threads would keep some.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_FROM_BYTES: i32 = 1024 * 1024;

fn main() -> ExitCode {
    if let Some(served) = turnstream::extract::sandbox::serve_if_asked() {
        return served;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM_BYTES);
    }
    turnstream::cli::main()
}
