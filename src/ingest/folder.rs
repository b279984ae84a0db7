//! Files and folders.

use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::origin::{Item, Listing, Place};
use crate::{extract::Form, limits};

/// The documents below a folder, or one file. Hidden files and folders are left out, circles of links are reported.
pub fn list(root: &Path) -> Listing {
    if root.is_file() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return match Form::of_name(&name) {
            Some(_) => Listing { items: vec![item(name, root)], ..Listing::default() },
            None => Listing::failed(&name, "its form is not understood"),
        };
    }
    let mut listing = Listing::default();
    let visible = |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.');
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter().filter_entry(visible) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(root);
                listing.failures.push((id(root, path), said(&error)));
                continue;
            }
        };
        if !entry.file_type().is_file() || Form::of_name(&entry.file_name().to_string_lossy()).is_none() {
            continue;
        }
        if listing.items.len() == limits::INGEST_ITEMS_MAX {
            listing.failures.push((id(root, root), format!("it holds more than {} files", limits::INGEST_ITEMS_MAX)));
            break;
        }
        listing.items.push(item(id(root, entry.path()), entry.path()));
    }
    listing
}

fn said(error: &walkdir::Error) -> String {
    match (error.loop_ancestor(), error.io_error()) {
        (Some(_), _) => "the link leads back to a folder above it".into(),
        (None, Some(error)) => error.to_string(),
        (None, None) => "it can't be read".into(),
    }
}

fn item(id: String, path: &Path) -> Item {
    Item { id, url: None, content: None, place: Place::File(path.to_path_buf()) }
}

/// A path relative to the root, with `/` on every system.
fn id(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    if parts.is_empty() { root.display().to_string() } else { parts.join("/") }
}
