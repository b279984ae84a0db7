//! not-yours: one client asks for another user's session and for a missing one, in turn, many times.
//!
//! Contract: every answer is the same refusal, so only the time could tell one from the other. The figure is the share of pairs that
//! a guess by the time gets right; 50 % is a coin. There is no outcome for a server that signs tokens with an unknown secret, or
//! that shows every conversation to every user.

use std::time::Duration;

use uuid::Uuid;

use crate::bench::{
    Bench,
    client::BenchClient,
    clock::now_ns,
    fault::{Fault, FaultLog},
    outcome::{Samples, ScenarioOutcome},
    procs,
    progress::ProgressLine,
    wire::{BenchAction, SessionData},
};

/// The questions, with the names of their times: for another user's session, and for a missing one.
const QUESTIONS: [(&str, [&str; 2]); 3] = [
    ("get_session", ["session, another's", "session, missing"]),
    ("get_conversation_messages", ["messages, another's", "messages, missing"]),
    ("rename_conversation", ["rename, another's", "rename, missing"]),
];
/// Rounds before the measurement.
const WARM_UP: usize = 200;

/// Asks in one client's name until the time is up.
pub async fn run(bench: &Bench) -> anyhow::Result<Vec<ScenarioOutcome>> {
    let failed = |fault: Fault| anyhow::anyhow!("{fault}");
    let mut owner = bench.connect_as(0).await.map_err(failed)?;
    let (others, _) = owner.create_session(&bench.agent).await.map_err(failed)?;
    let mut client = bench.connect_as(1).await.map_err(failed)?;
    if client.ask(BenchAction::GetSession { session_id: &others.session_id }).await.is_ok() {
        return Ok(vec![]);
    }
    for _ in 0..WARM_UP {
        round(&mut client, &others, false).await.map_err(failed)?;
    }
    let mut times: [[Vec<u64>; 2]; 3] = Default::default();
    let _progress = ProgressLine::start("not-yours", bench.args.seconds);
    let until_ns = now_ns() + u64::try_from(Duration::from_secs_f64(bench.args.seconds).as_nanos()).unwrap_or(u64::MAX);
    let (window, mut faults) = (procs::MeasureWindow::open(&bench.watched), FaultLog::default());
    for odd in [false, true].into_iter().cycle() {
        if now_ns() >= until_ns {
            break;
        }
        match round(&mut client, &others, odd).await {
            Ok(took) => {
                for (kept, took) in times.iter_mut().flatten().zip(took.as_flattened()) {
                    kept.push(*took);
                }
            }
            Err(fault) => {
                faults.add(&fault);
                if fault.ends_connection() {
                    break;
                }
            }
        }
    }
    let mut outcome = ScenarioOutcome::new("not-yours");
    outcome.window(window.close(), times.iter().flatten().map(|times| times.len() as u64).sum());
    for ((action, names), times) in QUESTIONS.iter().zip(&times) {
        for (name, times) in names.iter().zip(times) {
            let mut samples = Samples::new();
            times.iter().for_each(|ns| samples.add_ns(*ns));
            outcome.latency(name, &samples);
        }
        outcome.figure(&format!("{action} told apart, %"), told_apart(times) * 100.0);
    }
    faults.merge(client.close().await);
    faults.merge(owner.close().await);
    outcome.faults(faults);
    Ok(vec![outcome])
}

/// Asks each question about both; the order changes, so that neither gains by its position.
async fn round(client: &mut BenchClient, others: &SessionData, nobody_first: bool) -> Result<[[u64; 2]; 3], Fault> {
    let nobody = SessionData {
        session_id: of_a_missing_one(&others.session_id),
        conversation_id: of_a_missing_one(&others.conversation_id),
    };
    let mut took = [[0; 2]; 3];
    for (question, took) in took.iter_mut().enumerate() {
        for n in 0..2 {
            let whose = n ^ usize::from(nobody_first);
            let SessionData { session_id, conversation_id } = [others, &nobody][whose];
            let action = match question {
                0 => BenchAction::GetSession { session_id },
                1 => BenchAction::GetConversationMessages { session_id, limit: 50 },
                _ => BenchAction::RenameConversation { conversation_id, title: "Mine" },
            };
            let asked_ns = now_ns();
            let answer = client.ask(action).await;
            took[whose] = now_ns() - asked_ns;
            match answer {
                Err(Fault::Refused { code, .. }) if code.ends_with("_NOT_FOUND") => {}
                Err(fault) => return Err(fault),
                Ok(_) => return Err(Fault::BadAnswer("a stranger was answered".to_owned())),
            }
        }
    }
    Ok(took)
}

/// Returns a missing id of the same form. Servers may route by the beginning of an id, so only the end differs.
fn of_a_missing_one(id: &str) -> String {
    let fresh = Uuid::new_v4().simple().to_string();
    let kept = id.len().saturating_sub(12);
    format!("{}{}", id.get(..kept).unwrap_or_default(), &fresh[..12])
}

/// Returns the share of pairs in which the same one of the two takes longer: from 0.5, a coin, to 1.
fn told_apart(times: &[Vec<u64>; 2]) -> f64 {
    let mut all: Vec<(u64, usize)> = Vec::new();
    for (whose, times) in times.iter().enumerate() {
        all.extend(times.iter().map(|ns| (*ns, whose)));
    }
    all.sort_unstable();
    let (mut seen, mut longer) = (0_u64, 0_u64);
    for (_, whose) in &all {
        match whose {
            0 => seen += 1,
            _ => longer += seen,
        }
    }
    let pairs = times[0].len() as f64 * times[1].len() as f64;
    let share = if pairs > 0.0 { longer as f64 / pairs } else { 0.5 };
    share.max(1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_response_times_are_told_apart() {
        assert_eq!(told_apart(&[vec![], vec![]]), 0.5);
        assert_eq!(told_apart(&[vec![1, 2, 3], vec![4, 5]]), 1.0);
        assert_eq!(told_apart(&[vec![4, 5], vec![1, 2, 3]]), 1.0);
        assert_eq!(told_apart(&[vec![1, 4], vec![2, 3]]), 0.5);
    }
}
