//! The load generator against a small fake server: a correct server passes, and each kind of fault is found.

mod fake_server;

use std::collections::HashSet;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use self::fake_server::Mischief;
use super::{Bench, BenchArgs, args::Scenario, gateway::FakeGateway, outcome::ScenarioOutcome, scenarios};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

/// A load that a test can afford.
const SMALL: &[&str] = &[
    "bench",
    "--seconds",
    "0.3",
    "--streams",
    "3",
    "--tokens",
    "12",
    "--rate",
    "100",
    "--connections",
    "3",
    "--conversations",
    "50",
];

fn args(more: &[&str]) -> BenchArgs {
    Cli::try_parse_from(SMALL.iter().chain(more)).unwrap().bench
}

/// Measures a fake server and returns the outcomes.
async fn measure(mischief: Mischief, scenario: &str) -> Vec<ScenarioOutcome> {
    let gateway = FakeGateway::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = fake_server::start(gateway.address, mischief).await;
    // Long where an end is expected, so that a busy machine does not fail the test.
    let grace = if mischief == Mischief::NoTerminal { "0.5" } else { "30" };
    let args = args(&["--scenario", scenario, "--turn-grace", grace]);
    let bench = Bench::new(args, vec![url], Vec::new(), &gateway, None);
    run_all(&bench).await
}

async fn run_all(bench: &Bench) -> Vec<ScenarioOutcome> {
    let mut outcomes = Vec::new();
    for scenario in bench.args.chosen_scenarios() {
        outcomes.extend(scenarios::run(bench, scenario).await);
    }
    outcomes
}

/// Asserts that there are errors, and that all of them are of this kind.
async fn finds(mischief: Mischief, scenario: &str, expected: &str) {
    let outcomes = measure(mischief, scenario).await;
    for outcome in outcomes {
        assert!(outcome.errors > 0, "{mischief:?} went unnoticed: {outcome:?}");
        for error in &outcome.first_errors {
            assert!(error.contains(expected), "{mischief:?} was taken for: {error}");
        }
    }
}

