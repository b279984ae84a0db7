//! `turnstream widget`: the line of HTML that puts an agent on a page.

use anyhow::bail;
use clap::Subcommand;
use url::Url;

use crate::widget::{LOADER, PATH, WidgetFiles};

/// The widget for pages of other hosts.
#[derive(Subcommand)]
pub enum Widget {
    /// Print the script tag that puts an agent on a page, and the Content-Security-Policy that it needs.
    Snippet {
        /// The agent's id.
        agent: String,
        /// The public address of an edge; given again, further ones that are used when the first is gone.
        #[arg(long = "edge", required = true, value_name = "URL")]
        edges: Vec<Url>,
        /// Pin this release by its digest (SRI). The tag must then be changed with each release of the edges.
        #[arg(long)]
        pin: bool,
    },
}

pub fn run(widget: Widget) -> anyhow::Result<()> {
    let Widget::Snippet { agent, edges, pin } = widget;
    let Some(origins) = edges.iter().map(origin).collect::<Option<Vec<_>>>() else {
        bail!("--edge: an address like https://chat.example.com is expected");
    };
    print!("{}", snippet(&agent, &origins, pin));
    Ok(())
}

fn origin(edge: &Url) -> Option<String> {
    let is_bare = matches!(edge.path(), "/" | "") && edge.query().is_none() && edge.fragment().is_none();
    (matches!(edge.scheme(), "https" | "http") && is_bare).then(|| edge.origin().ascii_serialization())
}

fn snippet(agent: &str, edges: &[String], pin: bool) -> String {
    let files = WidgetFiles::current();
    let (first, release) = (&edges[0], &files.release);
    let (source, pinned) = match pin {
        true => {
            let pinned = format!(r#" integrity="{}" crossorigin="anonymous""#, files.integrity());
            (format!("{first}{PATH}/{release}/{LOADER}"), pinned)
        }
        false => (format!("{first}{PATH}/{LOADER}"), String::new()),
    };
    let others = if edges.len() > 1 { format!(r#" data-edges="{}""#, edges.join(",")) } else { String::new() };
    let sockets: Vec<_> = edges.iter().map(|edge| edge.replacen("http", "ws", 1)).collect();
    let agent = escape(agent);
    format!(
        "<script async src=\"{source}\"{pinned} data-agent=\"{agent}\"{others}></script>\n\n\
         Content-Security-Policy of the page: script-src {}; connect-src {}\n",
        edges.join(" "),
        sockets.join(" "),
    )
}

/// Returns a text as the value of an attribute in double quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_names_agent_and_edges() {
        let edges = ["https://eu.example.com".to_string(), "https://us.example.com".to_string()];
        let text = snippet("a\"b", &edges, false);
        assert!(
            text.starts_with(
                r#"<script async src="https://eu.example.com/widget/v1/widget.js" data-agent="a&quot;b" "#
            )
        );
        assert!(text.contains(r#"data-edges="https://eu.example.com,https://us.example.com""#));
        assert!(text.contains("connect-src wss://eu.example.com wss://us.example.com"));
        let pinned = snippet("support", &edges[..1], true);
        assert!(
            pinned.contains("integrity=\"sha384-") && pinned.contains("crossorigin") && !pinned.contains("data-edges")
        );
    }

    #[test]
    fn an_edge_is_an_origin() {
        let of = |text: &str| origin(&Url::parse(text).unwrap());
        assert_eq!(of("https://chat.example.com/").as_deref(), Some("https://chat.example.com"));
        for bad in ["ftp://chat.example.com", "https://chat.example.com/path", "https://chat.example.com/?a"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
