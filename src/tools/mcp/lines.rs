//! Bounds the lines that a child process sends, and answers for it where one is too long.
//!
//! Contract: a line within the bound passes as it is. A longer one would be dropped, and its call would wait for its whole time;
//! instead the error that it is too large takes its place, for the call that its beginning or its end names.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, duplex};

/// Room between the child and the library.
const PIPE_BYTES: usize = 64 * 1024;
/// How much of the beginning and of the end of a long line is looked at.
const LOOKED_AT_BYTES: usize = 512;

/// The lines of a child, each of at most `max` bytes.
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
            Some(tail) => match id_in(&line).or_else(|| id_in(&tail)) {
                Some(id) => {
                    let message = format!("The answer is larger than {max} bytes.");
                    let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": message}});
                    to.write_all(format!("{error}\n").as_bytes()).await?;
                }
                None => tracing::warn!("a message of an MCP server is too large and is dropped"),
            },
        }
        line.clear();
        // A long line must not cost its memory for ever.
        line.shrink_to(PIPE_BYTES);
    }
}

fn keep_last(tail: &mut Vec<u8>, piece: &[u8]) {
    tail.extend_from_slice(&piece[piece.len().saturating_sub(LOOKED_AT_BYTES)..]);
    let excess = tail.len().saturating_sub(LOOKED_AT_BYTES);
    tail.drain(..excess);
}

/// The number of the request that a piece of an answer is for: the library numbers its requests.
fn id_in(piece: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(piece);
    let after = text.split("\"id\"").skip(1).filter_map(|rest| rest.trim_start().strip_prefix(':'));
    let mut numbers = after.filter_map(|rest| {
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        let next = rest.trim_start()[digits.len()..].trim_start().chars().next();
        matches!(next, Some(',' | '}')).then(|| digits.parse().ok()).flatten()
    });
    numbers.next()
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
    async fn a_longer_line_is_an_error_for_its_call() {
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
}
