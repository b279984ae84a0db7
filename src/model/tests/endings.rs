//! Streams with misleading or missing ends.

use super::*;

/// The chunk of a delta, with a finish reason, as some gateways write one into every chunk.
fn stamped(delta: Value, reason: &str) -> String {
    let chunk = serde_json::json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    format!("data: {chunk}\n\n")
}

fn call_piece(arguments: &str) -> Value {
    serde_json::json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "pay", "arguments": arguments}}]})
}

#[tokio::test]
async fn a_finish_reason_on_every_chunk_does_not_end_the_reply() {
    let content = |text: &str| serde_json::json!({ "content": text });
    let half: [(&str, Vec<String>); 6] = [
        ("text", vec![stamped(content("Hel"), "stop"), stamped(content("lo"), "stop")]),
        ("the first", vec![stamped(content("Hel"), "stop")]),
        ("a call", vec![stamped(call_piece("{\"sum\":5}"), "tool_calls")]),
        ("text, then a call", vec![stamped(content("I pay"), "stop"), stamped(call_piece("{}"), "stop")]),
        (
            "thoughts",
            vec![stamped(content("a"), "stop"), stamped(serde_json::json!({"reasoning_content": "b"}), "stop")],
        ),
        ("text after its end", vec![token("Hel"), FINISH.to_owned(), token("lo")]),
    ];
    for (case, chunks) in &half {
        let chunks = chunks.concat();
        let late_error = format!("{chunks}data: {{\"error\":{{\"message\":\"overloaded\"}}}}\n\n");
        let unreadable = format!("{chunks}data: {{\"choices\":[{{\"del\n\n");
        for (end, answer) in [
            ("breaks", chunked(chunks.as_bytes(), 4096, true)),
            ("an error", chunked(late_error.as_bytes(), 4096, false)),
            ("an error event", chunked(format!("{chunks}event: error\ndata: busy\n\n").as_bytes(), 4096, false)),
            ("half a chunk", chunked(unreadable.as_bytes(), 4096, false)),
            ("is silent", Answer::Hold([STREAM_HEAD, &chunks].concat().into_bytes())),
        ] {
            let server = serve(vec![answer]).await;
            let short = Timeouts { idle: Duration::from_millis(50), ..quick() };
            assert!(ask_with(&server, short).await.is_err(), "{case}, {end}");
        }
        for end in ["", DONE] {
            let server = serve(vec![chunked(format!("{chunks}{end}").as_bytes(), 4096, false)]).await;
            assert_eq!(ask(&server).await.unwrap().0.ending, FinishReason::Whole, "{case}");
        }
    }
}

#[tokio::test]
async fn usage_after_the_end_does_not_reopen_the_reply() {
    let events =
        [&token("hi"), FINISH, USAGE, &stamped(serde_json::json!({"role": "assistant", "content": ""}), "stop")];
    let server = serve(vec![chunked(events.concat().as_bytes(), 4096, true)]).await;
    let (reply, _) = ask(&server).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.ending), ("hi", FinishReason::Whole));
}

#[tokio::test]
async fn endlessly_nested_chunks_cost_only_themselves() {
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(40_000), close.repeat(40_000));
    let deltas = [
        format!("{{\"content\":{}}}", nested("{\"content\":", "}")),
        format!("{{\"content\":{}}}", nested("[", "]")),
        format!("{{\"reasoning_details\":{}}}", nested("[", "]")),
        format!("{{\"extra\":{}}}", nested("{\"a\":", "}")),
        format!("{{\"tool_calls\":{}}}", nested("[", "]")),
        format!("{{\"function_call\":{}}}", nested("{\"function\":", "}")),
        format!("{{\"refusal\":null,\"reasoning\":{}}}", nested("{\"a\":", "}")),
    ];
    for delta in &deltas {
        let twice: String = ["1", "2"]
            .map(|n| {
                let delta = delta.replace('1', n);
                format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n")
            })
            .concat();
        let server = serve(vec![stream(&[&token("a"), &twice, &token("b"), FINISH, DONE].concat())]).await;
        let (reply, _) = ask(&server).await.unwrap();
        assert_eq!(reply.text, "ab", "{}", &delta[..40]);
    }
}

#[tokio::test]
async fn chunks_written_together_are_parsed_separately() {
    let chunk = |text: &str| token(text).trim_start_matches("data: ").trim().to_owned();
    let (a, b, end) = (chunk("Hel"), chunk("l\"}{o"), FINISH.trim_start_matches("data: ").trim().to_owned());
    let whole = r#"{"choices":[{"message":{"content":"Hell\"}{o"},"finish_reason":"stop"}],"usage":{"cost":NaN}}"#;
    for (odd, body) in [
        ("several values in a line", format!("data: {a}{b}{end}\n\n{DONE}")),
        ("without a line end", format!("data: {a}data: {b}data: {end}data: [DONE]\n\n")),
        ("JSON lines", format!("{a}\n{b}\n{end}\n")),
        ("JSON lines with an end", format!("{a}\n{b}\n{end}\n[DONE]\n")),
        ("JSON lines with a mark", format!("\u{feff}{a}\r\n{b}\r\n{end}")),
        ("a mark before JSON", format!("\u{feff}{whole}")),
        ("a number that is none", whole.to_owned()),
    ] {
        for piece in [3, 4096] {
            let server = serve(vec![chunked(body.as_bytes(), piece, false)]).await;
            let (reply, deltas) = ask(&server).await.unwrap_or_else(|error| panic!("{odd}: {error:?}"));
            assert_eq!((texts(&deltas).as_str(), reply.ending), ("Hell\"}{o", FinishReason::Whole), "{odd}");
        }
    }
    let control = "data: {\"choices\":[{\"delta\":{\"content\":\"a\tb\u{1}\"},\"logprobs\":-Infinity}]}\n\n";
    let server = serve(vec![stream(&[control, FINISH, DONE].concat())]).await;
    assert_eq!(ask(&server).await.unwrap().0.text, "a\tb\u{1}");
    for cut in [format!("{a}\n{b}\n"), format!("{a}\n{}", &b[..20]), format!("data: {a}{}\n\n", &b[..20])] {
        let server = serve(vec![chunked(cut.as_bytes(), 4096, false)]).await;
        assert!(ask(&server).await.is_err(), "{cut}");
    }
}
