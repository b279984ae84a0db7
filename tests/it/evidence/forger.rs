//! A forger with a bundle: changes it, and recomputes everything that does not need the key.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::Path,
};

use chrono::Utc;
use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use turnstream::{
    domain::Digest,
    evidence::{
        checkpoint::{CheckpointChain, HeadChanges},
        merkle_tree::ConversationHead,
    },
    signing::SigningKey,
    wire::stored,
};

/// The damage that a forgery shows to a verifier.
pub enum Tracks {
    /// One of these conversations is broken.
    Of(Vec<String>),
    /// Some conversation is broken: rewriting the log gives other conversations' events other sequences, too.
    Somebody,
    /// A checkpoint is wrong or missing.
    Checkpoint,
    /// A file can't be read to its end, or another problem that the report names.
    File,
}

type Deed = fn(&mut Forger, &mut StdRng) -> Tracks;

pub const DEEDS: [(&str, Deed); 22] = [
    ("an edited payload", Forger::edit_payload),
    ("an edited header", Forger::edit_header),
    ("another sequence", Forger::edit_seq),
    ("another subject", Forger::edit_subject),
    ("a removed event", Forger::remove_event),
    ("a removed tail of a conversation", Forger::remove_tail),
    ("a removed conversation", Forger::remove_conversation),
    ("two swapped events", Forger::swap),
    ("two events with each other's content", Forger::swap_content),
    ("a truncated file", Forger::truncate),
    ("an inserted event, all later events rewritten", Forger::insert),
    ("a removed event, all later events rewritten", Forger::remove_and_chain),
    ("an edited event, all later events rewritten", Forger::edit_and_chain_any),
    ("a forged log with checkpoints of the forger's own key", Forger::sign),
    ("a doubled event", Forger::double),
    ("an event moved to another conversation", Forger::move_event),
    ("an added event", Forger::add),
    ("a removed checkpoint", Forger::remove_checkpoint),
    ("an edited checkpoint", Forger::edit_checkpoint),
    ("two swapped checkpoints", Forger::swap_checkpoints),
    ("a list of checkpoints without its end", Forger::truncate_checkpoints),
    ("a bundle declared as partial", Forger::hide_behind_a_filter),
];

/// A bundle in the forger's hands.
pub struct Forger {
    manifest: Value,
    pub events: Vec<Value>,
    /// Lines of the checkpoints' file.
    checkpoints: Vec<String>,
    proofs: Option<Vec<Value>>,
    others: BTreeMap<String, Vec<u8>>,
    /// Bytes of events that are left.
    cut: Option<usize>,
}

impl Forger {
    pub fn read(folder: &Path) -> Self {
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let values =
            |text: String| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let zstd = manifest["zstd"] == true;
        let mut events = Vec::new();
        for part in manifest["parts"].as_array().unwrap() {
            let content = read(part["file"].as_str().unwrap());
            events.extend(values(text(if zstd { zstd::decode_all(content.as_slice()).unwrap() } else { content })));
        }
        let checkpoints = text(read("checkpoints.ndjson")).lines().map(str::to_owned).collect();
        let proofs = folder.join("proofs.ndjson").exists().then(|| values(text(read("proofs.ndjson"))));
        let others = ["key.pub.pem", "README.md"].map(|name| (name.to_owned(), read(name)));
        Self { manifest, events, checkpoints, proofs, others: others.into(), cut: None }
    }

