//! A memory budget for messages that are being received, shared by the connections of a process.
//!
//! Bytes are taken as they arrive, never for an announced length. So that uploads can't deadlock, the oldest one always
//! finds room for the largest message: the others leave that much free.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

pub struct MemoryBudget {
    /// Room that only the oldest message may use: the largest message fits.
    kept: usize,
    state: Mutex<BudgetState>,
}

struct BudgetState {
    free: usize,
    /// Messages that are being received, oldest first.
    coming: Vec<u64>,
    next: u64,
    waiting: Vec<Waker>,
}

/// The part of the budget that one message has taken, returned on drop.
pub struct BudgetShare {
    budget: Arc<MemoryBudget>,
    id: u64,
    taken: usize,
}

impl MemoryBudget {
    /// Makes a budget of `bytes`; `largest` is the size of the largest message.
    pub fn new(bytes: usize, largest: usize) -> Arc<Self> {
        assert!(bytes >= largest, "the largest message must fit");
        let state = BudgetState { free: bytes, coming: Vec::new(), next: 0, waiting: Vec::new() };
        Arc::new(Self { kept: largest, state: Mutex::new(state) })
    }

    /// Opens an empty share for a new message.
    pub fn share(self: &Arc<Self>) -> BudgetShare {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.coming.push(id);
        BudgetShare { budget: self.clone(), id, taken: 0 }
    }

    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().expect("no panic happens under this lock")
    }
}

impl BudgetShare {
    /// Takes bytes until the share holds `bytes` of them, or waits for room.
    pub fn poll_reach(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        let Some(more) = bytes.checked_sub(self.taken).filter(|more| *more > 0) else { return Poll::Ready(()) };
        let mut state = self.budget.lock();
        let kept = if state.coming.first() == Some(&self.id) { 0 } else { self.budget.kept };
        if state.free < more + kept {
            state.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        state.free -= more;
        self.taken += more;
        Poll::Ready(())
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.free += self.taken;
        state.coming.retain(|id| *id != self.id);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(share: &mut BudgetShare, bytes: usize) -> bool {
        share.poll_reach(bytes, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn announced_bytes_take_no_budget() {
        let budget = MemoryBudget::new(40, 10);
        let mut idle: Vec<BudgetShare> = (0..100).map(|_| budget.share()).collect();
        let mut busy = budget.share();
        assert!(takes(&mut busy, 10), "a hundred announced messages without a byte");
        assert_eq!(budget.free(), 30);
        assert!(takes(&mut busy, 10) && budget.free() == 30, "the announced bytes are taken only once");
        idle.clear();
        drop(busy);
        assert_eq!(budget.free(), 40);
    }

    #[test]
    fn the_oldest_message_always_gets_through() {
        let budget = MemoryBudget::new(40, 10);
        let mut shares: Vec<BudgetShare> = (0..8).map(|_| budget.share()).collect();
        // All messages arrive at the same pace, until most of them wait.
        for bytes in 1..=10 {
            for share in &mut shares {
                takes(share, bytes);
            }
        }
        let mut through = 0;
        while !shares.is_empty() {
            assert!(takes(&mut shares[0], 10), "the oldest of {} is stuck", shares.len());
            drop(shares.remove(0));
            through += 1;
        }
        assert_eq!((through, budget.free()), (8, 40));
    }
}
