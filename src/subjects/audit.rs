//! The stream AUDIT: signed checkpoints, and the ledger of holds and erasures.

/// The kind of a ledger entry about a conversation's privacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    HoldPlaced,
    HoldLifted,
    EraseRequested,
    EraseCompleted,
}

impl Privacy {
    pub const ALL: [(Privacy, &'static str); 4] = [
        (Self::HoldPlaced, "hold_placed"),
        (Self::HoldLifted, "hold_lifted"),
        (Self::EraseRequested, "erase_requested"),
        (Self::EraseCompleted, "erase_completed"),
    ];
}

/// `audit.{region}.checkpoint`: a part of a signed checkpoint. Publisher: `turnstream audit seal`. Readers: auditors. Stream:
/// AUDIT, kept without limit.
pub fn audit_checkpoint(region: &str) -> String {
    format!("audit.{region}.checkpoint")
}

/// `audit.{region}.privacy.{what}`: a hold was placed or lifted, an erasure was requested or completed. Publisher: the
/// process that does it. Readers: auditors. Stream: AUDIT.
pub fn audit_privacy(region: &str, what: Privacy) -> String {
    let name = Privacy::ALL.iter().find(|(known, _)| *known == what).map_or("", |(_, name)| name);
    format!("audit.{region}.privacy.{name}")
}

/// `audit.{region}.privacy.*`: all ledger entries.
pub fn audit_privacy_all(region: &str) -> String {
    format!("audit.{region}.privacy.*")
}

/// Parses the kind from a subject of [`audit_privacy`].
pub fn parse_audit_privacy(subject: &str) -> Option<Privacy> {
    let (region, name) = subject.strip_prefix("audit.")?.split_once(".privacy.")?;
    let known = Privacy::ALL.iter().find(|(_, known)| *known == name);
    known.map(|(what, _)| *what).filter(|_| !region.contains('.'))
}
