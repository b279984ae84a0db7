//! Agents as MCP tools at `/mcp`: tokens and limits, turns that fail or wait, and the form of requests.

use serde_json::{Value, json};

use crate::{
    identity::{SECRET, token},
    support::{
        Edge, Stage,
        client::Client,
        frames::kind,
        gateway::Reply,
        http::send,
        schema,
        tools::{Provider, Tool},
    },
};

const LAST: &str = "2026-07-28";
const BEFORE: &str = "2025-11-25";

/// A program that calls agents, under one revision of the protocol.
struct Program<'a> {
    edge: &'a Edge,
    token: Option<String>,
    revision: &'a str,
    /// The program shows forms to its user.
    asks: bool,
}

impl<'a> Program<'a> {
    fn new(edge: &'a Edge) -> Self {
        Self { edge, token: None, revision: LAST, asks: false }
    }

    /// Sends a message; returns status and body of the answer.
    async fn post(&self, mut message: Value) -> (u16, Value) {
        let name = message["params"]["name"].as_str().map(str::to_owned);
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers =
            vec![("accept", "application/json, text/event-stream"), ("mcp-protocol-version", self.revision)];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        if self.revision == LAST && message["id"].is_number() {
            let capabilities = if self.asks { json!({ "elicitation": { "form": {} } }) } else { json!({}) };
            message["params"]["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": LAST,
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": capabilities,
            });
            headers.push(("mcp-method", &method));
            headers.extend(name.iter().map(|name| ("mcp-name", name.as_str())));
        }
        let response = send(self.edge, "POST", "/mcp", &headers, Some(&message)).await;
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn request(&self, method: &str, params: Value) -> Value {
        let (status, body) = self.post(json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })).await;
        assert_eq!((status, &body["id"]), (200, &json!(7)), "{body:#}");
        body
    }

    async fn tools(&self) -> Vec<String> {
        let listed = self.request("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("{listed:#}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the result of a call.
    async fn call(&self, agent: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": agent, "arguments": arguments })).await["result"].take()
    }

    /// Calls again with a person's answer.
    async fn answer(&self, agent: &str, asked: &Value, answer: Value) -> Value {
        let params = json!({
            "name": agent, "arguments": { "message": "the same" }, "requestState": asked["requestState"],
            "inputResponses": { "answer": answer },
        });
        self.request("tools/call", params).await["result"].take()
    }
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result:#}"))
}

fn code(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result:#}");
    result["structuredContent"]["code"].as_str().unwrap()
}

#[tokio::test]
async fn agents_are_tools_and_a_call_is_a_turn() {
    let stage = Stage::start().await;
    let config =
        json!({ "name": "Support", "description": "Answers questions about orders.", "persona": "You are Pat." });
    stage.agent("reference-org", "support", &config).await;
    stage.agent("reference-org", "sales desk", &json!({})).await;
    stage.agent("acme", "other", &json!({})).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    for revision in [LAST, BEFORE] {
        let program = Program { revision, ..Program::new(&edge) };
        let listed = program.request("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), 2, "{listed:#}");
        assert!(tools[0]["name"].as_str().unwrap().starts_with("sales_desk_"), "{listed:#}");
        assert_eq!((&tools[1]["name"], &tools[1]["title"]), (&json!("support"), &json!("Support")));
        assert_eq!(tools[1]["description"], "Answers questions about orders.");
        assert!(!listed.to_string().contains("Pat"), "a persona stays internal");

        stage.gateway.script(Reply::text("It is on its way."));
        let first = program.call("support", json!({ "message": "where is my order?" })).await;
        assert_eq!((text(&first), &first["isError"]), ("It is on its way.", &json!(false)));
        let ids = first["structuredContent"].clone();
        assert_eq!(ids["status"], "answered");
        let more =
            json!({ "message": "thanks", "conversationId": ids["conversationId"], "sessionId": ids["sessionId"] });
        let second = program.call("support", more).await;
        assert_eq!(second["structuredContent"]["conversationId"], ids["conversationId"]);
        let told = stage.gateway.requests().pop().unwrap()["messages"].to_string();
        assert!(told.contains("where is my order?") && told.contains("You are Pat."), "{told}");
        let elsewhere = json!({ "message": "hello", "sessionId": ids["sessionId"] });
        let sales = tools[0]["name"].as_str().unwrap();
        assert_eq!(code(&program.call(sales, elsewhere).await), "SESSION_NOT_FOUND");
    }
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_request_follows_the_protocol() {
    let stage = Stage::start().await;
    let edge = stage.edge().await;
    let program = Program { revision: BEFORE, ..Program::new(&edge) };
    let hello = json!({ "protocolVersion": BEFORE, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let hello = program.request("initialize", hello).await;
    assert_eq!(hello["result"]["protocolVersion"], BEFORE);
    assert!(hello["result"]["capabilities"]["tools"].is_object(), "{hello:#}");
    assert_eq!(program.request("ping", json!({})).await["result"], json!({}));
    assert_eq!(program.request("prompts/get", json!({ "name": "x" })).await["error"]["code"], -32601);
    assert_eq!(program.request("no/such", json!({})).await["error"]["code"], -32601);
    let unknown = program.request("tools/call", json!({ "name": "nobody", "arguments": {} })).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(program.post(notification).await.0, 202);
    assert_eq!(Program { revision: "1999-01-01", ..Program::new(&edge) }.post(hello).await.0, 400);

    let headers = [("accept", "text/event-stream")];
    for method in ["GET", "DELETE", "PUT"] {
        let refused = send(&edge, method, "/mcp", &headers, None).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["allow"]),
            (405, &"POST".parse().unwrap()),
            "{method}"
        );
    }
    let large = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "x": "y".repeat(200_000) } });
    assert_eq!(program.post(large).await.0, 413);
    let foreign = send(&edge, "GET", "/mcp", &[("origin", "https://evil.example")], None).await;
    assert_eq!(foreign.status().as_u16(), 403);
}

#[tokio::test]
async fn tokens_decide_the_caller_and_its_conversations() {
    let stage = Stage::start().await;
    stage.agent("acme", "support", &json!({})).await;
    stage.agent("other", "secret", &json!({})).await;
    let strict = [("AUTH_JWT_HS256_SECRET", SECRET), ("SMOOTH_AGENT_AUTH_STRICT", "true")];
    let (edge, _worker) = tokio::join!(stage.edge_with(&strict), stage.worker());
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
    for bad in [None, Some("nonsense".to_owned())] {
        let (status, _) = Program { token: bad, ..Program::new(&edge) }.post(ping.clone()).await;
        assert_eq!(status, 401);
    }
    let with = |claims: Value| Program { token: Some(token(claims)), ..Program::new(&edge) };
    let ada = with(json!({ "sub": "ada", "email": "ada@example.org" }));
    let bob = with(json!({ "sub": "bob", "email": "bob@example.org" }));
    let eve = with(json!({ "sub": "eve", "email": "eve@example.org", "org": "other" }));
    assert_eq!((ada.tools().await, eve.tools().await), (vec!["support".to_owned()], vec!["secret".to_owned()]));
    let mine = ada.call("support", json!({ "message": "hello" })).await["structuredContent"].take();
    let mine = json!({ "message": "more", "conversationId": mine["conversationId"] });
    assert_eq!(ada.call("support", mine.clone()).await["isError"], false);
    assert_eq!(code(&bob.call("support", mine.clone()).await), "CONVERSATION_NOT_FOUND");
    assert_eq!(code(&eve.call("secret", mine.clone()).await), "CONVERSATION_NOT_FOUND");

    // Where tokens are optional, a caller with an invalid one is refused, not anonymous.
    let open = stage.edge_with(&[("AUTH_JWT_HS256_SECRET", SECRET)]).await;
    assert_eq!(Program::new(&open).tools().await, ["default"]);
    assert_eq!(Program { token: Some("nonsense".into()), ..Program::new(&open) }.post(ping).await.0, 401);
    assert_eq!(code(&Program::new(&open).call("default", mine).await), "CONVERSATION_NOT_FOUND");
}

#[tokio::test]
async fn widget_policies_and_limits_apply_to_programs() {
    let stage = Stage::start().await;
    let shop = |origins: Value| json!({ "widget": { "allowed_origins": origins } });
    stage.agent("shop", "open", &shop(json!(["*"]))).await;
    stage.agent("shop", "closed", &shop(json!(["https://shop.example"]))).await;
    let strict = [("WIDGET_AUTH_STRICT", "true"), ("SMOOTH_AGENT_LIMIT_ADDRESS_WRITES", "2")];
    let (edge, _worker) = tokio::join!(stage.edge_with(&strict), stage.worker());
    let program = Program::new(&edge);
    assert_eq!(program.tools().await, ["open"]);
    let first = program.call("open", json!({ "message": "hello" })).await;
    assert_eq!(first["isError"], false, "{first:#}");
    // A visitor's conversation id alone opens nothing here; the visitor's session does.
    let mut again = json!({ "message": "more", "conversationId": first["structuredContent"]["conversationId"] });
    assert_eq!(code(&program.call("open", again.clone()).await), "CONVERSATION_NOT_FOUND");
    again["sessionId"] = first["structuredContent"]["sessionId"].clone();
    assert_eq!(program.call("open", again).await["isError"], false);
    assert_eq!(program.call("open", json!({ "message": "hello" })).await["isError"], false);
    let limited = program.call("open", json!({ "message": "hello" })).await;
    assert_eq!(code(&limited), "RATE_LIMITED", "{limited:#}");
}

#[tokio::test]
async fn a_failed_turn_is_an_error_in_our_words() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    stage.gateway.respond_with(|_| Some(Reply::json_error_200()));
    let failed = Program::new(&edge).call("default", json!({ "message": "hello" })).await;
    assert_eq!((code(&failed), text(&failed)), ("AGENT_ERROR", "The assistant could not answer. Please try again."));
    assert!(failed["structuredContent"]["conversationId"].is_string(), "{failed:#}");
}

/// The asking edge is gone when the answer comes: the question is stored in the log alone.
#[tokio::test]
async fn an_approval_is_asked_for_and_answered_over_another_edge() {
    let stage = Stage::start().await;
    let provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (mut edge, mut worker) = tokio::join!(stage.edge(), stage.worker());
    // The tool is called once, since the person declines the second time.
    for approved in [true, false] {
        stage.gateway.script(Reply::tool_call("restart", json!({ "id": "db-1" })));
        let program = Program { asks: true, ..Program::new(&edge) };
        let asked = program.call("default", json!({ "message": "restart it" })).await;
        assert_eq!(asked["resultType"], "input_required", "{asked:#}");
        let form = &asked["inputRequests"]["answer"]["params"];
        assert!(form["message"].as_str().unwrap().contains("db-1"), "{form:#}");
        // A closed form leaves the turn waiting.
        let closed = program.answer("default", &asked, json!({ "action": "cancel" })).await;
        assert_eq!((&closed["requestState"], &closed["resultType"]), (&asked["requestState"], &asked["resultType"]));
        tokio::join!(worker.kill(), edge.process.kill());
        (edge, worker) = tokio::join!(stage.edge(), stage.worker());
        let program = Program { asks: true, ..Program::new(&edge) };
        let accepted = json!({ "action": "accept", "content": { "approved": approved } });
        let answered = program.answer("default", &asked, accepted.clone()).await;
        assert_eq!((text(&answered), &answered["isError"]), ("ok", &json!(false)));
        assert_eq!(provider.calls().len(), 1);
        // A repeated answer shows the same end, and decides nothing.
        let again = program.answer("default", &asked, accepted).await;
        assert_eq!(again["structuredContent"], answered["structuredContent"]);
    }
    schema::log(&stage.nats).await;
}

#[tokio::test]
async fn a_form_is_asked_for_until_it_is_valid() {
    let stage = Stage::start().await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    let program = Program { asks: true, ..Program::new(&edge) };
    let fields = json!({ "fields": ["email"], "reason": "to send you the receipt" });
    stage.gateway.script(Reply::tool_call("request_identity_intake", fields));
    let asked = program.call("default", json!({ "message": "the receipt, please" })).await;
    let form = &asked["inputRequests"]["answer"]["params"];
    assert_eq!(form["requestedSchema"]["properties"]["email"]["format"], "email", "{asked:#}");
    let wrong = json!({ "action": "accept", "content": { "email": "nobody" } });
    let again = program.answer("default", &asked, wrong).await;
    let words = again["inputRequests"]["answer"]["params"]["message"].as_str().unwrap_or_else(|| panic!("{again:#}"));
    assert!(words.contains("email: must be a valid email address"), "{words}");
    let right = json!({ "action": "accept", "content": { "email": "Ann@Example.org" } });
    assert_eq!(text(&program.answer("default", &again, right).await), "ok");
    let told = stage.gateway.requests().pop().unwrap()["messages"].to_string();
    assert!(told.contains("Ann@example.org"), "{told}");
    let params = json!({ "name": "default", "requestState": "{}", "inputResponses": {} });
    assert_eq!(program.request("tools/call", params).await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_program_without_elicitation_is_told_the_pending_request() {
    let stage = Stage::start().await;
    let _provider = Provider::start(&stage.nats, vec![Tool::answers("restart", "done").with("confirm", "true")]).await;
    let (edge, _worker) = tokio::join!(stage.edge(), stage.worker());
    for (revision, asks) in [(LAST, false), (BEFORE, true)] {
        stage.gateway.script(Reply::tool_call("restart", json!({ "id": "db-1" })));
        let program = Program { revision, asks, ..Program::new(&edge) };
        let waiting = program.call("default", json!({ "message": "restart it" })).await;
        let told = &waiting["structuredContent"];
        assert_eq!((&told["status"], &told["waitingFor"]["kind"]), (&json!("waiting"), &json!("approval")));
        assert!(text(&waiting).contains("waits for a person's approval"), "{waiting:#}");
        // A person decides in a client of the conversation.
        let mut client = Client::connect(&edge).await;
        let session = client.resume(told["conversationId"].as_str().unwrap()).await;
        client.confirm(&session, true).await;
        let more = json!({ "message": "and now?", "conversationId": told["conversationId"] });
        while !client.seen.iter().any(|frame| kind(frame) == "eventual_response") {
            client.next().await;
        }
        let now = program.call("default", more).await;
        assert_eq!(text(&now), "ok");
    }
}
