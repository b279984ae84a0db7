//! The stream AUDIT: signed checkpoints, and the ledger of holds and erasures.

/// The kind of a ledger entry about a conversation's privacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivacySubject {
    HoldPlaced,
    HoldLifted,
    EraseRequested,
    EraseCompleted,
}

impl PrivacySubject {
    pub const ALL: [(PrivacySubject, &'static str); 4] = [
        (Self::HoldPlaced, "hold_placed"),
        (Self::HoldLifted, "hold_lifted"),
        (Self::EraseRequested, "erase_requested"),
        (Self::EraseCompleted, "erase_completed"),
    ];
}

/// `audit.{region}.checkpoint`: a part of a signed checkpoint. Publisher: `turnstream audit checkpoint`. Readers: auditors. Stream:
/// AUDIT, kept without limit.
pub fn audit_checkpoint(region: &str) -> String {
    format!("audit.{region}.checkpoint")
}

/// `audit.{region}.privacy.{what}`: a hold was placed or lifted, an erasure was requested or completed. Publisher: the
/// process that does it. Readers: auditors. Stream: AUDIT.
pub fn audit_privacy(region: &str, what: PrivacySubject) -> String {
    let name = PrivacySubject::ALL.iter().find(|(known, _)| *known == what).map_or("", |(_, name)| name);
    format!("audit.{region}.privacy.{name}")
}

/// `audit.{region}.privacy.*`: all ledger entries.
pub fn audit_privacy_all(region: &str) -> String {
    format!("audit.{region}.privacy.*")
}

/// Parses the kind from a subject of [`audit_privacy`].
pub fn parse_audit_privacy(subject: &str) -> Option<PrivacySubject> {
    let (region, name) = subject.strip_prefix("audit.")?.split_once(".privacy.")?;
    let known = PrivacySubject::ALL.iter().find(|(_, known)| *known == name);
    known.map(|(what, _)| *what).filter(|_| !region.contains('.'))
}