    /// Writes all files, with a matching manifest.
    pub fn write(mut self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        let lines = |values: &[Value]| values.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes();
        let mut content = lines(&self.events);
        content.truncate(self.cut.unwrap_or(content.len()));
        let mut files = self.others;
        files.insert(
            "checkpoints.ndjson".into(),
            self.checkpoints.iter().map(|line| format!("{line}\n")).collect::<String>().into(),
        );
        files.extend(self.proofs.map(|proofs| ("proofs.ndjson".to_owned(), lines(&proofs))));
        let fact = |name: &str, content: &[u8]| {
            let mut file = fs::File::create(folder.join(name)).unwrap();
            file.write_all(content).unwrap();
            json!({ "file": name, "bytes": content.len(), "sha256": digest_of(content) })
        };
        let mut part = fact("events-000001.ndjson", &content);
        let seq = |event: Option<&Value>| event.map_or(json!(0), |event| event["seq"].clone());
        part["first"] = seq(self.events.first());
        part["last"] = seq(self.events.last());
        part["events"] = json!(self.events.len());
        self.manifest["scanned"] = part["last"].clone();
        self.manifest["parts"] = json!([part]);
        self.manifest["zstd"] = json!(false);
        self.manifest["files"] = files.iter().map(|(name, content)| fact(name, content)).collect();
        fs::write(folder.join("manifest.json"), self.manifest.to_string()).unwrap();
    }

    fn conversation(&self, at: usize) -> String {
        self.events[at]["subject"].as_str().unwrap().split('.').nth(3).unwrap().to_owned()
    }

    fn of(&self, at: usize) -> Tracks {
        Tracks::Of(vec![self.conversation(at)])
    }

    /// Returns the index of a random event.
    fn any(&self, random: &mut StdRng) -> usize {
        random.random_range(0..self.events.len())
    }

    fn edit_payload(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let text = change(self.events[at]["payload"].as_str().unwrap(), random);
        self.events[at]["payload"] = json!(text);
        self.of(at)
    }

    fn edit_header(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let tracks = self.of(at);
        let headers = self.events[at]["headers"].as_object_mut().unwrap();
        assert_eq!(headers.len(), 8, "every header is covered");
        let name = headers.keys().nth(random.random_range(0..8)).unwrap().clone();
        match random.random_range(0..4) {
            0 => drop(headers.remove(&name)),
            _ => headers[&name] = json!(change(headers[&name].as_str().unwrap(), random)),
        }
        tracks
    }

    fn edit_seq(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let seq = self.events[at]["seq"].as_u64().unwrap();
        let other = seq + random.random_range(1..500);
        self.events[at]["seq"] = json!(other);
        // The event's neighbours are out of order now.
        self.of_neighbours(&[at, at + 1])
    }

    fn edit_subject(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let subject = self.events[at]["subject"].as_str().unwrap();
        let other = match random.random_range(0..3) {
            0 => subject.replace("acme", "evil"),
            1 => subject.rsplit_once('.').unwrap().0.to_owned() + ".failed",
            _ => subject.replace("local", "elsewhere"),
        };
        self.events[at]["subject"] = json!(other);
        self.of(at)
    }

    fn remove_event(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let tracks = self.of(at);
        self.events.remove(at);
        tracks
    }

    fn remove_tail(&mut self, random: &mut StdRng) -> Tracks {
        let wanted = self.conversation(self.any(random));
        let all: Vec<usize> = (0..self.events.len()).filter(|at| self.conversation(*at) == wanted).collect();
        let from = random.random_range(1..all.len());
        for at in all[from..].iter().rev() {
            self.events.remove(*at);
        }
        Tracks::Of(vec![wanted])
    }

    fn remove_conversation(&mut self, random: &mut StdRng) -> Tracks {
        let wanted = self.conversation(self.any(random));
        self.events.retain(|event| !event["subject"].as_str().unwrap().contains(&wanted));
        Tracks::Of(vec![wanted])
    }

    /// Returns two places in the log, in order.
    fn two(&self, random: &mut StdRng) -> (usize, usize) {
        let first = random.random_range(0..self.events.len() - 1);
        (first, random.random_range(first + 1..self.events.len()))
    }

    fn of_neighbours(&self, places: &[usize]) -> Tracks {
        let places = places.iter().filter(|at| **at < self.events.len());
        Tracks::Of(places.map(|at| self.conversation(*at)).collect())
    }

