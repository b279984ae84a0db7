//! Three servers, three replicas: each server is killed while clients talk, the leader of the log first.

use std::{sync::Arc, time::Instant};

use futures_util::future::join_all;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    chaos::{World, model, report::Report, visitor},
    support::{
        client::{Client, Speaks},
        cluster::Cluster,
        frames::answer_text,
        gateway::FakeGateway,
        log::Log,
        probe::Probe,
        provider::{Provider, Tool},
        stage::Product,
    },
};

const VISITORS: usize = 6;
const TURNS: usize = 6;

#[tokio::test]
async fn the_death_of_each_server_loses_no_data() {
    let (mut cluster, gateway) = tokio::join!(Cluster::start(), FakeGateway::start());
    let product = Product { nats_url: cluster.url(), gateway_url: gateway.base_url(), encrypts: true };
    product.apply_streams(&["--replicas", "3"]).await;
    let (a, b, _one, _two) = tokio::join!(product.edge(), product.edge(), product.worker(&[]), product.worker(&[]));
    let addresses = vec![a.address.clone(), b.address.clone()];
    let world = Arc::new(World::new(addresses, VISITORS));
    let of_model = world.clone();
    gateway.respond_with(move |request| Some(model::answer(&of_model, request)));
    let takes = std::time::Duration::from_millis(50);
    let tools = vec![
        Tool { name: "lookup", metadata: &[("idempotent", "true")], takes },
        Tool { name: "charge", metadata: &[], takes },
        Tool { name: "refund", metadata: &[("confirm", "true")], takes },
    ];
    let provider = Provider::start(&cluster.url(), tools).await;

    let begun = Instant::now();
    let visits = (0..VISITORS).map(|n| visitor::visit(world.clone(), n, TURNS, StdRng::seed_from_u64(n as u64)));
    let death = async {
        // The leader first, then each of the others, which may lead by then.
        let leader = cluster.leader_of("CHAT_local").await;
        let others = cluster.names().into_iter().filter(|name| *name != leader).collect::<Vec<_>>();
        for (n, name) in [vec![leader], others].concat().into_iter().enumerate() {
            gateway.wait_for_requests((n + 1) * VISITORS).await;
            cluster.wait_for_copies("CHAT_local", 3).await;
            cluster.kill(&name).await;
            cluster.leader_of("CHAT_local").await;
            cluster.restart(&name).await;
        }
    };
    let (turns, ()) = tokio::join!(join_all(visits), death);
    let turns: Vec<_> = turns.into_iter().flatten().collect();

    let client = cluster.client().await;
    // Every stream has as many replicas as before.
    cluster.wait_for_copies("CHAT_local", 3).await;
    let log = Log::read(&client).await;
    let report = Report::new(&turns, &[], &log, &provider, &world, begun.elapsed());
    println!("{}", report.table());
    assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
}

/// Streams in memory have one replica: without its server there is no replay, but nothing else is missing.
#[tokio::test]
async fn without_the_server_of_live_frames_everything_goes_on() {
    let (mut cluster, gateway) = tokio::join!(Cluster::start(), FakeGateway::start());
    let product = Product { nats_url: cluster.url(), gateway_url: gateway.base_url(), encrypts: true };
    product.apply_streams(&["--replicas", "3"]).await;
    let (mut edge, _worker) = tokio::join!(product.edge(), product.worker(&[]));
    let mut client = Client::connect(&edge.address, Speaks::Resume).await.unwrap();
    let session = client.open_session().await;
    let keeper = cluster.leader_of("LIVE_local").await;
    cluster.kill(&keeper).await;

    edge.process.line(|line| line.contains("a memory stream can't be checked")).await;
    Probe::connect(&edge.address).await.until(200).await;
    for id in ["r1", "r2"] {
        client.begin(&session, id, "hello").await;
        assert_eq!(answer_text(&client.turn(id).await), "ok");
    }
    let _another = product.worker(&[]).await;
}
