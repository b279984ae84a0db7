//! Bounds the lines that a child process sends, and answers for the child where a line is too long.
//!
//! Contract: a line within the bound passes unchanged. A longer one would be dropped, and its call would wait until its
//! timeout; instead a "too large" error takes its place, for the call that the line's beginning or end names.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex};

/// The buffer between the child and the library.
const PIPE_BYTES: usize = 64 * 1024;
/// The bytes at the beginning and at the end of a long line that are searched for the request id.
const LOOKED_AT_BYTES: usize = 512;

/// Returns the lines of a child, each of at most `max` bytes.
pub fn bounded(from: impl AsyncRead + Send + Unpin + 'static, max: usize) -> DuplexStream {
    let (mut to, bounded) = duplex(PIPE_BYTES);
    tokio::spawn(async move {
        if let Err(error) = pass(BufReader::with_capacity(PIPE_BYTES, from), &mut to, max).await {
            tracing::debug!(%error, "the output of an MCP server has ended");
        }
    });
    bounded
}

async fn pass(
    mut from: BufReader<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
    max: usize,
) -> std::io::Result<()> {
    let mut line: Vec<u8> = Vec::new();
    // The last bytes of a line that is too long.
    let mut tail: Option<Vec<u8>> = None;
    loop {
        let available = from.fill_buf().await?;
        if available.is_empty() {
            return to.write_all(&line).await;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let piece = &available[..end.unwrap_or(available.len())];
        match &mut tail {
            Some(tail) => keep_last(tail, piece),
            None if line.len() + piece.len() > max => {
                let mut last = line.clone();
                keep_last(&mut last, piece);
                line.truncate(LOOKED_AT_BYTES);
                line.extend_from_slice(&piece[..piece.len().min(LOOKED_AT_BYTES - line.len())]);
                tail = Some(last);
            }
            None => line.extend_from_slice(piece),
        }
        let consumed = piece.len() + usize::from(end.is_some());
        from.consume(consumed);
        if end.is_none() {
            continue;
        }
        match tail.take() {
            None => {
                line.push(b'\n');
                to.write_all(&line).await?;
            }
            Some(tail) => match id_in(&line, &tail) {
                Some(id) => {
                    let message = format!("The answer is larger than {max} bytes.");
                    let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": message}});
                    to.write_all(format!("{error}\n").as_bytes()).await?;
                }
                None => tracing::warn!("a message of an MCP server is too large and is dropped"),
            },
        }
        line.clear();
        // A long line must not keep its memory for ever.
        line.shrink_to(PIPE_BYTES);
    }
}

fn keep_last(tail: &mut Vec<u8>, piece: &[u8]) {
    tail.extend_from_slice(&piece[piece.len().saturating_sub(LOOKED_AT_BYTES)..]);
    let excess = tail.len().saturating_sub(LOOKED_AT_BYTES);
    tail.drain(..excess);
}

/// Returns the number of the request that a line answers, from its first and last bytes: the library numbers its
/// requests.
///
/// Only a field of the message itself counts, not one within the result: before the result or error, or as the very
/// last field. A message with a method is no answer.
fn id_in(beginning: &[u8], end: &[u8]) -> Option<u64> {
    let (beginning, end) = (String::from_utf8_lossy(beginning), String::from_utf8_lossy(end));
    let parts = ["\"result\"", "\"error\"", "\"params\"", "\"method\""];
    let at = parts.iter().filter_map(|part| beginning.find(part)).min();
    let head = &beginning[..at.unwrap_or(0)];
    if at.is_some_and(|at| !["\"result\"", "\"error\""].iter().any(|part| beginning[at..].starts_with(part))) {
        return None;
    }
    head.find("\"id\"").and_then(|at| number(&head[at + 4..], ',')).or_else(|| {
        // The end of a message says nothing unless the message has begun as an answer.
        at?;
        let last = end.rfind("\"id\"")?;
        let rest = end[last + 4..].trim_end();
        // A result that also ends with an `id` closes its brackets one by one.
        let before = end[..last].trim_end();
        let closes =
            |text: &str| text.ends_with(['}', ']', '"', 'e', 'l']) || text.ends_with(|c: char| c.is_ascii_digit());
        let stands_apart = before.strip_suffix(',').is_some_and(|before| closes(before.trim_end()));
        number(rest, '}').filter(|_| stands_apart && rest.matches('}').count() == 1)
    })
}

/// Parses a number after a colon and before `mark`; a closing brace must be the end of the text.
fn number(text: &str, mark: char) -> Option<u64> {
    let text = text.trim_start().strip_prefix(':')?.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text[digits..].trim_start();
    let follows = rest.strip_prefix(mark)?;
    if mark == '}' && !follows.trim().is_empty() {
        return None;
    }
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn passed(given: &[u8], max: usize) -> String {
        let mut out = String::new();
        let given = std::io::Cursor::new(given.to_vec());
        bounded(given, max).read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn a_line_within_the_bound_passes_as_it_is() {
        let long = "y".repeat(200_000);
        let given = format!("{{\"id\":1}}\r\n\n{long}\nno end");
        assert_eq!(passed(given.as_bytes(), 200_000).await, given);
    }

    #[tokio::test]
    async fn an_oversized_line_is_an_error_for_its_call() {
        for (beginning, end) in
            [("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"", "\"}"), ("{\"result\":\"", "\", \"id\" : 7}")]
        {
            for bytes in [2_000, 300_000] {
                let given = format!("first\n{beginning}{}{end}\nlast\n", "z".repeat(bytes));
                let out = passed(given.as_bytes(), 1_000).await;
                let lines: Vec<&str> = out.lines().collect();
                assert_eq!((lines.len(), lines[0], lines[2]), (3, "first", "last"));
                let error: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
                assert_eq!((error["id"].as_u64(), error["error"]["code"].as_i64()), (Some(7), Some(-32000)));
            }
        }
        assert_eq!(passed(format!("{}\nlast\n", "z".repeat(2_000)).as_bytes(), 1_000).await, "last\n");
    }

    #[tokio::test]
    async fn an_id_inside_a_result_is_no_call_id() {
        for (beginning, end) in [
            (r#"{"result":{"id":7,"text":""#, r#""}}"#),
            (r#"{"jsonrpc":"2.0","result":{"a":[{"id":7},""#, r#""]}}"#),
            (r#"{"result":{"text":""#, r#"","id":7}}"#),
            (r#"{"result":{"text":""#, r#"","id":7},"jsonrpc":"2.0"}"#),
            (r#"{"id":7,"method":"sampling/createMessage","params":{"text":""#, r#""}}"#),
            (r#"{"method":"notifications/message","params":{"id":7,"text":""#, r#""}}"#),
            (r#"{"params":{"text":""#, r#""},"id":7}"#),
            (r#"{"text":""#, r#"","id":7}"#),
        ] {
            let given = format!("{beginning}{}{end}\nlast\n", "z".repeat(2_000));
            assert_eq!(passed(given.as_bytes(), 1_000).await, "last\n", "{beginning}…{end}");
        }
        for (beginning, end) in [
            (r#"{"id": 7, "jsonrpc":"2.0","result":{"id":8,"text":""#, r#""}}"#),
            (r#"{"result":{"id":8,"text":""#, r#""},"id":7}"#),
            (r#"{"error":{"code":1,"message":""#, r#""},"jsonrpc":"2.0", "id": 7 } "#),
        ] {
            let given = format!("{beginning}{}{end}\n", "z".repeat(2_000));
            let error: serde_json::Value = serde_json::from_str(&passed(given.as_bytes(), 1_000).await).unwrap();
            assert_eq!(error["id"], 7, "{beginning}…{end}");
        }
    }
}
