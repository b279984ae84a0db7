//! A page's main text as Markdown: what a reader came for, without menus, scripts and forms.

use std::{collections::HashMap, rc::Rc};

use htmd::{HtmlToMarkdown, Node};
use markup5ever_rcdom::NodeData;

use super::ExtractError;
use crate::limits;

/// What a page says.
pub struct Page {
    pub title: Option<String>,
    pub markdown: String,
}

/// Elements without a reader's text.
const SKIPPED: &[&str] = &[
    "script", "style", "noscript", "template", "nav", "footer", "aside", "form", "button", "svg", "iframe", "object",
    "canvas", "title", "head", "img", "picture", "video", "audio",
];

/// Reads a page.
pub fn page(html: &str) -> Result<Page, ExtractError> {
    let converter = HtmlToMarkdown::builder().skip_tags(SKIPPED.to_vec()).build();
    let tree = converter.html_to_tree(html).map_err(|_| ExtractError::NotText)?;
    let found = look(&tree)?;
    let title = found.get("title").and_then(|nodes| nodes.first()).map(|node| words(node)).filter(|t| !t.is_empty());
    // The main part, when the page names exactly one; a list of articles is all of the page.
    let main = ["main", "article"].iter().filter_map(|name| found.get(name)).find(|nodes| nodes.len() == 1);
    let root = main.map_or(&tree, |nodes| &nodes[0]);
    Ok(Page { title, markdown: converter.tree_to_markdown(root) })
}

/// The elements that matter, by name. The tree is refused when it is so deep that walking it would need too much stack.
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
        // Backwards, so that the first comes off the stack first.
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
