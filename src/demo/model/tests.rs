//! Answers and calls of the demo model.

use super::*;

fn refund_tool() -> Value {
    json!({"type": "function", "function": {"name": "issue_refund", "parameters": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "reason": {"type": "string"}},
        "required": ["order_id"]}}})
}

fn ask(messages: Value, tools: Value) -> DemoAnswer {
    let request = json!({"model": "m", "messages": messages, "tools": tools});
    answer(&serde_json::from_value(request).unwrap())
}

fn ask_user(text: &str, tools: Value) -> DemoAnswer {
    ask(json!([{"role": "user", "content": text}]), tools)
}

fn said(answer: DemoAnswer) -> String {
    match answer {
        DemoAnswer::Say(text) => text,
        DemoAnswer::Call { name, .. } => panic!("called {name}"),
    }
}

fn called(answer: DemoAnswer) -> (String, Value) {
    match answer {
        DemoAnswer::Call { name, arguments } => (name, serde_json::from_str(&arguments).unwrap()),
        DemoAnswer::Say(text) => panic!("said: {text}"),
    }
}

/// Returns the answer to a tool's result, after a call with these arguments.
fn after_result(name: &str, arguments: Value, result: &str) -> String {
    let call = json!({"id": "c1", "type": "function",
        "function": {"name": name, "arguments": arguments.to_string()}});
    said(ask(
        json!([
            {"role": "user", "content": "refund my order ORD-1234"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": result},
        ]),
        json!([refund_tool()]),
    ))
}

#[test]
fn a_refund_with_an_order_calls_the_tool() {
    for (text, order, reason) in [
        ("refund my order ORD-1234", "ORD-1234", "requested by the customer"),
        ("Please refund order #1234.", "1234", "requested by the customer"),
        ("I want a refund for ORD-9, because it broke.", "ORD-9", "it broke"),
    ] {
        let (name, arguments) = called(ask_user(text, json!([refund_tool()])));
        assert_eq!(name, "issue_refund");
        assert_eq!(arguments, json!({"order_id": order, "reason": reason}));
    }
}

#[test]
fn the_schemas_names_are_used() {
    let tool = json!([{"function": {"name": "issue_refund", "parameters": {
        "properties": {"amount": {}, "orderNumber": {}}}}}]);
    let (_, arguments) = called(ask_user("refund ORD-1234", tool));
    assert_eq!(arguments, json!({"orderNumber": "ORD-1234"}));
    let bare = json!([{"function": {"name": "issue_refund"}}]);
    let (_, arguments) = called(ask_user("refund ORD-1234", bare));
    assert_eq!(arguments["order_id"], "ORD-1234");
}

#[test]
fn without_an_order_the_model_asks_for_it() {
    let asked = said(ask_user("I want a refund", json!([refund_tool()])));
    assert_eq!(asked, WHICH_ORDER);
    let messages = json!([
        {"role": "user", "content": "I want a refund"},
        {"role": "assistant", "content": asked},
        {"role": "user", "content": [{"type": "text", "text": "It is ORD-77"}]},
    ]);
    let (_, arguments) = called(ask(messages, json!([refund_tool()])));
    assert_eq!(arguments["order_id"], "ORD-77");
}

#[test]
fn a_question_about_refunds_and_a_missing_tool_are_no_call() {
    assert_eq!(said(ask_user("What is your refund policy?", json!([refund_tool()]))), ABOUT_ME);
    assert_eq!(said(ask_user("refund ORD-1234", json!([]))), ABOUT_ME);
}

#[test]
fn results_are_told_in_words() {
    let order = json!({"order_id": "ORD-1234"});
    let told = |result: &str| after_result("issue_refund", order.clone(), result);
    let issued = told(r#"{"order_id":"ORD-1234","refund_id":"RF-5","status":"issued"}"#);
    assert_eq!(issued, "Done: the refund for order ORD-1234 was issued. Its id is RF-5.");
    for rejected in
        ["The user rejected this action.", r#"{"error":"rejected by the user"}"#, "Error: the approval expired"]
    {
        let told = told(rejected);
        assert!(told.contains("ORD-1234 was not issued"), "{told}");
    }
    let failed = told(r#"{"error":"no such order"}"#);
    assert!(failed.contains("could not be confirmed"), "{failed}");
    assert!(failed.contains("no such order"));
    assert!(told("ledger is closed").contains("answered: ledger is closed"));

    let status = after_result("order_status", json!({}), r#"{"order_id":"A","open":true}"#);
    assert_eq!(status, "The tool “order_status” answered: open: true, order_id: A");
    let failed = after_result("order_status", json!({}), r#"{"error":"away"}"#);
    assert!(failed.contains("failed: error: away"));
}

#[test]
fn several_results_are_told_one_after_the_other() {
    let call = |id: &str, name: &str| {
        json!({"id": id,
        "function": {"name": name, "arguments": "{}"}})
    };
    let text = said(ask(
        json!([
            {"role": "user", "content": "both"},
            {"role": "assistant", "tool_calls": [call("a", "one"), call("b", "two")]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
        ]),
        json!([]),
    ));
    assert_eq!(text, "The tool “one” answered: 1 The tool “two” answered: 2");
}

#[test]
fn a_tool_can_be_called_by_name() {
    let tools = json!([{"function": {"name": "order_status"}}]);
    let call = |text: &str| ask_user(text, tools.clone());
    let (name, arguments) = called(call(r#"please call order_status {"order_id": "ORD-7"} now"#));
    assert_eq!(name, "order_status");
    assert_eq!(arguments, json!({"order_id": "ORD-7"}));
    assert_eq!(called(call("Call order_status")).1, json!({}));
    assert!(said(call("call order_status {oops")).contains("not valid JSON"));
    let missing = said(call("call weather {}"));
    assert!(missing.contains("“weather”") && missing.contains("order_status"));
    assert_eq!(said(call("call me later")), ABOUT_ME);
}

#[test]
fn small_talk_and_the_rest_are_answered_politely() {
    assert!(said(ask_user("Hello!", json!([]))).starts_with("Hello"));
    assert!(said(ask_user("thanks a lot", json!([]))).contains("welcome"));
    assert_eq!(said(ask_user("who are you?", json!([]))), ABOUT_ME);
    assert_eq!(said(ask_user("Compose a sonnet.", json!([]))), ABOUT_ME);
    assert_eq!(said(ask_user("", json!([]))), ABOUT_ME);
}
