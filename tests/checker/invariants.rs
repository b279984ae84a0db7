//! The invariants of every state, by name.

use std::fmt;

/// Applies a macro to the names of all invariants.
macro_rules! for_every_invariant {
    ($apply:ident) => {
        $apply! {
            OneEnd,
            NothingAfterTheEnd,
            OneActive,
            OneChain,
            FencedAreSilent,
            FoldsAgree,
            OwnFold,
            CalledOnce,
            OwnApproval,
            DecisionsBind,
            ConfirmsCount,
            CancelsCount,
            AcksWait,
            TrueAccept,
            NothingLost,
        }
    };
}
pub(crate) use for_every_invariant;

macro_rules! define {
    ($($name:ident,)*) => {
        /// An invariant; its name is shown by a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Invariant {
            $($name,)*
        }

        pub const ALL: &[Invariant] = &[$(Invariant::$name,)*];
    };
}
for_every_invariant!(define);

use Invariant::*;

impl Invariant {
    pub const fn name(self) -> &'static str {
        match self {
            OneEnd => "a turn ends once",
            NothingAfterTheEnd => "nothing happens to a turn after its end",
            OneActive => "one turn of a conversation is active",
            OneChain => "each event names the one before it",
            FencedAreSilent => "a worker appends nothing after another's claim",
            FoldsAgree => "the fold of every prefix is legal, and folding on from a cached prefix is the same",
            OwnFold => "a writer's fold of its own event is the readers' fold",
            CalledOnce => "a tool that is not idempotent is called at most once per call",
            OwnApproval => "a gated tool is called only with the approval of its own prompt",
            DecisionsBind => "a decision settles no prompt but the one that its person saw",
            ConfirmsCount => "a decision is refused only when its prompt is settled",
            CancelsCount => "a cancel ends the turn that was active when it came",
            AcksWait => "an item is acked only when nothing depends on its coming again",
            TrueAccept => "a 202 is given only for a request that is in the log",
            NothingLost => "every request in the log ends, or waits for a person with its deadline set",
        }
    }
}

/// The invariants that a run has broken so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Broken(u16);

impl Broken {
    pub fn note(&mut self, invariant: Invariant) {
        self.0 |= 1 << invariant as u16;
    }

    pub fn has(self, invariant: Invariant) -> bool {
        self.0 & (1 << invariant as u16) != 0
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(ALL.iter().filter(|invariant| self.has(**invariant))).finish()
    }
}
