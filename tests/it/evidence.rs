//! The log as evidence: signed by checkpoints, exported, and verified offline, against every forgery.

mod fill;
mod forger;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tempfile::TempDir;
use turnstream::{
    evidence::{
        bundle::{self, VerifyOptions},
        verify::VerificationReport,
    },
    signing::PublicKey,
};

use crate::support::{Stage, processes::Process};
use fill::fill;
use forger::{DEEDS, Forger, Tracks};

/// Keys in a folder, as `turnstream audit keygen` makes them.
struct Keys {
    folder: TempDir,
}

impl Keys {
    async fn make(stage: &Stage) -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        done(stage.run("audit", &["audit", "keygen", &keys.private()], &[])).await;
        keys
    }

    fn private(&self) -> String {
        self.folder.path().join("key.pem").to_str().unwrap().into()
    }

    fn public(&self) -> String {
        self.private() + ".pub"
    }
}

/// Runs a command that must succeed; returns its output.
async fn done(process: Process) -> String {
    let (success, said) = ended(process).await;
    assert!(success, "{said}");
    said
}

async fn ended(mut process: Process) -> (bool, String) {
    (process.ended().await.success(), process.output())
}

fn audit(stage: &Stage, keys: &Keys, arguments: &[&str]) -> Process {
    let arguments = [&["audit"], arguments].concat();
    stage.run("audit", &arguments, &[("SMOOTH_AGENT_AUDIT_KEY_FILE", &keys.private()), ("RUST_LOG", "error")])
}

async fn sign(stage: &Stage, keys: &Keys) -> String {
    let said = done(audit(stage, keys, &["checkpoint", "--once"])).await;
    said.split_whitespace().nth(1).unwrap().to_owned()
}

/// Makes a region with some dozens of conversations and checkpoints in between.
///
/// Returns the last checkpoint's number and digest.
async fn signed_region(stage: &Stage, keys: &Keys) -> String {
    let mut noted = String::new();
    for round in 0..4 {
        fill(&stage.nats, 36, round, 2).await;
        noted = sign(stage, keys).await;
    }
    noted
}

/// Returns the files of a folder with their contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn verify(folder: &Path, demands: VerifyOptions) -> VerificationReport {
    match bundle::verify(folder, demands, |_, _| {}) {
        Ok(report) => report,
        Err(error) => {
            let mut report = VerificationReport::default();
            report.wrong(error.to_string());
            report
        }
    }
}

#[tokio::test]
async fn every_forgery_of_a_bundle_is_found_without_a_server() {
    let mut stage = Stage::start().await;
    let (keys, folder) = (Keys::make(&stage).await, tempfile::tempdir().unwrap());
    let noted = signed_region(&stage, &keys).await;
    let to = folder.path().join("bundle");
    let to = to.to_str().unwrap();
    done(audit(&stage, &keys, &["export", "--format", "bundle", "--to", to])).await;
    stage.nats.kill().await;

    let public = keys.public();
    let strict = ["--require-signed", "--whole", "--expect-checkpoint", &noted, "--at-least", "4"];
    let verify_it = [["verify", "--bundle", to, "--public-key", &public].as_slice(), &strict].concat();
    let said = done(audit(&stage, &keys, &verify_it)).await;
    assert!(said.contains("288 events of 36 conversations\n4 checkpoints"), "{said}");
    assert!(said.contains("the checkpoints cover them"), "{said}");
    let said = done(audit(&stage, &keys, &["verify", "--bundle", to, "--json"])).await;
    assert!(said.contains("the public key comes from the bundle itself"), "{said}");

    let demands = || VerifyOptions {
        keys: vec![PublicKey::read(Path::new(&public)).unwrap()],
        fully_signed: true,
        whole: true,
        noted: Some(noted.parse().unwrap()),
        ..VerifyOptions::default()
    };
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let forged = folder.path().join("forged");
    for n in 0..1_000 {
        let (name, deed) = DEEDS[n % DEEDS.len()];
        let mut forger = Forger::read(Path::new(to));
        let tracks = deed(&mut forger, &mut random);
        forger.write(&forged);
        let report = verify(&forged, demands());
        let first = report.first.as_ref().unwrap_or_else(|| panic!("forgery {n} of seed {seed}, {name}, is not found"));
        let told = format!("event {} on {}: {}", first.seq, first.subject, first.problem);
        match tracks {
            Tracks::Of(conversations) => {
                let named = conversations.iter().any(|conversation| told.contains(conversation));
                assert!(named, "forgery {n} of seed {seed}, {name}: {told}, not {conversations:?}");
            }
            Tracks::Somebody => assert!(told.contains(" on chat.local."), "forgery {n} of seed {seed}, {name}: {told}"),
            Tracks::Checkpoint => assert!(told.contains("checkpoint"), "forgery {n} of seed {seed}, {name}: {told}"),
            Tracks::File => {}
        }
        fs::remove_dir_all(&forged).unwrap();
    }
    let untouched = verify(Path::new(to), demands());
    assert_eq!(untouched.broken, 0, "{untouched}");
    let (passed, said) = ended(audit(&stage, &keys, &["verify", "--bundle", to, "--at-least", "5"])).await;
    assert!(!passed && said.contains("the newest are missing"), "{said}");
}