    fn swap(&mut self, random: &mut StdRng) -> Tracks {
        let (one, other) = self.two(random);
        self.events.swap(one, other);
        self.of_neighbours(&[one, one + 1, other])
    }

    fn swap_content(&mut self, random: &mut StdRng) -> Tracks {
        let (one, other) = self.two(random);
        self.events.swap(one, other);
        let seq = self.events[one]["seq"].clone();
        self.events[one]["seq"] = self.events[other]["seq"].clone();
        self.events[other]["seq"] = seq;
        self.of_neighbours(&[one, other])
    }

    fn truncate(&mut self, random: &mut StdRng) -> Tracks {
        let bytes: usize = self.events.iter().map(|event| event.to_string().len() + 1).sum();
        // Cutting only the final newline would change nothing.
        self.cut = Some(random.random_range(0..bytes - 1));
        Tracks::File
    }

    fn insert(&mut self, random: &mut StdRng) -> Tracks {
        // Behind the last event no checkpoint covers the insertion, so it would not count as a forgery.
        let at = random.random_range(0..self.events.len() - 1);
        let mut new = self.events[at].clone();
        new["headers"]["ce-id"] = json!("forged");
        self.events.insert(at + 1, new);
        self.chain();
        Tracks::Somebody
    }

    fn remove_and_chain(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        self.events.remove(at);
        self.chain();
        Tracks::Somebody
    }

    fn edit_and_chain_any(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        self.edit_and_chain(at);
        self.of(at)
    }

    pub fn edit_and_chain(&mut self, at: usize) {
        self.events[at]["headers"]["ce-source"] = json!("/somebody/else");
        // The sequences stay, also where other conversations' sequences are between them.
        let seqs: Vec<Value> = self.events.iter().map(|event| event["seq"].clone()).collect();
        self.chain_with(&seqs);
    }

