//! `conversation_history`: lets the model read messages of its conversation that are older than its context.

use serde_json::{Value, json};

use super::context::{MessageHistory, PastMessage};
use crate::limits;

/// Reads a page, or finds messages by words in a bounded number of pages.
pub async fn call(arguments: &Value, history: &dyn MessageHistory) -> Result<String, String> {
    let words: Vec<String> =
        arguments["words"].as_str().unwrap_or_default().split_whitespace().map(str::to_lowercase).collect();
    let mut before = arguments["before"].as_u64();
    let mut found: Vec<PastMessage> = Vec::new();
    let mut has_older = true;
    for _ in 0..limits::HISTORY_PAGES {
        let (page, more) = history.page(before, limits::HISTORY_PAGE).await.map_err(|why| {
            tracing::warn!(why, "older messages can't be read for a tool call");
            "The older messages can't be read now."
        })?;
        has_older = more;
        before = page.last().map(|said| said.seq).or(before);
        found.extend(page.into_iter().filter(|said| holds(&said.text, &words)));
        if words.is_empty() || !more || found.len() >= limits::HISTORY_PAGE {
            break;
        }
    }
    let messages: Vec<Value> = found.iter().map(|said| {
        let text: String = said.text.chars().take(limits::HISTORY_TEXT_CHARS).collect();
        json!({ "number": said.seq, "from": if said.by_user { "user" } else { "assistant" }, "at": said.at, "text": text })
    }).collect();
    Ok(json!({ "messages": messages, "hasOlder": has_older, "before": before }).to_string())
}

fn holds(text: &str, words: &[String]) -> bool {
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}
