//! No files import each other in a circle, within a room or across rooms.
//!
//! An import is a `use`, or a path that begins with `crate`, `super`, or a module declared in the file. A name that a file only
//! hands on (`pub use`) counts as imported from the file that defines it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::support::source::{Source, expect_none, sources};

/// A path of names from the crate's root.
type Path = Vec<String>;

/// The imports of a file: from which file, and which names.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// A file as a module.
struct Module {
    path: Path,
    text: String,
    /// The paths that the file names, with whether it hands the last name on.
    named: Vec<(Path, bool)>,
}

impl Module {
    fn of(source: &Source) -> Self {
        let path = module_path(&source.path);
        let text = source.product();
        let named = named(&text, &path);
        Self { path, text, named }
    }

    fn defines(&self, name: &str) -> bool {
        ["fn", "struct", "enum", "const", "static", "trait", "type", "mod", "union"].iter().any(|kind| {
            [' ', '(', '<', ':', ';', '{'].iter().any(|end| self.text.contains(&format!("{kind} {name}{end}")))
        })
    }
}

fn module_path(file: &str) -> Path {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    if inner == "lib" { Path::new() } else { inner.split('/').map(String::from).collect() }
}

/// Returns the absolute paths that a text names.
fn named(text: &str, own: &[String]) -> Vec<(Path, bool)> {
    let (mut imported, mut rest) = (Vec::new(), String::new());
    for statement in text.split_inclusive(';') {
        match statement.rfind("use ").filter(|at| is_use(statement, *at)) {
            Some(at) => {
                let before = statement[..at].trim_end();
                let hands_on = before.ends_with("pub") || before.ends_with(')');
                let mut paths = Vec::new();
                leaves(statement[at + 4..].trim_end_matches(';'), &Path::new(), &mut paths);
                imported.extend(paths.into_iter().map(|path| (path, hands_on)));
                rest.push_str(&statement[..at]);
            }
            None => rest.push_str(statement),
        }
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let inline = rest.split(|c: char| !is_word(c)).filter(|word| word.contains("::"));
    imported.extend(inline.map(|path| (path.split("::").map(String::from).collect(), false)));
    let parts: Vec<&str> =
        rest.split("mod ").skip(1).filter_map(|after| after.split_once(';')).map(|(n, _)| n).collect();
    imported.into_iter().filter_map(|(path, hands_on)| Some((absolute(path, own, &parts)?, hands_on))).collect()
}

fn is_use(statement: &str, at: usize) -> bool {
    let before = statement[..at].rsplit('\n').next().unwrap_or_default().trim();
    before.is_empty() || before.starts_with("pub")
}

/// Collects the paths of a tree of imports.
fn leaves(tree: &str, prefix: &[String], found: &mut Vec<Path>) {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in tree.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        let (names, inner) = part.split_once('{').map_or((part, None), |(names, inner)| (names, Some(inner)));
        let names = names.split(" as ").next().unwrap_or_default();
        let mut path = [prefix.to_vec(), names.split("::").map(|n| n.trim().to_string()).collect()].concat();
        path.retain(|name| !name.is_empty());
        match inner {
            Some(inner) => leaves(inner.trim_end().trim_end_matches('}'), &path, found),
            None => found.push(path),
        }
    }
}

/// Returns the path from the crate's root; `None`: it leads to another crate.
fn absolute(path: Path, own: &[String], parts: &[&str]) -> Option<Path> {
    let mut names = path.into_iter().peekable();
    let mut at = match names.peek()?.as_str() {
        part if parts.contains(&part) => return Some([own, &names.collect::<Path>()].concat()),
        "crate" => Path::new(),
        "self" => own.to_vec(),
        "super" => own[..own.len() - 1].to_vec(),
        _ => return None,
    };
    names.next();
    while names.next_if(|name| name == "super").is_some() {
        at.pop();
    }
    at.extend(names.filter(|name| name != "self"));
    Some(at)
}

struct Modules(HashMap<Path, Module>);