    fn sign(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        self.edit_and_chain(at);
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("key"), folder.path().join("key.pub"));
        let own = SigningKey::generate(&private, &public).map(|_| SigningKey::read(&private).unwrap()).unwrap();
        self.others.insert("key.pub.pem".into(), fs::read(&public).unwrap());
        let mut heads: BTreeMap<String, ConversationHead> = BTreeMap::new();
        for event in &self.events {
            let conversation = event["headers"]["ce-subject"].as_str().unwrap();
            let events = heads.get(conversation).map_or(0, |head| head.events) + 1;
            let seq = event["seq"].as_u64().unwrap();
            let head =
                ConversationHead { conversation: conversation.parse().unwrap(), seq, digest: digest(event), events };
            heads.insert(conversation.into(), head);
        }
        let covers = self.events.last().unwrap()["seq"].as_u64().unwrap();
        let heads = heads.into_values().collect();
        let messages =
            CheckpointChain::default().next(HeadChanges { region: "local", covers, time: Utc::now(), heads }, &own);
        self.checkpoints = messages.into_iter().map(|message| String::from_utf8(message).unwrap()).collect();
        Tracks::Checkpoint
    }

    fn double(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        self.events.insert(at, self.events[at].clone());
        self.of(at)
    }

    fn move_event(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let (from, mut to) = (self.conversation(at), self.conversation(at));
        while to == from {
            to = self.conversation(self.any(random));
        }
        let moved = self.events[at].to_string().replace(&from, &to);
        self.events[at] = serde_json::from_str(&moved).unwrap();
        Tracks::Of(vec![from, to])
    }

    /// Adds an event at the end, as its conversation would go on.
    fn add(&mut self, random: &mut StdRng) -> Tracks {
        let at = self.any(random);
        let mut new = self.events[at].clone();
        new["seq"] = json!(self.events.last().unwrap()["seq"].as_u64().unwrap() + 1);
        self.events.push(new);
        let seqs: Vec<Value> = self.events.iter().map(|event| event["seq"].clone()).collect();
        self.chain_with(&seqs);
        Tracks::File
    }

    /// Gives all events contiguous sequences, and each the digest of its predecessor.
    fn chain(&mut self) {
        let first = self.events.first().map_or(1, |event| event["seq"].as_u64().unwrap());
        let seqs: Vec<Value> = (0..self.events.len() as u64).map(|n| json!(first + n)).collect();
        self.chain_with(&seqs);
    }

    fn chain_with(&mut self, seqs: &[Value]) {
        let mut tails: HashMap<String, (u64, Digest)> = HashMap::new();
        for (event, seq) in self.events.iter_mut().zip(seqs) {
            let conversation = event["headers"]["ce-subject"].as_str().unwrap().to_owned();
            let (prev, before) = tails.get(&conversation).copied().unwrap_or_default();
            event["seq"] = seq.clone();
            event["headers"]["ce-prev"] = json!(prev.to_string());
            event["headers"]["ce-prevdigest"] = json!(before.to_string());
            tails.insert(conversation, (seq.as_u64().unwrap(), digest(event)));
        }
    }

    /// Returns the places of the lines with checkpoints.
    fn signed(&self) -> Vec<usize> {
        (0..self.checkpoints.len()).filter(|at| self.checkpoints[*at].contains("\"kind\":\"checkpoint\"")).collect()
    }

    fn remove_checkpoint(&mut self, random: &mut StdRng) -> Tracks {
        let at = random.random_range(0..self.checkpoints.len());
        self.checkpoints.remove(at);
        Tracks::Checkpoint
    }

    fn edit_checkpoint(&mut self, random: &mut StdRng) -> Tracks {
        let at = random.random_range(0..self.checkpoints.len());
        self.checkpoints[at] = change(&self.checkpoints[at], random);
        Tracks::Checkpoint
    }

    fn swap_checkpoints(&mut self, random: &mut StdRng) -> Tracks {
        let signed = self.signed();
        let one = random.random_range(0..signed.len() - 1);
        self.checkpoints.swap(signed[one], signed[random.random_range(one + 1..signed.len())]);
        Tracks::Checkpoint
    }

    fn truncate_checkpoints(&mut self, random: &mut StdRng) -> Tracks {
        self.checkpoints.truncate(random.random_range(0..self.checkpoints.len()));
        Tracks::Checkpoint
    }

    fn hide_behind_a_filter(&mut self, random: &mut StdRng) -> Tracks {
        self.remove_conversation(random);
        self.manifest["filter"] = json!({ "org": "acme-0" });
        self.checkpoints.retain(|line| line.contains("\"kind\":\"checkpoint\""));
        self.proofs = Some(Vec::new());
        Tracks::File
    }

    /// Removes the last checkpoint and all events that only it covers.
    pub fn forget_the_end(&mut self) {
        let signed = self.signed();
        let last_kept = signed[signed.len() - 2];
        self.checkpoints.truncate(last_kept + 1);
        let kept: Value = serde_json::from_str(&self.checkpoints[last_kept]).unwrap();
        self.events.retain(|event| event["seq"].as_u64() <= kept["covers"].as_u64());
    }

    pub fn forge_proof(&mut self) {
        let proof = &mut self.proofs.as_mut().unwrap()[0];
        proof["head"][3] = json!(proof["head"][3].as_u64().unwrap() + 1);
    }

    pub fn drop_proof(&mut self) {
        self.proofs.as_mut().unwrap().remove(0);
    }
}

/// Returns the text with one letter or digit changed.
fn change(text: &str, random: &mut StdRng) -> String {
    let places: Vec<usize> = text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
    let at = places[random.random_range(0..places.len())];
    let other = if &text[at..=at] == "7" { "3" } else { "7" };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

fn digest_of(content: &[u8]) -> Digest {
    Digest(Sha256::digest(content).into())
}

fn digest(event: &Value) -> Digest {
    let header = |name: &str| event["headers"][name].as_str();
    stored::digest(event["subject"].as_str().unwrap(), header, event["payload"].as_str().unwrap().as_bytes())
}
