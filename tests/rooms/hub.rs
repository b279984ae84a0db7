//! Live subscriptions that connections share: one per conversation, and none left over.

use std::time::Duration;

use async_nats::{HeaderMap, Request, client::RequestErrorKind};
use futures_util::future::join_all;
use tokio::time::timeout;
use turnstream::{
    live::hub::Hub,
    subjects::{self, ConversationKey},
    wire::live::{FrameMark, HEADER, LiveKind},
};

use crate::support::{WAIT_MAX, samples::*, server::Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_watch_at_the_same_instant_share_one_subscription() {
    const CONNECTIONS: usize = 16;
    let server = Server::start().await;
    // An edge has the same two connections: the hub's own and a worker's.
    let (hub, worker) = (Hub::new(server.client.clone()), server.another_client().await);
    for round in 0..20 {
        // No stream captures this region's frames, since a stream would answer the request below.
        let key = ConversationKey { region: "elsewhere".into(), ..new_key("acme") };
        let subject = subjects::live(&key.region, key.conversation, id(3));
        let mut ends: Vec<_> = (0..CONNECTIONS).map(|_| hub.listener()).collect();
        let watches = ends.iter().map(|(listener, _)| {
            let (hub, key, listener) = (hub.clone(), key.clone(), listener.clone());
            tokio::spawn(async move { hub.watch(&key, &listener).await.unwrap() })
        });
        join_all(watches).await.into_iter().for_each(Result::unwrap);
        assert_eq!(hub.subscriptions(), 1, "round {round}");
        server.knows(&server.client).await;
        for n in 0..2 {
            let mark = FrameMark {
                turn: id(10),
                epoch: 1,
                n,
                kind: LiveKind::Chunk,
                call: 0,
                offset: 0,
                length: 0,
                chunks: 0,
            };
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, mark.to_string());
            worker.publish_with_headers(subject.clone(), headers, "{}".into()).await.unwrap();
        }
        for (_, queue) in &mut ends {
            for n in 0..2 {
                let frame = timeout(WAIT_MAX, queue.next()).await.expect("a frame in time").unwrap();
                assert_eq!(frame.mark.n, n, "each frame once");
            }
        }
        for (listener, queue) in &mut ends {
            assert!(queue.try_next().is_none());
            hub.unwatch(key.conversation, listener);
        }
        assert_eq!(hub.subscriptions(), 0);
        // Unsubscribing is a message of its own; the server answers "no responders" once no subscription is left.
        let began = std::time::Instant::now();
        loop {
            let asked = Request::new().timeout(Some(Duration::from_millis(200)));
            let nobody = worker.send_request(subject.clone(), asked).await.unwrap_err();
            if nobody.kind() == RequestErrorKind::NoResponders {
                break;
            }
            assert!(began.elapsed() < WAIT_MAX, "a subscription is leaked");
        }
    }
}
