//! A PDF's text. The parser meets whatever people upload, so it runs on a thread of its own: a panic in it is an error, and
//! one that does not come back in time is left behind.

use std::{panic, sync::mpsc, thread, time::Duration};

use super::ExtractError;
use crate::limits;

/// Deep objects need more than a thread's usual stack.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The text of all pages.
pub fn text(bytes: &[u8]) -> Result<String, ExtractError> {
    let failed = |why: &str| ExtractError::Pdf(why.to_string());
    if !bytes[..bytes.len().min(1024)].windows(5).any(|window| window == b"%PDF-") {
        return Err(failed("it does not begin like one"));
    }
    let (sender, receiver) = mpsc::channel();
    let bytes = bytes.to_vec();
    let read = move || {
        let read = panic::catch_unwind(|| pdf_extract::extract_text_from_mem(&bytes));
        // Nobody listens any more when it took too long.
        let _ = sender.send(match read {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the reader gave up".to_string()),
        });
    };
    thread::Builder::new()
        .name("pdf".into())
        .stack_size(STACK_BYTES)
        .spawn(read)
        .map_err(|e| failed(&e.to_string()))?;
    match receiver.recv_timeout(Duration::from_millis(limits::PDF_TIMEOUT_MS)) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(why)) => Err(ExtractError::Pdf(why)),
        Err(_) => Err(failed("it takes too long")),
    }
}
