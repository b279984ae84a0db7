//! Faults put into the model on purpose: each must break the invariants that its test names.

/// A fault of the product's logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The log stores an event regardless of its expected sequence.
    ExpectedIgnored,
    /// A worker acks its item when it has claimed it.
    AckFirst,
    /// A worker that lost its turn acks the item.
    FencedAcks,
    /// A confirm that lost a race binds to the park that is pending then.
    ConfirmRebinds,
    /// A call with an intent and no result is made again, idempotent or not.
    CalledAgain,
    /// A worker appends its results without a check that the turn is still its own.
    ClaimUnchecked,
    /// A worker that finds the turn parked by another one acks the item, as if the deadline were set.
    ParkTaken,
    /// Confirms and cancels act on a copy of the log that may be behind.
    StalePeople,
    /// After a lost ack, a writer takes an event with its id for its own, although another edge appended that one.
    TwinTaken,
    /// A writer folds its own request with its own clock, however late.
    OwnClock,
}
