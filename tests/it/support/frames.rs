//! Reading frames.

use serde_json::Value;

pub fn kind(frame: &Value) -> &str {
    frame["type"].as_str().unwrap_or_default()
}

pub fn request_id(frame: &Value) -> Option<&str> {
    frame["requestId"].as_str()
}

/// Returns the error code of an error frame.
pub fn code(frame: &Value) -> &str {
    frame["error"]["code"].as_str().unwrap_or_default()
}

pub fn is_terminal(frame: &Value) -> bool {
    matches!(kind(frame), "eventual_response" | "cancelled" | "error")
}

/// Returns the types of frames, with neighbours of one type as one.
pub fn kinds(frames: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = frames.iter().map(kind).collect();
    kinds.dedup();
    kinds
}

/// Returns the streamed text.
pub fn streamed(frames: &[Value]) -> String {
    frames.iter().filter(|frame| kind(frame) == "stream_token").filter_map(|frame| frame["token"].as_str()).collect()
}

/// Returns the final answer, `data.data` of the turn's last frame.
pub fn answer(frames: &[Value]) -> &Value {
    let last = frames.last().expect("a turn has frames");
    assert_eq!(kind(last), "eventual_response", "{frames:#?}");
    &last["data"]["data"]
}

/// Returns the text of the final answer.
pub fn answer_text(frames: &[Value]) -> &str {
    answer(frames)["response"]["responseParts"][0].as_str().expect("an answer has a text")
}

/// Returns the tool activity: names of calls and texts of results, in their order.
pub fn tool_activity(frames: &[Value]) -> Vec<String> {
    let raw = |frame: &Value| frame["data"]["state"]["rawResponse"].clone();
    let activity = frames.iter().filter(|frame| kind(frame) == "stream_chunk").map(raw).map(|raw| {
        let (call, result) = (&raw["toolCall"], &raw["toolResult"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (call.is_object(), result["isError"] == true) {
            (true, _) => format!("call {}", text(&call["name"])),
            (false, true) => format!("error {}", text(&result["result"])),
            (false, false) => format!("result {}", text(&result["result"])),
        }
    });
    activity.collect()
}
