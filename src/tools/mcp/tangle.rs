//! The calls on a server's shared connection, and its questions there.
//!
//! Before revision 2026-07-28 a server asks with a request that names no call. With one call at a time it would be clear which
//! visitor is meant; with several, a question could reach another call's visitor. So on a shared connection no visitor is asked:
//! calls that bear repetition are given up and made again, each on a connection of its own, and the question is declined for those
//! that don't. From then on the server is known to ask.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::limits;

/// See the module.
#[derive(Default)]
pub struct SharedQuestions {
    questions: watch::Sender<u64>,
    /// Calls that are given up at a question.
    running: watch::Sender<usize>,
    declined: AtomicU64,
}

/// A call that is given up at a question, while it runs.
pub struct RunningCall<'a>(&'a SharedQuestions);

impl SharedQuestions {
    /// Whether the server has ever asked something here.
    pub fn asks(&self) -> bool {
        *self.questions.borrow() > 0
    }

    /// How many questions were declined so far.
    pub fn declined(&self) -> u64 {
        self.declined.load(Ordering::SeqCst)
    }

    /// Takes a question, and returns when it may be declined: calls that bear repetition must not be told so.
    pub async fn asked(&self) {
        self.declined.fetch_add(1, Ordering::SeqCst);
        self.questions.send_modify(|count| *count += 1);
        let mut running = self.running.subscribe();
        let none_runs = running.wait_for(|running| *running == 0);
        if timeout(Duration::from_millis(limits::MCP_UNTANGLE_MS), none_runs).await.is_err() {
            tracing::debug!("calls of an MCP server that asks are slow to be given up");
        }
    }

    /// Counts a call until the returned guard is dropped.
    pub fn enter(&self) -> RunningCall<'_> {
        self.running.send_modify(|running| *running += 1);
        RunningCall(self)
    }

    /// Returns as soon as the server has ever asked something.
    pub async fn untangled(&self) {
        let mut questions = self.questions.subscribe();
        if questions.wait_for(|count| *count > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}
