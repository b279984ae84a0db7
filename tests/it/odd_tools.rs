//! Tools declared oddly, twice, or inconsistently: each costs at most itself, and is the same on every worker.

use serde_json::{Value, json};

use crate::{
    mcp,
    support::{
        Stage,
        client::Client,
        frames::{answer_text, kinds},
        gateway::Reply,
        tools::{Provider, Tool, offered},
    },
    tool_calls::{calls, results_for_the_model},
};

async fn listed(stage: &Stage, variables: &[(&str, &str)]) -> String {
    let mut list = stage.run("tools list", &["tools", "list"], variables);
    assert!(list.ended().await.success(), "{}", list.output());
    list.output()
}

/// Schemas that are offered, normalised where interfaces need it.
const NORMALISED: [(&str, &str); 15] = [
    ("s_bare", r#"{"type":"object"}"#),
    ("s_empty", "{}"),
    ("s_filter", r#"{"type":"object","properties":{"$filter":{"type":"string"},"top":{"type":"integer"}}}"#),
    ("s_list", r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"required":["a"]}"#),
    ("s_null", "null"),
    ("s_optional", r#"{"properties":{"a":{"anyOf":[{"type":"string"},{"type":"null"}],"default":null,"title":"A"}}}"#),
    (
        "s_names",
        r#"{"properties":{"a":{"enum":["x",null]},"b":{"const":5},"c":{"type":"integer","enum":[1,2]},"d":{"enum":["",1]}}}"#,
    ),
    ("s_formats", r#"{"properties":{"a":{"type":"string","format":"uuid"},"b":{"type":"integer","format":"int64"}}}"#),
    (
        "s_demands",
        r#"{"properties":{"a":{},"b":{}},"oneOf":[{"required":["a"]},{"required":["b"]}],"x-a":1,"examples":[]}"#,
    ),
    (
        "s_either",
        r#"{"properties":{"a":{"oneOf":[{"type":"string"},{"type":"array"}],"description":"d","nullable":true}}}"#,
    ),
    ("s_any_of", r#"{"anyOf":[{"properties":{"a":{"type":"string"}}},{"properties":{"b":{"type":"string"}}}]}"#),
    ("s_one_of", r#"{"oneOf":[{"type":"object","properties":{"id":{"type":"string"}},"required":["id"]}]}"#),
    ("s_ref", r##"{"properties":{"at":{"$ref":"#/$defs/p"}},"$defs":{"p":{"type":"object","properties":{"x":{}}}}}"##),
    ("s_tuple", r#"{"properties":{"a":{"type":"array","items":[{"type":"string"}]},"b":{"type":"array"},"c":null}}"#),
    ("s_type_list", r#"{"type":["object","null"],"properties":{"größe":{"type":"number"}}}"#),
];
/// Schemas that can't be offered.
const LEFT_OUT: [(&str, &str); 5] = [
    ("x_text", r#"{"type":"string"}"#),
    ("x_text_or_number", r#"{"anyOf":[{"type":"string"},{"type":"number"}]}"#),
    ("x_list", "[]"),
    ("x_required", r#"{"properties":{"$filter":{}},"required":["$filter"]}"#),
    ("x_broken", r#"{"type":"#),
];

#[tokio::test]
async fn an_odd_schema_is_normalised_or_drops_its_own_tool() {
    let stage = Stage::start().await;
    let odd = NORMALISED.into_iter().chain(LEFT_OUT);
    let tools = odd.map(|(name, schema)| Tool::answers(name, "done").with("parameters", schema));
    let provider = Provider::start(&stage.nats, tools.collect()).await;
    let (edge, worker) = tokio::join!(stage.edge(), stage.worker());
    let mut client = Client::connect(&edge).await;
    let session = client.open_session().await;
    // The gateway refuses a request with a schema that the big providers refuse.
    let all: Vec<(&str, Value)> = NORMALISED.iter().map(|(name, _)| (*name, json!({"any": 1}))).collect();
    stage.gateway.script(calls(&all));
    assert_eq!(answer_text(&client.ask(&session, "r1", "call all").await), "ok");
    assert_eq!(results_for_the_model(&stage), ["done"; NORMALISED.len()]);
    assert_eq!(provider.calls().len(), NORMALISED.len());
    let mut names: Vec<&str> = NORMALISED.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(offered(&stage.gateway.requests()[0]), names);
    let said = listed(&stage, &[]).await;
    for (name, _) in LEFT_OUT {
        assert!(said.contains(&format!("refused: {name} of the service test-tools")), "{name}: {said}");
        assert!(worker.output().contains(&format!("tool=\"{name}\"")), "{name} is named in the worker's log");
    }
    for (name, key) in [("s_filter", "$filter"), ("s_type_list", "größe")] {
        assert!(
            said.contains(&format!("warning: {name} of test-tools: models' interfaces take no property `{key}`")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn two_declarations_of_one_name_are_one_rule_for_every_worker() {
    let stage = Stage::start().await;
    let bold = || vec![Tool::answers("refund", "done").with("idempotent", "true").with("description", "bold")];
    let careful = || vec![Tool::answers("refund", "done").with("confirm", "true").with("description", "careful")];
    let edge = stage.edge().await;
    let mut client = Client::connect(&edge).await;
    for (n, bold_first) in [true, false].into_iter().enumerate() {
        let first = Provider::named(&stage.nats, "orders", if bold_first { bold() } else { careful() }).await;
        let mut early = stage.worker().await;
        early.line(|line| line.contains("tools of NATS services") && line.contains("refund")).await;
        let second = Provider::named(&stage.nats, "orders", if bold_first { careful() } else { bold() }).await;
        early.line(|line| line.contains("declared differently in confirm, idempotent")).await;
        let said = listed(&stage, &[]).await;
        assert!(said.contains("warning: refund of orders: declared differently in confirm, idempotent"), "{said}");
        let line = said.lines().find(|line| line.contains("timeout")).unwrap();
        assert!(line.contains("waits for approval") && !line.contains("idempotent"), "{said}");

        // One worker knew the first declaration before, one learns both at once.
        for (name, worker) in [("early", Some(early)), ("late", None)] {
            let mut worker = match worker {
                Some(worker) => worker,
                None => stage.worker().await,
            };
            let session = client.open_session().await;
            let id = format!("{name} {n}");
            stage.gateway.script(Reply::tool_call("refund", json!({"id": "7"})));
            client.begin(&session, &id, "refund it").await;
            let parked = client.turn_until(&id, "write_confirmation_required").await;
            assert_eq!(kinds(&parked), ["write_confirmation_required"], "{id}");
            let request = stage.gateway.requests().pop().unwrap();
            let tools = request["tools"].as_array().unwrap();
            let tool = tools.iter().find(|tool| tool["function"]["name"] == "refund").unwrap();
            assert_eq!(tool["function"]["description"], "bold", "the first as text of one version: {id}");
            client.confirm(&session, true).await;
            assert_eq!(answer_text(&client.turn(&id).await), "ok");
            worker.kill().await;
        }
        assert_eq!(first.calls().len() + second.calls().len(), 2);
        tokio::join!(first.stop(&stage.nats), second.stop(&stage.nats));
    }
}

#[tokio::test]
async fn an_odd_mcp_server_loses_only_its_odd_tools() {
    let (_server, port) = mcp::over_http(0, &[("ODD", "1")]).await;
    let url = format!("http://127.0.0.1:{port}/mcp");
    let over_http = json!({ "url": url, "headers": { "Authorization": "Bearer ${MCP_TOKEN}" } });
    for server in [mcp::child(json!({ "env": { "ODD": "1" } })), over_http] {
        loses_only_odd_tools(mcp::scene(server).await).await;
    }
}

async fn loses_only_odd_tools(mut s: mcp::Scene) {
    s.learnt(0).await;
    let names = s.offered("r0").await;
    for name in ["srv__add", "srv__odd_null", "srv__odd_kinds", "srv__odd_large", "srv__odd_hints"] {
        assert!(names.iter().any(|known| known == name), "{name} is missing: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("odd_text") || name.contains("odd_list")), "{names:?}");
    let alike: Vec<&String> = names.iter().filter(|name| name.starts_with("srv__odd_name")).collect();
    assert_eq!(alike.len(), 2, "names that become equal stay distinct: {names:?}");
    let results = s
        .turn_with(
            "r1",
            &[
                ("srv__odd_kinds", json!({})),
                ("srv__odd_large", json!({})),
                ("srv__add", json!({"a": 1, "b": 2})),
                (alike[0].as_str(), json!({})),
                (alike[1].as_str(), json!({})),
            ],
        )
        .await;
    assert!(results[0].contains("before") && results[0].contains("after"), "{}", results[0]);
    assert!(results[0].contains("unknown kind: hologram"), "{}", results[0]);
    // The call fails at once, not at its timeout.
    assert!(results[1].starts_with("Error: ") && results[1].contains("answer"), "{}", results[1]);
    assert_eq!(results[2], r#"{"total": 3}"#);
    let mut called = results[3..].to_vec();
    called.sort_unstable();
    assert_eq!(called, ["called odd.name", "called odd/name"], "each is the tool that it stands for");
}
