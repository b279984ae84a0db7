//! Applying stream definitions again, and with changes.

use async_nats::jetstream;
use chrono::{TimeDelta, Utc};
use turnstream::nats::streams::{self, StreamDrift};

use crate::support::{samples::*, server::Server};

#[tokio::test]
async fn a_recreated_consumer_skips_ended_turns() {
    let server = Server::start().await;
    let context = jetstream::new(server.client.clone());
    let item = new_key("org").work_item("turn.requested", POOL);
    context.publish(item, "".into()).await.unwrap().await.unwrap();
    let definitions = streams::definitions(REGION, None);
    let definition = definitions.iter().find(|definition| definition.title() == "CHAT_local > default").unwrap();
    let stream = context.get_stream("CHAT_local").await.unwrap();
    for (since, items) in [(Utc::now() + TimeDelta::seconds(1), 0), (Utc::now() - TimeDelta::hours(1), 1)] {
        stream.delete_consumer("default").await.unwrap();
        assert_eq!(definition.apply(&server.client, since).await.unwrap(), [StreamDrift::Missing]);
        assert_eq!(definition.differences(&server.client).await.unwrap(), []);
        assert_eq!(stream.consumer_info("default").await.unwrap().num_pending, items);
    }
    // An update does not move the consumer's start.
    let mut changed = definition.clone();
    changed.config.insert("max_ack_pending".into(), 5.into());
    assert_eq!(changed.apply(&server.client, Utc::now()).await.unwrap().len(), 1);
    assert_eq!(stream.consumer_info("default").await.unwrap().num_pending, 1);
}
