//! Faults that need a client in the right place, whose answers are checked, too.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::breaker::{Breaker, NAP};
use crate::support::{
    WAIT_MAX,
    client::{Client, Speaks, message_action},
    frames::{code, kind},
};

/// The number of turns that wait while no worker takes any.
const QUEUED: usize = 48;
/// The pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

impl Breaker {
    /// Erases a person while an edge that holds their conversation in memory is cut off: it learns of the erasure
    /// afterwards.
    pub async fn erase_while_cut(&mut self, victim: usize) {
        let address = self.edges[victim].edge.address.clone();
        let number = self.world.queued.lock().unwrap().len() + self.world.model_calls.lock().unwrap().len();
        let (email, secret) = (format!("erased-{number}@example.org"), format!("erased-{number} nothing"));
        let opening = json!({"action": "create_conversation_session", "userEmail": email});
        let session = session_of(&insist(&address, &opening).await);
        insist(&address, &message_action(&session, "r0", &secret)).await;
        let history = json!({"action": "get_conversation_messages", "sessionId": session});
        insist_until(&address, &history, is_answered).await;

        self.edges[victim].link.leave();
        let erase = ["erase", "--user", &email, "--reason", "a fault of the run"];
        let mut erasing = self.product.run("erase", &erase, &[]);
        let erased = erasing.ended().await.success();
        sleep(NAP).await;
        self.edges[victim].link.back();
        if !erased {
            return self.world.object(format!("{email} was not erased: {}", erasing.output()));
        }
        // An edge that can't answer proves nothing.
        let is_answer = |history: &Value| history["status"] == 200 || code(history).ends_with("_NOT_FOUND");
        let gone = |history: &Value| is_answer(history) && !history.to_string().contains(&secret);
        if timeout(WAIT_MAX, insist_until(&address, &history, gone)).await.is_err() {
            self.world.object(format!("{address} still shows {secret}, which was erased"));
        }
    }

    /// Stalls an approval, which is answered with an error, for it did not get to the log in time; its person then
    /// refuses.
    ///
    /// The tool is not called, also when the approval gets to the log later.
    pub async fn stall_a_decision(&mut self, victim: usize) {
        let address = self.edges[victim].edge.address.clone();
        let session = session_of(&insist(&address, &json!({"action": "create_conversation_session"})).await);
        let mut client = Client::connect(&address, Speaks::Resume).await.expect("the edge is there");
        while client.request(message_action(&session, "r0", "stalled refund")).await.expect("a connection")["status"]
            != 202
        {
            sleep(AGAIN).await;
        }
        client.turn_until("r0", "write_confirmation_required").await;
        self.edges[victim].link.hold_requests_from("turn.resumed");
        let answer = client.confirm(&session, true).await.expect("the connection lasts");
        self.edges[victim].link.let_go();
        if code(&answer) != "STORAGE_ERROR" {
            self.world.object(format!("an approval that did not get to the log was answered with {answer}"));
        }
        sleep(NAP).await;
        loop {
            let answer = client.confirm(&session, false).await.expect("the connection lasts");
            match (kind(&answer), code(&answer)) {
                (_, "STORAGE_ERROR") => sleep(AGAIN).await,
                ("error", _) => {
                    return self.world.object(format!("{session}: a refused approval was carried out: {answer}"));
                }
                _ => break,
            }
        }
        client.turn("r0").await;
        self.world.queued.lock().unwrap().push((session, "r0".into()));
    }

    /// Kills a server under a queue from which no worker takes an item. The clients do not wait.
    pub async fn fill_the_queue(&mut self, victim: usize, choice: usize) {
        let address = self.edges[victim].edge.address.clone();
        self.workers.iter().for_each(|worker| worker.process.signal(libc::SIGSTOP));
        let turns = (0..QUEUED).map(|n| {
            let address = &address;
            async move {
                let session = session_of(&insist(address, &json!({"action": "create_conversation_session"})).await);
                let request_id = format!("q{n}");
                insist(address, &message_action(&session, &request_id, &format!("queued-{n} nothing"))).await;
                (session, request_id)
            }
        });
        let turns = join_all(turns).await;
        self.ground.kill_one(choice).await;
        self.workers.iter().for_each(|worker| worker.process.signal(libc::SIGCONT));
        for (session, _) in &turns {
            let history = json!({"action": "get_conversation_messages", "sessionId": session});
            insist_until(&address, &history, is_answered).await;
        }
        self.world.queued.lock().unwrap().extend(turns);
    }
}

fn session_of(created: &Value) -> String {
    created["data"]["sessionId"].as_str().expect("a session has an id").to_owned()
}

/// Returns whether a history holds a question and its answer.
fn is_answered(history: &Value) -> bool {
    history["data"]["messages"].as_array().is_some_and(|messages| messages.len() == 2)
}

/// Asks, over new connections, until the answer is no error of storage.
async fn insist(address: &str, action: &Value) -> Value {
    insist_until(address, action, |_| true).await
}

/// Asks, over new connections, until the answer is of this kind.
async fn insist_until(address: &str, action: &Value, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = None;
    let asked = async {
        loop {
            if let Ok(mut client) = Client::connect(address, Speaks::Standard).await
                && let Ok(answer) = client.request(action.clone()).await
            {
                if code(&answer) != "STORAGE_ERROR" && fits(&answer) {
                    return answer;
                }
                last = Some(answer);
            }
            sleep(AGAIN).await;
        }
    };
    match timeout(WAIT_MAX, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{address} answers {action} with {last:?}"),
    }
}
