//! `fetch_url`: a public page's text for the model, under the guard of [`crate::fetch`].

use serde_json::{Value, json};

use super::builtin::required;
use crate::{
    extract::{self, Form},
    fetch::Fetcher,
};

/// The tool.
#[derive(Clone)]
pub struct FetchUrl(pub Fetcher);

impl FetchUrl {
    pub async fn call(&self, arguments: &Value) -> Result<String, String> {
        let url = required(arguments, "url")?;
        let fetched = self.0.fetch(url, &Default::default()).await.map_err(|error| format!("Not fetched: {error}."))?;
        let content_type = if fetched.content_type.is_empty() { "text/plain" } else { &fetched.content_type };
        let form = Form::of_content_type(content_type)
            .ok_or_else(|| format!("Not read: the content type `{content_type}` is not understood."))?;
        // A PDF can exhaust the memory or the stack of whoever reads it, and this is a worker; ingest may risk that.
        if form == Form::Pdf {
            return Err("Not read: it is a PDF.".into());
        }
        // Front matter on a strange page decides nothing here.
        let form = if form == Form::Markdown { Form::Plain } else { form };
        let body = fetched.body;
        let read = tokio::task::spawn_blocking(move || extract::extract(form, &body)).await;
        let page = read.map_err(|_| "Not read: its reader gave up.")?.map_err(|error| format!("Not read: {error}."))?;
        Ok(json!({ "url": fetched.url.as_str(), "title": page.title, "text": page.text }).to_string())
    }
}