impl Modules {
    /// Returns the module that defines the end of a path, and the name of that end.
    fn definer(&self, path: &[String], tries: usize) -> Option<(&Module, String)> {
        let (module, rest) = (0..=path.len()).rev().find_map(|n| Some((self.0.get(&path[..n])?, &path[n..])))?;
        let Some(name) = rest.first().filter(|_| tries > 0) else { return Some((module, path.last()?.clone())) };
        if name != "*" && !module.defines(name) {
            for (handed, _) in module.named.iter().filter(|(_, hands_on)| *hands_on) {
                let last = handed.last()?;
                if last == name {
                    return self.definer(handed, tries - 1);
                }
                let inner = [&handed[..handed.len() - 1], &rest[..1]].concat();
                if last == "*" && self.definer(&inner, tries - 1).is_some_and(|(found, _)| found.defines(name)) {
                    return self.definer(&inner, tries - 1);
                }
            }
        }
        Some((module, name.clone()))
    }

    fn imports(&self, of: &Module) -> Imports {
        let mut imports = Imports::new();
        for (path, hands_on) in &of.named {
            let Some((from, name)) = self.definer(path, 3) else { continue };
            // A module and its parts are one: parts use their module's names, and the module calls its parts. The rule is that
            // no part leads back to another one.
            if of.path.starts_with(&from.path) {
                continue;
            }
            if from.path != of.path && !from.path.is_empty() && !(*hands_on && from.path.starts_with(&of.path)) {
                imports.entry(from.path.join("::")).or_default().insert(name);
            }
        }
        imports
    }
}

/// Returns the groups of modules that reach each other.
fn circles(all: &BTreeMap<String, Imports>) -> Vec<Vec<String>> {
    let reach = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_string()]);
        while let Some(at) = open.pop() {
            for next in all.get(&at).into_iter().flat_map(|imports| imports.keys()) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = all.keys().map(|name| (name, reach(name))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for (name, reaches) in reached.iter().filter(|(name, reaches)| reaches.contains(**name)) {
        if !found.iter().any(|circle| circle.contains(name)) {
            let back = |other: &&String| reached.get(other).is_some_and(|back| back.contains(*name));
            found.push(reaches.iter().filter(back).cloned().collect());
        }
    }
    found
}

fn describe(circle: &[String], all: &BTreeMap<String, Imports>) -> String {
    let mut text = format!("{} files", circle.len());
    for from in circle {
        for (to, names) in all[from].iter().filter(|(to, _)| circle.contains(to)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text.push_str(&format!("\n    {from} -> {to}: {}", names.join(", ")));
        }
    }
    text
}

fn circles_of(sources: &[Source]) -> Vec<String> {
    let modules = Modules(sources.iter().map(Module::of).map(|module| (module.path.clone(), module)).collect());
    let all = modules.0.values().map(|module| (module.path.join("::"), modules.imports(module))).collect();
    circles(&all).iter().map(|circle| describe(circle, &all)).collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let product: Vec<Source> = sources(&["src"]).into_iter().filter(|source| !source.is_test()).collect();
    expect_none(circles_of(&product), "files that import each other");
}

#[test]
fn circles_are_found_in_all_forms_of_imports() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let tree = [
        file("src/lib.rs", "pub mod a;\npub mod b;\n"),
        file("src/a/mod.rs", "mod x;\npub mod y;\npub use x::Held;\n"),
        file("src/a/x.rs", "use super::y::{self, Other as Named};\npub struct Held;\n"),
        file("src/a/y.rs", "use crate::{\n    a::Held,\n    b,\n};\npub struct Other;\n"),
        file("src/b.rs", "fn f() -> crate::a::Fine {}\n"),
    ];
    let found = circles_of(&tree);
    assert_eq!(found, ["2 files\n    a::x -> a::y: Other, y\n    a::y -> a::x: Held"]);
    let called = [
        file("src/a/mod.rs", "mod x;\npub struct Top;\nfn f() { x::g() }\n"),
        file("src/a/x.rs", "use super::Top;\nfn g() {}\n"),
    ];
    assert!(circles_of(&called).is_empty(), "a module and its parts are one");
    assert!(circles_of(&tree[..3]).is_empty());
}
