//! The worlds that are explored: the actions of people, the replies of the model, the faults and their number.

use crate::{
    coverage::*,
    model::World,
    people::Deed::{Approve, Cancel, Decline, Open, Send, Supersede},
    state::Faults,
    words::Reply,
};

const NO_FAULTS: Faults = Faults { crashes: 0, hand_overs: 0, pauses: 0, delays: 0, hours: 0, echoes: 0 };

/// Workers lose their turn to each other, around tools that must not be called twice, over a network that loses acks.
pub fn takeovers() -> World {
    World {
        name: "takeovers",
        deeds: &[Send(0)],
        replies: &[Reply::Answer, Reply::Once],
        max_model_calls: 2,
        faults: Faults { crashes: 1, pauses: 1, delays: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED_AFTER_TOOLS, TAKEN_OVER, UNKNOWN],
    }
}

/// Workers give turns back, also turns that they have lost, while another session is opened on the conversation.
pub fn hand_overs() -> World {
    World {
        name: "hand-overs",
        deeds: &[Send(0), Open],
        replies: &[Reply::Answer, Reply::Once],
        max_model_calls: 1,
        faults: Faults { hand_overs: 2, pauses: 2, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED_AFTER_TOOLS, TAKEN_OVER, UNKNOWN, GIVEN_BACK],
    }
}

/// Workers are lost around gated tools, two in one reply or one beside a free one.
pub fn approvals() -> World {
    World {
        name: "approvals",
        deeds: &[Send(0), Approve],
        replies: &[Reply::Answer, Reply::TwoGated, Reply::Both],
        max_model_calls: 1,
        faults: Faults { crashes: 1, pauses: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED_AFTER_TOOLS, APPROVED, EXPIRED, PARKED_TWICE, WAITS],
    }
}

/// Two people and the deadline decide against each other; the deadline also fires after it was settled.
pub fn decisions() -> World {
    World {
        name: "decisions",
        deeds: &[Send(0), Approve, Decline],
        replies: &[Reply::Answer, Reply::TwoGated],
        max_model_calls: 1,
        faults: Faults { crashes: 1, echoes: 1, ..NO_FAULTS },
        window: true,
        sights: &[APPROVED, DECLINED, EXPIRED, PARKED_TWICE, WAITS],
    }
}

/// A turn is cancelled in every phase, also while its person decides and while its worker is lost.
pub fn cancels() -> World {
    World {
        name: "cancels",
        deeds: &[Send(0), Cancel, Approve],
        replies: &[Reply::Answer, Reply::Once, Reply::Gated],
        max_model_calls: 1,
        faults: Faults { crashes: 1, pauses: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED, APPROVED, CANCELLED_PARKED, CANCELLED_AT_TOOLS],
    }
}

/// A turn that waits gives way to a new message, while its person decides, its deadline comes or its worker is lost.
pub fn supersessions() -> World {
    World {
        name: "supersessions",
        deeds: &[Send(0), Supersede, Approve, Send(1)],
        replies: &[Reply::Answer, Reply::Gated],
        max_model_calls: 1,
        faults: Faults { crashes: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED, APPROVED, SUPERSEDED],
    }
}

/// Turns follow each other, are stopped, and their workers are slow.
pub fn successions() -> World {
    World {
        name: "successions",
        deeds: &[Send(0), Send(1), Cancel],
        replies: &[Reply::Answer, Reply::Once],
        max_model_calls: 1,
        faults: Faults { pauses: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED, CANCELLED_AT_TOOLS, BOTH_ACCEPTED],
    }
}

/// Requests and their retries race on both edges, over a network that holds them up past their time.
pub fn requests() -> World {
    World {
        name: "requests",
        deeds: &[Send(0), Send(0), Send(1)],
        replies: &[Reply::Answer],
        max_model_calls: 1,
        faults: Faults { delays: 2, hours: 1, ..NO_FAULTS },
        window: true,
        sights: &[ANSWERED, VOID, BOTH_ACCEPTED],
    }
}

/// The same after the log has forgotten the ids of events.
pub fn late_requests() -> World {
    let faults = Faults { delays: 1, hours: 1, ..NO_FAULTS };
    World { name: "requests after the dedupe window", faults, window: false, ..requests() }
}

/// A turn kills every worker that takes it.
pub fn poison() -> World {
    World {
        name: "poison",
        deeds: &[Send(0)],
        replies: &[Reply::Once],
        max_model_calls: 2,
        faults: Faults { crashes: 6, ..NO_FAULTS },
        window: true,
        sights: &[GIVEN_UP],
    }
}
