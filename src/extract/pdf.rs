//! A PDF's text.
//!
//! The parser reads any upload: a panic in it is an error, and a large stack holds deep objects. Objects that are
//! deeper, or unfold to more than the memory limit, end the process: see [`super::sandbox`].

use std::{panic, thread};

use super::ExtractError;

/// The stack of the parser's thread: deep objects need more than the usual one.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Returns the text of all pages.
pub fn text(bytes: &[u8]) -> Result<String, ExtractError> {
    let failed = |why: &str| ExtractError::Pdf(why.to_string());
    if !bytes[..bytes.len().min(1024)].windows(5).any(|window| window == b"%PDF-") {
        return Err(failed("it does not begin like one"));
    }
    let read = || panic::catch_unwind(|| read(bytes));
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("pdf".into()).stack_size(STACK_BYTES).spawn_scoped(scope, read);
        match reader.map_err(|error| failed(&error.to_string()))?.join() {
            Ok(Ok(Ok(text))) => Ok(text),
            Ok(Ok(Err(error))) => Err(failed(&error)),
            Ok(Err(_)) | Err(_) => Err(failed("the reader gave up")),
        }
    })
}

#[cfg(feature = "pdf")]
fn read(bytes: &[u8]) -> Result<String, String> {
    use pdf_extract::{Document, PlainTextOutput, output_doc};

    let mut document = Document::load_mem(bytes).map_err(|error| error.to_string())?;
    if document.is_encrypted() {
        // A PDF with permissions only opens without a password, and is decrypted as it is loaded. With the mark still
        // there it would be decrypted once more.
        if document.encryption_state.is_none() {
            return Err("it is locked with a password".into());
        }
        document.trailer.remove(b"Encrypt");
    }
    let mut text = String::new();
    output_doc(&document, &mut PlainTextOutput::new(&mut text)).map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(not(feature = "pdf"))]
fn read(_bytes: &[u8]) -> Result<String, String> {
    Err("this build reads none, it is without the feature `pdf`".into())
}
