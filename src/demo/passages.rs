//! Answers from the passages of a request.
//!
//! Contract: the section begins with the line `Relevant knowledge:` in a system message and holds passages as `[n] Title`,
//! their text, and an empty line. An answer quotes only sentences of the passages, with their title.

use super::request::{CompletionRequest, PromptRole};
use super::words::stems;
use std::collections::HashSet;

const SECTION: &str = "Relevant knowledge:";
/// The least share of a question's words that a sentence must match; below it, the sentence is off-topic.
const OVERLAP_MIN: f64 = 0.3;
/// The weight of a word matched only in the title; one matched in the sentence weighs 1.
const TITLE_WEIGHT: f64 = 0.5;
/// The most sentences of an answer.
const SENTENCES_MAX: usize = 2;

#[derive(Debug, PartialEq)]
struct Passage<'a> {
    title: &'a str,
    text: String,
}

/// Returns the sentences that answer the question best, or `None` if no sentence is on topic.
pub fn answer(request: &CompletionRequest, question: &str) -> Option<String> {
    let asked = stems(question);
    if asked.is_empty() {
        return None;
    }
    let passages = passages(request);
    let mut best: Option<(f64, &str, String)> = None;
    for passage in &passages {
        let (score, quote) = quote(passage, &asked);
        if best.as_ref().is_none_or(|(most, _, _)| score > *most) {
            best = Some((score, passage.title, quote));
        }
    }
    let (score, title, quote) = best?;
    let enough = score / asked.len() as f64 >= OVERLAP_MIN;
    enough.then(|| format!("According to “{title}”: {quote}"))
}

/// Parses the passages of the last knowledge section.
fn passages(request: &CompletionRequest) -> Vec<Passage<'_>> {
    let systems = request.messages.iter().filter(|m| m.role == PromptRole::System);
    let mut sections = systems.filter_map(|message| section(&message.content));
    let mut found: Vec<Passage<'_>> = Vec::new();
    for line in sections.next_back().unwrap_or_default().lines() {
        if let Some(title) = passage_title(line) {
            found.push(Passage { title, text: String::new() });
        } else if let Some(passage) = found.last_mut() {
            passage.text.push_str(line);
            passage.text.push('\n');
        }
    }
    found
}

/// Returns the text after the section's opening line.
fn section(message: &str) -> Option<&str> {
    let mut rest = message;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim() == SECTION {
            return Some(after);
        }
        rest = after;
    }
    None
}

fn passage_title(line: &str) -> Option<&str> {
    let (number, title) = line.strip_prefix('[')?.split_once("] ")?;
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    numbered.then(|| title.trim())
}

/// Returns the score of a passage and its best sentences, in the order of the text.
fn quote(passage: &Passage<'_>, asked: &HashSet<String>) -> (f64, String) {
    let title = stems(passage.title);
    let sentences = sentences(&passage.text);
    let mut scored: Vec<(usize, f64)> =
        sentences.iter().map(|sentence| score(&stems(sentence), &title, asked)).enumerate().collect();
    // A stable sort: of two equally good sentences the earlier one stays first.
    scored.sort_by(|one, other| other.1.total_cmp(&one.1));
    let Some(best) = scored.first().map(|(_, score)| *score) else {
        return (0.0, String::new());
    };
    scored.truncate(SENTENCES_MAX);
    scored.retain(|(_, score)| *score == best || (*score >= 1.0 && *score * 2.0 > best));
    scored.sort_by_key(|(at, _)| *at);
    let quoted: Vec<&str> = scored.iter().map(|(at, _)| sentences[*at]).collect();
    (best, quoted.join(" "))
}

fn score(sentence: &HashSet<String>, title: &HashSet<String>, asked: &HashSet<String>) -> f64 {
    let word_score = |word: &String| match (sentence.contains(word), title.contains(word)) {
        (true, _) => 1.0,
        (false, true) => TITLE_WEIGHT,
        (false, false) => 0.0,
    };
    asked.iter().map(word_score).sum()
}

/// Splits a text into sentences, without the marks of headings and lists.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start_matches(['#', '-', '*', '>', ' ', '\t']);
        while !rest.is_empty() {
            let (sentence, after) = rest.split_at(sentence_end(rest));
            found.push(sentence.trim());
            rest = after.trim_start();
        }
    }
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Returns the end of the first sentence: after a full stop before a space, or the end of the text.
fn sentence_end(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let followed_by_space = chars.peek().is_some_and(|(_, next)| next.is_whitespace());
        if matches!(c, '.' | '!' | '?') && followed_by_space {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KNOWLEDGE: &str = "You are helpful.\n\nRelevant knowledge:\n\
        [1] Shipping\nOrders ship within one day. Delivery takes 5–7 business days.\n\n\
        [2] Returns policy\n# Returns\nAn item can be returned unused. The return window is 17 \
        days from delivery.\n- Refunds go to the card that paid.\n\n";

    fn ask(system: &str, question: &str) -> Option<String> {
        let request = serde_json::from_value(json!({"model": "m", "messages": [
            {"role": "system", "content": system}, {"role": "user", "content": question}]}));
        answer(&request.unwrap(), question)
    }

    #[test]
    fn the_best_sentence_is_quoted_with_its_title() {
        assert_eq!(
            ask(KNOWLEDGE, "How long is your return window?").unwrap(),
            "According to “Returns policy”: The return window is 17 days from delivery."
        );
        let shipping = ask(KNOWLEDGE, "how long does delivery take").unwrap();
        assert!(shipping.contains("“Shipping”: Delivery takes 5–7 business days."));
        let card = ask(KNOWLEDGE, "Which card do refunds go to?").unwrap();
        assert!(card.ends_with("Refunds go to the card that paid."));
    }

    #[test]
    fn without_overlap_or_passages_there_is_no_answer() {
        assert_eq!(ask(KNOWLEDGE, "Who won the football match?"), None);
        assert_eq!(ask(KNOWLEDGE, "what is it"), None);
        assert_eq!(ask("Be kind.", "How long is your return window?"), None);
        assert_eq!(ask("Relevant knowledge:", "return window"), None);
    }
}
