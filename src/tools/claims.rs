//! The rules by which declarations of services count: ownership of names and subjects, and the guards of tools.
//!
//! Contract: a name or a subject stays with the service that declared it first, for as long as that service is present
//! and an hour more. A guard (approval, level, organisation, no repetition) is the strictest that any service ever
//! declared for the subject, or for the name as one organisation sees it; no registration makes it weaker. A worker
//! that restarts begins anew, so a tool that matters is pinned in the agent's configuration, which takes precedence
//! over all of this.
//!
//! Where instances of one service declare a tool differently, every worker takes the declaration of the newest version,
//! and among equal versions the first one as text: never the first one to answer. [`differing`] names such tools.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::tool::{Tool, ToolBackend};
use crate::{agents::AuthLevel, limits, subjects};

/// A tool as an instance of a service declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDeclaration {
    pub service: String,
    /// The version that the service reports.
    pub version: String,
    pub tool: Tool,
}

impl ToolDeclaration {
    /// Returns the key that sorts the newest version first.
    ///
    /// A pre-release (`1.2.0-rc.1`) is older than its release; build metadata after `+` is ignored.
    fn newest_first(&self) -> impl Ord + use<> {
        let version = self.version.trim_start_matches(['v', 'V']).split('+').next().unwrap_or_default();
        let (release, before) =
            version.split_once('-').map_or((version, None), |(release, rest)| (release, Some(rest)));
        let mut numbers: Vec<u64> = release.split('.').map(|n| n.trim().parse().unwrap_or(0)).collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        // Numbers come before words, as in semantic versions.
        let parts = |before: &str| {
            let part = |part: &str| part.parse::<u64>().map_or((1, 0, part.to_owned()), |n| (0, n, String::new()));
            before.split('.').map(part).collect::<Vec<_>>()
        };
        let rank = (numbers, before.is_none(), before.map(parts));
        let Tool { name, description, parameters, timeout, .. } = &self.tool;
        (Reverse(rank), self.version.clone(), format!("{name} {description} {parameters} {timeout:?}"))
    }
}

