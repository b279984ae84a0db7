//! Pages and sitemaps as sources of documents.

use std::collections::HashSet;

use quick_xml::{Reader, events::Event};
use url::Url;

use super::{
    access::WebAccess,
    source::{ItemLocation, SourceItem, SourceListing},
};
use crate::limits;

/// Returns a page as a document: its id is its URL without the fragment.
pub fn item(mut url: Url) -> SourceItem {
    url.set_fragment(None);
    let id = url.to_string();
    SourceItem { id: id.clone(), url: Some(id.clone()), content: None, place: ItemLocation::Page(id) }
}

/// Lists the pages of a sitemap, or of the sitemaps of an index.
pub async fn sitemap(web: &WebAccess, url: &Url) -> SourceListing {
    let mut listing = SourceListing::default();
    let (mut open, mut seen, mut pages) = (vec![url.to_string()], HashSet::new(), HashSet::new());
    while let Some(url) = open.pop() {
        if seen.len() == limits::SITEMAPS_MAX {
            listing.failures.push((url, format!("there are more than {} sitemaps", limits::SITEMAPS_MAX)));
            break;
        }
        if !seen.insert(url.clone()) {
            continue;
        }
        let read = match web.fetcher.fetch(&url, &Default::default()).await {
            Ok(fetched) => locations(&fetched.body),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(Locations { sitemaps, pages: found }) => {
                open.extend(sitemaps.into_iter().rev());
                for page in found {
                    match Url::parse(&page) {
                        Ok(page) if listing.items.len() < limits::INGEST_ITEMS_MAX => {
                            let item = item(page);
                            if pages.insert(item.id.clone()) {
                                listing.items.push(item);
                            }
                        }
                        Ok(_) => listing.failures.push((page, "there are too many pages".into())),
                        Err(_) => listing.failures.push((page, "this is not a URL".into())),
                    }
                }
            }
            Err(why) => listing.failures.push((url, why)),
        }
    }
    listing
}

/// The URLs in a sitemap.
#[derive(Debug, Default, PartialEq)]
struct Locations {
    sitemaps: Vec<String>,
    pages: Vec<String>,
}

/// Parses the `loc` of each `url` and each `sitemap`. Entities that the document defines itself are not expanded.
fn locations(xml: &[u8]) -> Result<Locations, String> {
    let text = std::str::from_utf8(xml).map_err(|_| "the sitemap is not UTF-8")?;
    let mut reader = Reader::from_str(text);
    let mut found = Locations::default();
    let mut open: Vec<String> = Vec::new();
    let mut location = String::new();
    let mut is_sitemap = false;
    loop {
        match reader.read_event().map_err(|error| format!("the sitemap is not XML: {error}"))? {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_string();
                is_sitemap |= name == "urlset" || name == "sitemapindex";
                open.push(name);
                location.clear();
            }
            Event::Text(text) => location.push_str(&text),
            Event::CData(text) => location.push_str(&text),
            Event::GeneralRef(name) => match name.as_ref() {
                "amp" => location.push('&'),
                "quot" => location.push('"'),
                "apos" => location.push('\''),
                _ => return Err("the sitemap holds an unknown entity".into()),
            },
            Event::End(_) => {
                let parent = open.len().checked_sub(2).map(|at| open[at].as_str());
                if open.last().is_some_and(|name| name == "loc") {
                    match parent {
                        Some("url") => found.pages.push(location.trim().to_string()),
                        Some("sitemap") => found.sitemaps.push(location.trim().to_string()),
                        _ => {}
                    }
                }
                open.pop();
            }
            Event::Eof if is_sitemap => return Ok(found),
            Event::Eof => return Err("this is not a sitemap".into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sitemap_names_pages_and_other_sitemaps() {
        let xml = "<?xml version='1.0'?><urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>\
            <url><loc> https://a.example/x?y=1&amp;z=2 </loc><lastmod>2026</lastmod></url>\
            <url><loc><![CDATA[https://a.example/b]]></loc></url></urlset>";
        assert_eq!(locations(xml.as_bytes()).unwrap().pages, ["https://a.example/x?y=1&z=2", "https://a.example/b"]);
        let index = "<sitemapindex><sitemap><loc>https://a.example/1.xml</loc></sitemap></sitemapindex>";
        assert_eq!(locations(index.as_bytes()).unwrap().sitemaps, ["https://a.example/1.xml"]);
        for wrong in
            ["<html></html>", "not xml", "<urlset><a></b></urlset>", "<urlset><url><loc>&x;</loc></url></urlset>"]
        {
            assert!(locations(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
