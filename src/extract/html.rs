//! A page's main text as Markdown, without menus, scripts and forms.

use std::{collections::HashMap, rc::Rc};

use htmd::{HtmlToMarkdown, Node};
use markup5ever_rcdom::NodeData;

use super::ExtractError;
use crate::limits;

/// The title and the text of a page.
pub struct HtmlText {
    pub title: Option<String>,
    pub markdown: String,
}

/// Elements without text for readers.
const SKIPPED: &[&str] = &[
    "script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button", "svg", "iframe", "object",
    "canvas", "title", "head", "img", "picture", "video", "audio",
];

/// Converts a page.
pub fn page(html: &str) -> Result<HtmlText, ExtractError> {
    let converter = HtmlToMarkdown::builder().skip_tags(SKIPPED.to_vec()).build();
    let tree = converter.html_to_tree(html).map_err(|_| ExtractError::NotText)?;
    let found = look(&tree)?;
    let title = found.get("title").and_then(|nodes| nodes.first()).map(|node| words(node)).filter(|t| !t.is_empty());
    // The main part, when the page names exactly one; a list of articles is all of the page.
    let main = ["main", "article"].iter().filter_map(|name| found.get(name)).find(|nodes| nodes.len() == 1);
    let root = main.map_or(&tree, |nodes| &nodes[0]);
    Ok(HtmlText { title, markdown: converter.tree_to_markdown(root) })
}

/// Returns the elements that matter, by name. A tree that is too deep for the stack is refused.
fn look(tree: &Rc<Node>) -> Result<HashMap<&'static str, Vec<Rc<Node>>>, ExtractError> {
    let mut found: HashMap<&'static str, Vec<Rc<Node>>> = HashMap::new();
    let mut open = vec![(tree.clone(), 0)];
    while let Some((node, depth)) = open.pop() {
        if depth > limits::HTML_DEPTH_MAX {
            return Err(ExtractError::Nested);
        }
        if let NodeData::Element { name, .. } = &node.data
            && let Some(known) = ["title", "main", "article"].into_iter().find(|known| **known == *name.local)
        {
            found.entry(known).or_default().push(node.clone());
        }
        // In reverse, so that the first child comes off the stack first.
        open.extend(node.children.borrow().iter().rev().map(|child| (child.clone(), depth + 1)));
    }
    Ok(found)
}

fn words(node: &Node) -> String {
    let children = node.children.borrow();
    let texts = children.iter().filter_map(|child| match &child.data {
        NodeData::Text { contents } => Some(contents.borrow().to_string()),
        _ => None,
    });
    texts.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}
