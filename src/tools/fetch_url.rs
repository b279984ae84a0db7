//! `fetch_url`: the text of a public page for the model, fetched through the guard of [`crate::fetch`].

use serde_json::{Value, json};

use super::context::required;
use crate::{
    extract::{DocumentFormat, SandboxReader},
    fetch::Fetcher,
};

#[derive(Clone)]
pub struct FetchUrl {
    pub fetcher: Fetcher,
    pub reader: SandboxReader,
}

impl FetchUrl {
    pub async fn call(&self, arguments: &Value) -> Result<String, String> {
        let url = required(arguments, "url")?;
        let fetched =
            self.fetcher.fetch(url, &Default::default()).await.map_err(|error| format!("Not fetched: {error}."))?;
        let content_type = if fetched.content_type.is_empty() { "text/plain" } else { &fetched.content_type };
        let form = DocumentFormat::of_content_type(content_type)
            .ok_or_else(|| format!("Not read: the content type `{content_type}` is not understood."))?;
        // Front matter of a foreign page has no effect here.
        let form = if form == DocumentFormat::Markdown { DocumentFormat::Plain } else { form };
        let read = self.reader.read(form, fetched.body.to_vec()).await;
        let page = read.map_err(|why| format!("Not read: {why}."))?.extracted;
        Ok(json!({ "url": fetched.url.as_str(), "title": page.title, "text": page.text }).to_string())
    }
}
