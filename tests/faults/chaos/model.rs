//! The model of the chaos run: its answers never repeat, so text of two runs can't be mixed unnoticed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ModelCall, World};
use crate::support::gateway::Reply;

const WORDS: usize = 40;
const WORD_EVERY: Duration = Duration::from_millis(12);

/// Answers one request. The message names the tool to call first, if any; then comes the answer.
pub fn answer(world: &World, request: &Value) -> Reply {
    let messages = request["messages"].as_array().expect("a request has messages");
    let asked = messages.iter().rposition(|message| message["role"] == "user").expect("somebody asks");
    let message = messages[asked]["content"].as_str().expect("a message is a text").to_owned();
    let number = {
        let worker = request["model"].as_str().unwrap_or_default().to_owned();
        let mut calls = world.model_calls.lock().unwrap();
        calls.push(ModelCall { message: message.clone(), worker, at: Instant::now() });
        calls.len()
    };
    let words = |count: usize| (0..count).map(|n| format!("{number}.{n} ")).collect::<String>();
    let tool = message.split(' ').nth(1).filter(|tool| *tool != "nothing");
    let reply = match tool {
        Some(tool) if messages[asked..].iter().all(|message| message["role"] != "tool") => {
            Reply::tool_call(tool, json!({"message": message})).with_text(words(WORDS / 4).trim_end())
        }
        _ => Reply::text(words(WORDS).trim_end()),
    };
    reply.delay_per_token(WORD_EVERY)
}
