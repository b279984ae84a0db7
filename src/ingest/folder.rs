//! Files and folders as sources of documents.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::source::{ItemLocation, SourceItem, SourceListing};
use crate::{extract::DocumentFormat, limits};

/// The reason for a failure at a link that leads out of the folder.
pub const OUTSIDE: &str = "the link leads out of the folder";

/// Lists the documents below a folder, or one file.
///
/// Hidden files and folders are left out, links back to a folder above are noted; links that lead out of the folder
/// `within` are failures.
pub fn list(root: &Path, within: Option<&Path>) -> SourceListing {
    if root.is_file() {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return match DocumentFormat::of_name(&name) {
            Some(_) => SourceListing { items: vec![item(name, root, within)], ..SourceListing::default() },
            None => SourceListing::failed(&name, "its form is not understood"),
        };
    }
    let mut listing = SourceListing::default();
    let mut outside = Vec::new();
    let visible = |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.');
    let mut may_enter = |entry: &DirEntry| {
        if !visible(entry) {
            return false;
        }
        let is_outside = entry.path_is_symlink() && within.is_some_and(|within| inside(entry.path(), within).is_none());
        if is_outside {
            outside.push((id(root, entry.path()), OUTSIDE.to_string()));
        }
        !is_outside
    };
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter().filter_entry(&mut may_enter) {
        let entry = match entry {
            Ok(entry) => entry,
            // The folder itself lists the same files.
            Err(error) if error.loop_ancestor().is_some() => {
                let path = id(root, error.path().unwrap_or(root));
                listing.notes.push(format!("{path}: the link leads back to a folder above it, and was not followed"));
                continue;
            }
            Err(error) => {
                let path = error.path().unwrap_or(root);
                listing.failures.push((id(root, path), said(&error)));
                continue;
            }
        };
        if !entry.file_type().is_file() || DocumentFormat::of_name(&entry.file_name().to_string_lossy()).is_none() {
            continue;
        }
        if listing.items.len() == limits::INGEST_ITEMS_MAX {
            listing.failures.push((id(root, root), format!("it holds more than {} files", limits::INGEST_ITEMS_MAX)));
            break;
        }
        listing.items.push(item(id(root, entry.path()), entry.path(), within));
    }
    listing.failures.extend(outside);
    listing
}

fn said(error: &walkdir::Error) -> String {
    error.io_error().map_or_else(|| "it can't be read".into(), ToString::to_string)
}

/// Returns the target of a path, if it is inside of a folder. The folder's own path must be free of links.
pub fn inside(path: &Path, within: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|found| found.starts_with(within))
}

fn item(id: String, path: &Path, within: Option<&Path>) -> SourceItem {
    let place = ItemLocation::File { path: path.to_path_buf(), within: within.map(Path::to_path_buf) };
    SourceItem { id, url: None, content: None, place }
}

/// Returns a path relative to the root, with `/` on every system.
fn id(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    if parts.is_empty() { root.display().to_string() } else { parts.join("/") }
}