#[tokio::test]
async fn a_correct_server_passes_every_scenario() {
    let names = Scenario::value_variants().iter().map(|scenario| scenario.to_possible_value());
    for name in names.flatten() {
        let outcomes = measure(Mischief::None, name.get_name()).await;
        // The fake server has no owners, so there are no refusals to tell apart by time.
        assert_eq!(outcomes.is_empty(), name.get_name() == "not-yours", "{}", name.get_name());
        for outcome in outcomes {
            assert_eq!(outcome.errors, 0, "{outcome:?}");
            assert!(outcome.count > 0, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn paced_turns_have_all_their_figures() {
    let outcomes = measure(Mischief::None, "paced").await;
    let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.scenario.as_str()).collect();
    assert_eq!(names, ["paced", "paced-saturated"]);
    let latencies: HashSet<&str> = outcomes[0].latencies.keys().copied().collect();
    let expected = ["accepted", "first token added", "token added", "turn overhead"];
    assert_eq!(latencies, HashSet::from(expected));
    assert_eq!(outcomes[0].latencies["token added"].count, outcomes[0].count * 12);
    assert!(outcomes[0].figures["tokens_per_s"] > 0.0);
    assert!(outcomes[0].figures["tokens_per_frame"] >= 1.0);
}

#[tokio::test]
async fn wrong_tokens_are_found() {
    finds(Mischief::DoubleToken, "flat-out", "repeated token: expected 6, got 5").await;
    finds(Mischief::LoseToken, "flat-out", "missing token: expected 5, got 6").await;
    finds(Mischief::LoseLastToken, "flat-out", "the turn ended after 11 of 12 tokens").await;
    let swapped = measure(Mischief::SwapTokens, "flat-out").await;
    assert!(swapped[0].first_errors[0].contains("missing token: expected 5, got 6"));
    assert!(swapped[0].first_errors[1].contains("repeated token: expected 7, got 5"));
}

#[tokio::test]
async fn wrong_endings_are_found() {
    finds(Mischief::NoTerminal, "flat-out", "missing terminal frame").await;
    finds(Mischief::DoubleTerminal, "flat-out", "eventual_response after the terminal").await;
    finds(Mischief::LateAccept, "flat-out", "stream_token before the 202").await;
    finds(Mischief::OtherReply, "flat-out", "the final text is not the streamed text").await;
    finds(Mischief::FailTurn, "flat-out", "AGENT_ERROR: it did not work").await;
    finds(Mischief::HangUp, "flat-out", "connection closed").await;
}

#[tokio::test]
async fn a_server_without_a_model_call_is_found() {
    finds(Mischief::NoModel, "flat-out", "no model call").await;
}

#[tokio::test]
async fn a_short_page_is_found() {
    let outcomes = measure(Mischief::ShortHistory, "history").await;
    assert!(outcomes[0].first_errors[0].contains("49 messages instead of 50"));
}

#[tokio::test]
async fn frames_dropped_for_a_slow_reader_are_found() {
    let outcomes = measure(Mischief::LoseToken, "slow-reader").await;
    let full = outcomes.last().unwrap();
    assert!(full.first_errors.iter().any(|error| error.contains("missing token")));
}

#[tokio::test]
async fn no_server_is_an_error_of_each_scenario() {
    let gateway = FakeGateway::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = "ws://127.0.0.1:1/ws".to_owned();
    let bench = Bench::new(args(&[]), vec![url], Vec::new(), &gateway, None);
    let outcomes = run_all(&bench).await;
    assert!(outcomes.len() >= bench.args.chosen_scenarios().len());
    assert!(outcomes.iter().all(|outcome| outcome.errors == 1));
}

#[tokio::test]
async fn a_run_writes_its_report_and_fails_on_errors() {
    for (mischief, is_right) in [(Mischief::None, true), (Mischief::DoubleToken, false)] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = fake_server::start(port, mischief).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        let (port, own) = (port.to_string(), format!("self={}", std::process::id()));
        let more = [
            "--url",
            &url,
            "--gateway-listen",
            &port,
            "--json",
            file.to_str().unwrap(),
            "--pid",
            &own,
            "--scenario",
            "paced",
            "--scenario",
            "ping",
        ];
        let result = super::run(args(&more)).await;
        assert_eq!(result.is_ok(), is_right, "{result:?}");
        let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(report["errors"] == 0, is_right);
        assert_eq!(report["scenarios"][0]["scenario"], "ping");
        let paced = &report["scenarios"][1];
        assert!(paced["figures"]["cpu_us_per_token"].is_number());
        assert!(paced["processes"][0]["rss_after_kib"].as_u64().unwrap() > 0);
        assert!(paced["latencies"]["token added"]["p99_ms"].is_number());
    }
}

#[tokio::test]
async fn two_servers_are_measured_in_turn_and_checked_against_a_baseline() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = fake_server::start(port, Mischief::None).await;
    let second = fake_server::start(port, Mischief::None).await;
    let folder = tempfile::tempdir().unwrap();
    let (report, baseline) = (folder.path().join("report.json"), folder.path().join("baseline.json"));
    let (of, to) = ("paced: token added p50 ms", "ping: pong p50 ms");
    // A ratio that no server can have, so that the first check fails and the one after `--renew` passes.
    let ratio = json!({"of": of, "to": to, "was": 1e-9, "growth": 1000});
    std::fs::write(&baseline, json!({"measured": "never", "ratios": [ratio]}).to_string()).unwrap();
    let port = port.to_string();
    let scenarios = ["--scenario", "paced", "--scenario", "ping", "--rounds", "2"];
    let common = ["--url", &first, "--gateway-listen", &port, "--check", baseline.to_str().unwrap()];

    let compared = ["--against", &second, "--json", report.to_str().unwrap()];
    let error = super::run(args(&[&scenarios[..], &common, &compared].concat())).await.unwrap_err();
    assert!(error.to_string().contains("1 ratios are worse"), "{error}");
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["scenarios"].as_array().unwrap().len(), 2 * 3, "two rounds of ping, paced, paced-saturated");
    assert_eq!(report["against"].as_array().unwrap().len(), 2 * 3);
    assert_eq!(report["comparison"]["rounds"], 2);
    let figures = report["comparison"]["figures"].as_array().unwrap();
    let token = figures.iter().find(|figure| figure["name"] == of).expect("the comparison has the tokens' time");
    assert!(token["ratio"].as_f64().unwrap() > 0.0);

    super::run(args(&[&scenarios[..], &common, &["--renew"]].concat())).await.unwrap();
    super::run(args(&[&scenarios[..], &common].concat())).await.unwrap();
}

#[tokio::test]
async fn the_gateway_answers_requests_that_are_no_turn() {
    let gateway = FakeGateway::start("127.0.0.1:0".parse().unwrap()).unwrap();
    let ask_at = async |path: &str, body: Value| {
        let mut answer = fake_server::post(gateway.address, path, &body).await;
        let mut text = String::new();
        while let Some(line) = answer.next_line().await.unwrap() {
            text = text + &line + "\n";
        }
        text
    };
    let ask = async |body| ask_at("/v1/chat/completions", body).await;
    let user = json!([{"role": "user", "content": "What is this about?"}]);
    let whole = ask(json!({"messages": user})).await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.contains(r#""content":"ok""#));
    let streamed = ask(json!({"messages": user, "stream": true})).await;
    assert!(streamed.contains(" t0:") && streamed.contains("data: [DONE]"));
    assert!(!streamed.contains("usage"));
    assert!(ask(json!({"messages": 7})).await.starts_with("HTTP/1.1 400"));
    assert!(ask_at("/v1/embeddings", json!({})).await.starts_with("HTTP/1.1 404"));
}

#[test]
fn wrong_arguments_are_refused() {
    let refused = |more: &[&str]| Cli::try_parse_from(SMALL.iter().chain(more)).is_err();
    assert!(refused(&["--pid", "7"]));
    assert!(refused(&["--pid", "=7"]));
    assert!(refused(&["--scenario", "marathon"]));
    assert!(refused(&["--url", "ws://h/ws", "--spawn"]));
    let none = Cli::try_parse_from(["bench", "--streams", "0"]);
    assert!(none.is_err());
}
