//! Processes with a clock that differs from the NATS server's.

use crate::support::{
    client::{Client, Speaks},
    frames::answer_text,
    log::Log,
    probe::Probe,
    skew,
    stage::Stage,
};

/// An edge and a worker on either side of the server's time: their events are stored in that time, and the edge reports
/// its offset.
#[tokio::test]
async fn a_wrong_clock_is_reported_and_loses_nothing() {
    let stage = Stage::start().await;
    for (of_edge, of_worker, said) in [(-20, 20, "20.0 s behind"), (20, -20, "20.0 s ahead of")] {
        let edge = stage.product.edge_with(&skew::by(of_edge)).await;
        let mut worker = stage.product.worker_with(&skew::by(of_worker)).await;
        Probe::connect(&edge.address).await.until_said(503, said).await;
        let mut client = Client::connect(&edge.address, Speaks::Standard).await.unwrap();
        let session = client.open_session().await;
        client.begin(&session, "r1", "hello").await;
        assert_eq!(answer_text(&client.turn("r1").await), "ok");
        worker.kill().await;
    }
    assert_eq!(Log::read(&stage.nats.client().await).await.count("turn.completed"), 2);
}

/// An offset below the bound leaves a process ready.
#[tokio::test]
async fn a_clock_that_is_a_little_off_is_ready() {
    let stage = Stage::start().await;
    let edge = stage.product.edge_with(&skew::by(-2)).await;
    assert_eq!(Probe::connect(&edge.address).await.ask().await, (200, "ready".into()));
}