/// A part of a declaration: its name, and the function that returns it as text.
type Aspect = (&'static str, fn(&Tool) -> String);

/// Returns the tools with differing declarations, and the fields that differ.
pub fn differing(declared: &[ToolDeclaration]) -> Vec<RefusedDeclaration> {
    let mut named: BTreeMap<&str, Vec<&ToolDeclaration>> = BTreeMap::new();
    for one in declared {
        named.entry(&one.tool.name).or_default().push(one);
    }
    let differ =
        |all: &[&ToolDeclaration], of: fn(&Tool) -> String| all.iter().any(|one| of(&one.tool) != of(&all[0].tool));
    let mut notices = Vec::new();
    for (name, all) in named {
        let guards: [Aspect; 3] = [
            ("confirm", |tool| tool.confirm.to_string()),
            ("idempotent", |tool| tool.idempotent.to_string()),
            ("auth_level", |tool| format!("{:?}", tool.level)),
        ];
        let contents: [Aspect; 3] = [
            ("parameters", |tool| tool.parameters.to_string()),
            ("description", |tool| tool.description.clone()),
            ("timeout_ms", |tool| format!("{:?}", tool.timeout)),
        ];
        let names = |of: &[Aspect]| {
            let names = of.iter().filter(|(_, of)| differ(&all, *of)).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        let words = [(names(&guards), "the strictest counts"), (names(&contents), "that of the newest version counts")];
        let words =
            words.iter().filter(|(names, _)| !names.is_empty()).map(|(names, rule)| format!("{names} ({rule})"));
        let words: Vec<String> = words.collect();
        if !words.is_empty() {
            let services: BTreeSet<&str> = all.iter().map(|one| one.service.as_str()).collect();
            let service = services.into_iter().collect::<Vec<_>>().join(", ");
            notices.push(RefusedDeclaration {
                service,
                tool: name.into(),
                why: format!("declared differently in {}", words.join("; ")),
            });
        }
    }
    notices
}

/// A declaration that does not count, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedDeclaration {
    pub service: String,
    pub tool: String,
    pub why: String,
}

/// The organisations that may use a tool.
#[derive(Clone, Debug, PartialEq)]
enum ToolScope {
    All,
    Org(String),
    /// Two organisations claim the tool.
    Nobody,
}

/// The strictest guards that were declared.
#[derive(Clone, Debug)]
struct Guard {
    confirm: bool,
    level: AuthLevel,
    idempotent: bool,
    whose: ToolScope,
}

/// The service that a name or a subject belongs to.
#[derive(Clone, Debug)]
struct NameHolder {
    service: String,
    /// The subject behind a name.
    subject: String,
    seen: Instant,
    /// The age rank: older holders have smaller numbers.
    rank: u64,
}

/// A tool's name as one organisation sees it; `None` = all.
type Name = (Option<String>, String);

/// The names, subjects and guards that were declared so far.
#[derive(Default)]
pub struct NameClaims {
    names: HashMap<Name, NameHolder>,
    subjects: HashMap<String, NameHolder>,
    guards: HashMap<String, Guard>,
    named: HashMap<Name, Guard>,
    next: u64,
}

impl NameClaims {
    /// Returns the tools that count, oldest first, and the refused declarations.
    pub fn settle(&mut self, now: Instant, declared: &[ToolDeclaration]) -> (Vec<Tool>, Vec<RefusedDeclaration>) {
        self.forget(now);
        declared.iter().for_each(|declared| self.tighten(declared));
        // Present holders renew their claims before other services can take them.
        let present: HashSet<(&str, &str)> = declared.iter().map(|d| (d.service.as_str(), subject(&d.tool))).collect();
        for holder in self.names.values_mut().chain(self.subjects.values_mut()) {
            if present.contains(&(holder.service.as_str(), holder.subject.as_str())) {
                holder.seen = now;
            }
        }
        let (mut tools, mut refused) = (Vec::new(), HashSet::new());
        let mut taken: HashMap<&str, HashSet<Name>> = HashMap::new();
        for declared in declared {
            let of_service = taken.entry(&declared.service).or_default();
            let why = match self.claim(now, declared, of_service) {
                Ok((rank, tool, why)) => {
                    tools.push((rank, declared.newest_first(), tool));
                    why
                }
                Err(why) => Some(why),
            };
            let (service, tool) = (declared.service.clone(), declared.tool.name.clone());
            refused.extend(why.map(|why| RefusedDeclaration { service, tool, why }));
        }
        tools.sort_by(|(rank, newest, _), (other, next, _)| (rank, newest).cmp(&(other, next)));
        let mut seen = HashSet::new();
        let tools = tools.into_iter().map(|(_, _, tool)| tool);
        // Of the declarations of one service's instances, one counts.
        let tools = tools.filter(|tool| seen.insert((tool.name.clone(), tool.org.clone(), subject(tool).to_string())));
        let tools = tools.collect();
        let mut refused: Vec<RefusedDeclaration> = refused.into_iter().collect();
        refused.sort_by(|a, b| (&a.service, &a.tool, &a.why).cmp(&(&b.service, &b.tool, &b.why)));
        (tools, refused)
    }

    /// Adds a declaration's guards, also when the declaration does not count otherwise.
    fn tighten(&mut self, ToolDeclaration { tool, .. }: &ToolDeclaration) {
        let whose = tool.org.clone().map_or(ToolScope::All, ToolScope::Org);
        let guard = Guard { confirm: tool.confirm, level: tool.level, idempotent: tool.idempotent, whose };
        let room = self.guards.len() < limits::TOOL_CLAIMS_MAX;
        match self.guards.get_mut(subject(tool)) {
            Some(known) => known.tighten(&guard),
            None if room => drop(self.guards.insert(subject(tool).into(), guard.clone())),
            None => {}
        }
        let (name, room) = ((tool.org.clone(), tool.name.clone()), self.named.len() < limits::TOOL_CLAIMS_MAX);
        match self.named.get_mut(&name) {
            Some(known) => known.tighten(&guard),
            None if room => drop(self.named.insert(name, guard)),
            None => {}
        }
    }

    /// Returns the tool with its guards and its rank, or the reason why the tool is not offered.
    ///
    /// A tool that is returned with a reason is offered only where it is pinned.
    fn claim(
        &mut self,
        now: Instant,
        ToolDeclaration { service, tool, .. }: &ToolDeclaration,
        of_service: &mut HashSet<Name>,
    ) -> Result<(u64, Tool, Option<String>), String> {
        let at = subject(tool).to_string();
        let guard = self.guards.get(&at).cloned().ok_or("too many subjects are known")?;
        let org = match guard.whose {
            ToolScope::All => None,
            ToolScope::Org(org) => Some(org),
            ToolScope::Nobody => return Err(format!("two organisations claim the subject {at}")),
        };
        let name: Name = (org.clone(), tool.name.clone());
        of_service.insert(name.clone());
        if of_service.len() > limits::TOOLS_PER_SERVICE {
            return Err(format!("a service has at most {} tools", limits::TOOLS_PER_SERVICE));
        }
        // Existing claims stay, however many new ones come.
        let is_held = self.names.contains_key(&name) && self.subjects.contains_key(&at);
        if !is_held && self.names.len().max(self.subjects.len()) >= limits::TOOL_CLAIMS_MAX {
            return Err("too many tools are known".into());
        }
        self.next += 1;
        let holder = NameHolder { service: service.clone(), subject: at.clone(), seen: now, rank: self.next };
        let of_subject = self.subjects.entry(at.clone()).or_insert_with(|| holder.clone());
        let mut why = (of_subject.service != *service)
            .then(|| format!("the subject {at} belongs to the service `{}`", of_subject.service));
        let mut rank = self.next;
        if why.is_none() {
            let of_name = self.names.entry(name).or_insert_with(|| holder);
            if of_name.service != *service {
                why = Some(format!("the name belongs to the service `{}`", of_name.service));
            } else if of_name.subject != at {
                // Any service may use another one's name, so a tool moves only where it is pinned, or when its old
                // subject has been gone for as long as a name is held.
                why = Some(format!("the service already has this tool at {}", of_name.subject));
            } else {
                rank = of_name.rank;
            }
        }
        let mut tool =
            Tool { org, confirm: guard.confirm, level: guard.level, contested: why.is_some(), ..tool.clone() };
        tool.idempotent = guard.idempotent;
        for seen_by in [None, tool.org.clone()] {
            if let Some(named) = self.named.get(&(seen_by, tool.name.clone())) {
                tool.confirm |= named.confirm;
                tool.level = tool.level.max(named.level);
                tool.idempotent &= named.idempotent;
            }
        }
        Ok((rank, tool, why))
    }

    /// Drops the claims of services that have been away for too long. Guards stay.
    fn forget(&mut self, now: Instant) {
        let held = Duration::from_secs(limits::TOOL_HELD_SECS);
        let is_held = |holder: &NameHolder| now.saturating_duration_since(holder.seen) < held;
        self.names.retain(|_, holder| is_held(holder));
        self.subjects.retain(|_, holder| is_held(holder));
    }
}

impl Guard {
    fn tighten(&mut self, other: &Self) {
        self.confirm |= other.confirm;
        self.level = self.level.max(other.level);
        self.idempotent &= other.idempotent;
        self.whose = match (&self.whose, &other.whose) {
            (ToolScope::All, whose) | (whose, ToolScope::All) => whose.clone(),
            (ToolScope::Org(a), ToolScope::Org(b)) if a == b => self.whose.clone(),
            _ => ToolScope::Nobody,
        };
    }
}

fn subject(tool: &Tool) -> &str {
    match &tool.backend {
        ToolBackend::Endpoint { subject } => subject,
        ToolBackend::Knowledge | ToolBackend::Builtin(_) | ToolBackend::Mcp { .. } => "",
    }
}

/// Returns a tool's organisation, from its subject or else its declaration, or the reason why the subject can't be a
/// tool's.
pub fn org_of(subject: &str, declared: Option<String>) -> Result<Option<String>, String> {
    if !subjects::is_call(subjects::TOOL_CALLS, subject) {
        return Err(format!("the subject is not a literal one below `{}`", subjects::TOOL_CALLS));
    }
    match subjects::org_of_tool(subject) {
        None => Ok(declared),
        Some(Ok(org)) if declared.as_ref().is_none_or(|declared| *declared == org) => Ok(Some(org)),
        Some(_) => Err("the subject belongs to another organisation".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A service's tool, with the guards `confirm`, `admin`, `org …` read from `marks`.
    fn declared(service: &str, name: &str, subject: &str, marks: &str) -> ToolDeclaration {
        let org = marks.split_once("org ").map(|(_, org)| org.to_string());
        let tool = Tool {
            name: name.into(),
            description: String::new(),
            parameters: json!({}),
            org: org_of(subject, org).unwrap(),
            confirm: marks.contains("confirm"),
            idempotent: marks.contains("idempotent"),
            level: if marks.contains("admin") { AuthLevel::Admin } else { AuthLevel::None },
            timeout: Duration::from_secs(1),
            contested: false,
            backend: ToolBackend::Endpoint { subject: subject.into() },
        };
        ToolDeclaration { service: service.into(), version: "1.0.0".into(), tool }
    }

    #[test]
    fn differing_declarations_are_one_rule_in_any_order() {
        let mut old = declared("orders", "refund", "tool.refund", "idempotent");
        old.tool.description = "a".into();
        let mut new = declared("orders", "refund", "tool.refund", "confirm");
        (new.version, new.tool.description) = ("1.10.0".into(), "b".into());
        let mut same = new.clone();
        same.tool.description = "c".into();
        let other = declared("billing", "refund", "tool.billing.refund", "admin");
        let all = [old, new, same, other];
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]];
        for order in orders {
            let mixed = order.map(|n| all[n].clone());
            let mut claims = NameClaims::default();
            claims.settle(Instant::now(), &all[..1]);
            let (tools, _) = claims.settle(Instant::now(), &mixed);
            let tool = tools.iter().find(|tool| !tool.contested).unwrap();
            assert_eq!((tool.confirm, tool.idempotent, tool.level), (true, false, AuthLevel::Admin));
            assert_eq!(tool.description, "b", "the newest version, then the first as text: {order:?}");
            let [notice] = differing(&mixed).try_into().unwrap();
            assert_eq!((notice.service.as_str(), notice.tool.as_str()), ("billing, orders", "refund"));
            for word in ["confirm", "idempotent", "auth_level", "description"] {
                assert!(notice.why.contains(word), "{notice:?}");
            }
        }
        assert_eq!(differing(&[all[1].clone(), all[1].clone()]), []);
    }

    #[test]
    fn a_version_before_its_release_is_older() {
        let of = |version: &str| ToolDeclaration {
            version: version.into(),
            ..declared("orders", "refund", "tool.refund", "")
        };
        let oldest_first = [
            "",
            "0.9",
            "1.2.0-alpha",
            "1.2.0-rc.1",
            "1.2.0-rc.2",
            "1.2.0-rc.10",
            "1.2.0",
            "v1.2.1+build.7",
            "1.10.0-1",
            "1.10.0",
        ];
        for pair in oldest_first.windows(2) {
            assert!(of(pair[0]).newest_first() > of(pair[1]).newest_first(), "{pair:?}");
        }
    }

    /// The tools that are offered without a pin, as `name@subject` with their guards.
    fn offered(tools: &[Tool]) -> Vec<String> {
        let plain = tools.iter().filter(|tool| !tool.contested);
        let guards = |tool: &Tool| if tool.confirm { "!" } else { "" };
        plain.map(|tool| format!("{}@{}{}", tool.name, subject(tool), guards(tool))).collect()
    }

    #[test]
    fn a_guard_never_gets_weaker_in_any_order() {
        let legit = declared("orders", "refund", "tool.refund", "confirm admin org acme");
        for evil in [
            declared("evil", "refund", "tool.refund", "idempotent"),
            declared("orders", "refund", "tool.refund", "idempotent"),
            declared("evil", "harmless", "tool.refund", "idempotent"),
        ] {
            for both in [[legit.clone(), evil.clone()], [evil.clone(), legit.clone()]] {
                let (tools, _) = NameClaims::default().settle(Instant::now(), &both);
                for tool in &tools {
                    assert!(tool.confirm && tool.level == AuthLevel::Admin && !tool.idempotent, "{tool:?}");
                    assert_eq!(tool.org.as_deref(), Some("acme"));
                }
            }
            let mut claims = NameClaims::default();
            claims.settle(Instant::now(), std::slice::from_ref(&legit));
            let (tools, _) = claims.settle(Instant::now(), &[evil]);
            assert!(tools.iter().all(|tool| tool.confirm && tool.level == AuthLevel::Admin), "the first one is away");
        }
    }

    #[test]
    fn a_name_and_a_subject_stay_with_their_service() {
        let mut claims = NameClaims::default();
        let legit = declared("orders", "refund", "tool.refund", "");
        let now = Instant::now();
        claims.settle(now, std::slice::from_ref(&legit));
        let thieves =
            [declared("evil", "refund", "tool.evil", ""), declared("evil", "alias", "tool.refund", ""), legit.clone()];
        let (tools, refused) = claims.settle(now, &thieves);
        assert_eq!(offered(&tools), ["refund@tool.refund"]);
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused.iter().all(|refused| refused.why.contains("`orders`")), "{refused:?}");
        assert!(offered(&claims.settle(now, &thieves[..2]).0).is_empty(), "a moment's absence gives nothing away");
        let later = now + Duration::from_secs(limits::TOOL_HELD_SECS + 1);
        assert_eq!(offered(&claims.settle(later, &thieves[..1]).0), ["refund@tool.evil"]);
    }

    #[test]
    fn a_taken_service_name_does_not_give_its_tools_at_once() {
        let mut claims = NameClaims::default();
        let legit = declared("orders", "refund", "tool.refund", "");
        let evil = declared("orders", "refund", "tool.evil", "");
        let now = Instant::now();
        claims.settle(now, std::slice::from_ref(&legit));
        assert!(offered(&claims.settle(now, std::slice::from_ref(&evil)).0).is_empty(), "the elder restarts");
        assert_eq!(offered(&claims.settle(now, &[evil, legit]).0), ["refund@tool.refund"]);
    }

    #[test]
    fn a_flood_of_tools_removes_no_known_tool() {
        let mut claims = NameClaims::default();
        let elder = declared("orders", "refund", "tool.refund", "");
        let now = Instant::now();
        claims.settle(now, std::slice::from_ref(&elder));
        let flood = (0..limits::TOOL_CLAIMS_MAX + 100).map(|n| {
            declared(&format!("s{}", n / limits::TOOLS_PER_SERVICE), &format!("t{n}"), &format!("tool.f.{n}"), "")
        });
        let all: Vec<ToolDeclaration> = flood.chain([elder]).collect();
        assert_eq!(claims.settle(now, &all).0[0].name, "refund");
        assert_eq!(claims.settle(now, &all).0[0].name, "refund");
    }

    #[test]
    fn a_service_has_a_bounded_number_of_tools_and_the_elder_come_first() {
        let mut claims = NameClaims::default();
        let elder = declared("zz", "z", "tool.z", "");
        claims.settle(Instant::now(), std::slice::from_ref(&elder));
        let many = (0..200).map(|n| declared("many", &format!("a{n:03}"), &format!("tool.many.{n}"), ""));
        let all: Vec<ToolDeclaration> = many.chain([elder]).collect();
        let (tools, refused) = claims.settle(Instant::now(), &all);
        assert_eq!((tools[0].name.as_str(), tools.len()), ("z", 1 + limits::TOOLS_PER_SERVICE));
        assert_eq!(refused.len(), 200 - limits::TOOLS_PER_SERVICE);
    }

    #[test]
    fn a_subject_claimed_by_two_organisations_is_refused() {
        let both = [declared("a", "x", "tool.x", "org acme"), declared("b", "x", "tool.x", "org globex")];
        let (tools, refused) = NameClaims::default().settle(Instant::now(), &both);
        assert!(tools.is_empty() && refused.len() == 2, "{tools:?}");
        assert!(org_of("tool.org.acme.x", Some("globex".into())).is_err());
        assert_eq!(org_of("tool.org.acme.x", None), Ok(Some("acme".into())));
        assert!(org_of("$KV.KEYS.x", None).is_err() && org_of("tool.>", None).is_err());
    }
}