/// A bundle alone can't show that its end was cut off together with the checkpoints that cover it; a noted checkpoint can.
#[tokio::test]
async fn a_noted_checkpoint_reveals_a_truncated_bundle() {
    let stage = Stage::start().await;
    let (keys, folder) = (Keys::make(&stage).await, tempfile::tempdir().unwrap());
    let noted = signed_region(&stage, &keys).await;
    let (to, forged) = (folder.path().join("bundle"), folder.path().join("forged"));
    done(audit(&stage, &keys, &["export", "--format", "bundle", "--to", to.to_str().unwrap()])).await;
    let mut forger = Forger::read(&to);
    forger.forget_the_end();
    forger.write(&forged);
    let demands = || VerifyOptions {
        keys: vec![PublicKey::read(Path::new(&keys.public())).unwrap()],
        fully_signed: true,
        whole: true,
        ..VerifyOptions::default()
    };
    assert_eq!(verify(&forged, demands()).broken, 0);
    for demands in [
        VerifyOptions { noted: Some(noted.parse().unwrap()), ..demands() },
        VerifyOptions { at_least: Some(4), ..demands() },
    ] {
        let report = verify(&forged, demands);
        assert!(report.to_string().contains("the newest are missing"), "{report}");
    }
}

#[tokio::test]
async fn a_log_is_verified_against_checkpoints_and_their_keys() {
    let stage = Stage::start().await;
    let (keys, others) = (Keys::make(&stage).await, Keys::make(&stage).await);
    fill(&stage.nats, 5, 0, 4).await;
    // Two signers at once make one chain.
    let both = tokio::join!(
        // `seal` is the name of before.
        ended(audit(&stage, &keys, &["seal", "--once"])),
        ended(audit(&stage, &keys, &["checkpoint", "--once"]))
    );
    assert!(both.0.0 && both.1.0, "{both:?}");
    let said = done(audit(&stage, &keys, &["checkpoint", "--once"])).await;
    assert!(said.contains("no new events"), "{said}");
    let public = keys.public();
    let said = done(audit(&stage, &keys, &["verify", "--public-key", &public, "--whole", "--require-signed"])).await;
    assert!(said.contains("20 events of 5 conversations\n1 checkpoints, the last of"), "{said}");
    let (passed, said) = ended(audit(&stage, &keys, &["verify", "--public-key", &others.public()])).await;
    assert!(!passed && said.contains("checkpoint 1: signed with another key"), "{said}");

    // The long-running form signs new events, and ends on SIGTERM.
    let mut signer = audit(&stage, &others, &["checkpoint", "--every", "1s"]);
    signer.line(|line| line.starts_with("signing a checkpoint every")).await;
    let conversations = fill(&stage.nats, 5, 1, 2).await;
    signer.line(|line| line.contains("of 30 events of 5 conversations")).await;
    signer.signal(libc::SIGTERM);
    assert!(signer.ended().await.success());
    // After a change of keys both public keys are given.
    let both = ["verify", "--public-key", &public, "--public-key", &others.public(), "--require-signed"];
    done(audit(&stage, &keys, &both)).await;

    fill(&stage.nats, 5, 2, 1).await;
    let said = done(audit(&stage, &keys, &["verify", "--json"])).await;
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["events"], &report["unsealed"]), (&35.into(), &5.into()), "{said}");
    let (passed, said) = ended(audit(&stage, &keys, &["verify", "--require-signed"])).await;
    assert!(!passed && said.contains("5 events are not covered"), "{said}");
    let one = conversations[0].to_string();
    let said = done(audit(
        &stage,
        &keys,
        &["verify", "--conversation", &one, "--public-key", &public, "--public-key", &others.public()],
    ))
    .await;
    assert!(said.contains("7 events of 1 conversations"), "{said}");
}

