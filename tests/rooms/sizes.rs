//! Functions fit a screen, and no run of lines stands twice. `cargo test --test rooms sizes -- --nocapture` prints the longest.

use std::collections::HashMap;

use crate::support::source::{Source, expect_none, sources};

const FUNCTION_MAX_LINES: usize = 70;
/// The shortest run of lines that counts as a duplicate.
const DUPLICATE_LINES: usize = 10;
/// The longest functions that are printed.
const SHOWN: usize = 10;

/// A function: its place and name, and its lines from `fn` to the brace that closes it.
struct Function {
    place: String,
    lines: usize,
}

fn functions(source: &Source) -> Vec<Function> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((modifiers, rest)) = code.split_once("fn ") else { continue };
        let is_modifier = |word: &str| word.starts_with("pub") || ["async", "const", "unsafe"].contains(&word);
        if !modifiers.split(' ').all(|word| word.is_empty() || is_modifier(word)) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let is_end = |line: &&str| **line == end || line.starts_with(&format!("{end} "));
        let length = lines[at..].iter().position(is_end).map_or(1, |length| length + 1);
        let declared = lines[at..].iter().position(|line| line.ends_with(';') || line.ends_with('{'));
        // A function without a body ends with its declaration.
        if declared.is_some_and(|declared| lines[at + declared].ends_with('{')) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push(Function { place: format!("{}:{} {name}", source.path, at + 1), lines: length });
        }
    }
    found
}

/// Returns the lines that say something, with single spaces, and their numbers.
fn telling(source: &Source) -> Vec<(usize, String)> {
    let lines = source.text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).enumerate();
    let says = |line: &str| {
        let is_punctuation = line.chars().all(|c| "})];, ".contains(c));
        !is_punctuation && !["//", "use ", "pub use ", "#["].iter().any(|begin| line.starts_with(begin))
    };
    lines.filter(|(_, line)| says(line)).map(|(n, line)| (n + 1, line)).collect()
}

/// Returns the places of runs of lines that stand more than once, one for each run.
fn duplicates(sources: &[Source]) -> Vec<String> {
    let all: Vec<Vec<(usize, String)>> = sources.iter().map(telling).collect();
    let mut places: HashMap<Vec<&str>, Vec<(usize, usize)>> = HashMap::new();
    for (file, lines) in all.iter().enumerate() {
        for (at, window) in lines.windows(DUPLICATE_LINES).enumerate() {
            places.entry(window.iter().map(|(_, line)| line.as_str()).collect()).or_default().push((file, at));
        }
    }
    let mut found: Vec<&Vec<(usize, usize)>> = places.values().filter(|places| places.len() > 1).collect();
    found.sort();
    let is_begun = |places: &&&Vec<(usize, usize)>| {
        let before: Option<Vec<_>> = places.iter().map(|(file, at)| Some((*file, at.checked_sub(1)?))).collect();
        before.is_none_or(|before| !found.contains(&&before))
    };
    let describe = |(file, at): &(usize, usize)| format!("{}:{}", sources[*file].path, all[*file][*at].0);
    found.iter().filter(is_begun).map(|places| places.iter().map(describe).collect::<Vec<_>>().join(" = ")).collect()
}

#[test]
fn functions_fit_a_screen() {
    let mut all: Vec<Function> = sources(&["src", "tests"]).iter().flat_map(functions).collect();
    all.sort_by_key(|function| std::cmp::Reverse(function.lines));
    for Function { place, lines } in &all[..SHOWN] {
        println!("{lines} {place}");
    }
    let long = all.iter().filter(|function| function.lines > FUNCTION_MAX_LINES);
    let long = long.map(|Function { place, lines }| format!("{place}: {lines} lines"));
    expect_none(long.collect(), "a function has 70 lines at most");
}

#[test]
fn no_ten_lines_stand_twice() {
    expect_none(duplicates(&sources(&["src", "tests"])), "ten lines or more that stand twice");
}

#[test]
fn long_functions_and_duplicates_are_found() {
    let body: String = (0..12).map(|n| format!("        let a{n} = {n};\n")).collect();
    let text = format!("impl A {{\n    pub async fn long() {{\n{body}    }}\n    fn declared();\n}}\n");
    let file = |path: &str| Source { path: path.into(), text: text.clone() };
    let found = functions(&file("a.rs"));
    assert_eq!(found.iter().map(|f| (f.place.as_str(), f.lines)).collect::<Vec<_>>(), [("a.rs:2 long", 14)]);
    assert_eq!(duplicates(&[file("a.rs"), file("b.rs")]), ["a.rs:1 = b.rs:1"]);
    assert!(duplicates(&[file("a.rs")]).is_empty());
}