#[tokio::test]
async fn a_partial_bundle_proves_its_content() {
    let stage = Stage::start().await;
    let (keys, folder) = (Keys::make(&stage).await, tempfile::tempdir().unwrap());
    let conversations = fill(&stage.nats, 24, 0, 5).await;
    sign(&stage, &keys).await;
    fill(&stage.nats, 24, 1, 1).await;
    let public = PublicKey::read(Path::new(&keys.public())).unwrap();
    let one = conversations[3].to_string();
    for (name, filter, events, of) in [("one", ["--conversation", &one], 6, 1), ("some", ["--org", "acme-1"], 72, 12)] {
        let to = folder.path().join(name);
        let export = ["export", "--format", "bundle", "--zstd", "--to", to.to_str().unwrap(), filter[0], filter[1]];
        // The export's own checkpoint covers the new events.
        done(audit(&stage, &keys, &export)).await;
        let demands = || VerifyOptions { keys: vec![public.clone()], fully_signed: true, ..VerifyOptions::default() };
        let report = verify(&to, demands());
        assert_eq!((report.broken, report.events, report.conversations), (0, events, of), "{report}");
        assert!(report.notes.iter().any(|note| note.contains("omissions")), "{report}");
        assert_eq!(verify(&to, VerifyOptions { whole: true, ..demands() }).broken, 1);

        let mut forger = Forger::read(&to);
        forger.edit_and_chain(0);
        forger.write(&folder.path().join("edited"));
        let report = verify(&folder.path().join("edited"), demands());
        assert!(report.first.is_some_and(|first| first.problem.contains("has another digest for event")));
        let mut forger = Forger::read(&to);
        forger.forge_proof();
        forger.write(&folder.path().join("led"));
        let report = verify(&folder.path().join("led"), demands());
        assert!(report.first.is_some_and(|first| first.problem.contains("does not lead to the last checkpoint")));
        let mut forger = Forger::read(&to);
        forger.drop_proof();
        forger.write(&folder.path().join("dropped"));
        let report = verify(&folder.path().join("dropped"), demands());
        assert!(report.first.is_some_and(|first| first.problem.contains("does not cover event")));
        for name in ["edited", "led", "dropped"] {
            fs::remove_dir_all(folder.path().join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_killed_export_resumes_and_an_old_one_is_extended() {
    let stage = Stage::start().await;
    let (keys, folder) = (Keys::make(&stage).await, tempfile::tempdir().unwrap());
    fill(&stage.nats, 40, 0, 25).await;
    sign(&stage, &keys).await;
    for format in ["ndjson", "cloudevents", "parquet", "bundle"] {
        let path = |name: &str| -> PathBuf { folder.path().join(format!("{format}-{name}")) };
        let (whole, killed) = (path("whole"), path("killed"));
        let export = |to: &Path| {
            let arguments = ["export", "--format", format, "--part-events", "10", "--to", to.to_str().unwrap()];
            audit(&stage, &keys, &arguments)
        };
        done(export(&whole)).await;
        let mut process = export(&killed);
        process.nth_line(3, |line| line.starts_with("events-")).await;
        process.kill().await;
        let parts = |folder: &Path| files(folder).keys().filter(|name| name.starts_with("events-")).count();
        assert!((4..100).contains(&parts(&killed)), "{}", parts(&killed));
        let said = done(export(&killed)).await;
        assert!(!said.contains("events-000001"), "an existing part is not written again: {said}");
        assert_eq!(files(&whole), files(&killed), "{format}");
        assert_eq!(parts(&whole), 100);
    }
    let before = files(&folder.path().join("bundle-whole"));
    fill(&stage.nats, 40, 1, 1).await;
    let to = folder.path().join("bundle-whole");
    let arguments = ["export", "--format", "bundle", "--part-events", "10", "--to", to.to_str().unwrap()];
    let said = done(audit(&stage, &keys, &arguments)).await;
    assert!(said.contains("1040 events in 104 parts, 40 of them new"), "{said}");
    let after = files(&to);
    let parts = before.iter().filter(|(name, _)| name.starts_with("events-"));
    parts.for_each(|(name, content)| assert!(after[name] == *content, "{name} is as it was"));
    let public = PublicKey::read(Path::new(&keys.public())).unwrap();
    let report =
        verify(&to, VerifyOptions { keys: vec![public], fully_signed: true, whole: true, ..VerifyOptions::default() });
    assert_eq!((report.broken, report.events, report.checkpoints), (0, 1_040, 2), "{report}");
    // Another export does not go into the same folder.
    let (success, said) = ended(audit(&stage, &keys, &["export", "--to", to.to_str().unwrap()])).await;
    assert!(!success && said.contains("holds another export"), "{said}");
}

#[tokio::test]
async fn an_export_holds_the_selected_events_in_the_selected_format() {
    let stage = Stage::start().await;
    let (keys, folder) = (Keys::make(&stage).await, tempfile::tempdir().unwrap());
    let conversations = fill(&stage.nats, 4, 0, 5).await;
    let export = async |name: &str, arguments: &[&str]| {
        let to = folder.path().join(name);
        done(audit(&stage, &keys, &[&["export", "--to", to.to_str().unwrap()], arguments].concat())).await;
        fs::read(&to).unwrap()
    };
    let lines = |text: &[u8]| -> Vec<Value> {
        std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&export("all.ndjson", &[]).await);
    assert_eq!(all.len(), 20);
    let packed = export("all.ndjson.zst", &["--zstd"]).await;
    assert_eq!(lines(&zstd::decode_all(packed.as_slice()).unwrap()), all);
    let batch: Vec<Value> = serde_json::from_slice(&export("all.json", &["--format", "cloudevents"]).await).unwrap();
    for (event, stored) in batch.iter().zip(&all) {
        assert_eq!((&event["specversion"], &event["id"]), (&"1.0".into(), &stored["headers"]["ce-id"]));
        assert_eq!((&event["data"], &event["prevdigest"]), (&stored["payload"], &stored["headers"]["ce-prevdigest"]));
        assert_eq!(event["sequence"], stored["seq"].to_string());
    }
    assert_eq!(batch.len(), 20);
    let one = conversations[1].to_string();
    let of_one = lines(&export("one.ndjson", &["--conversation", &one]).await);
    assert!(of_one.len() == 5 && of_one.iter().all(|event| event["headers"]["ce-subject"] == one), "{of_one:?}");
    assert_eq!(lines(&export("org.ndjson", &["--org", "acme-0"]).await).len(), 10);
    let (from, to) = (all[5]["storedAt"].as_str().unwrap(), all[11]["seq"].to_string());
    let span = lines(&export("span.ndjson", &["--since", from, "--until", &to]).await);
    assert_eq!(span, all[5..=11]);
    let none = export("none.json", &["--format", "cloudevents", "--since", "1000"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&none).unwrap(), serde_json::json!([]));
}
