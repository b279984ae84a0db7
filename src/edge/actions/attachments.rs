//! Images and files of a message: the allowed kinds, and the storage of their content.
//!
//! An http or https URL is kept as it is, if it leads to the public internet; the edge does not fetch it, but models and tools do. A
//! `data:` URL is decoded and its content put into the object store, so that neither an event nor a fold ever holds it. The kind follows
//! from the media type that the client declares; content is not sniffed.

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::{net::lookup_host, sync::Semaphore, time::timeout};
use url::{Host, Url};

use crate::{
    domain::{
        event::{AttachmentContent, File, Image},
        title,
    },
    fetch::{self, FetchPolicy},
    limits,
    log::objects::{ObjectPutError, ObjectStore},
    subjects::ConversationKey,
    wire::actions::{BadFrame, FrameFields, GivenFile, GivenImage, invalid},
};

/// Image types that models accept.
const IMAGE_TYPES: &[&str] = &["image/png", "image/jpeg", "image/gif", "image/webp"];
/// File types that tools accept: texts, documents, tables, slides, archives, pictures. No programs.
const FILE_TYPES: &[&str] = &[
    "application/gzip",
    "application/json",
    "application/msword",
    "application/pdf",
    "application/rtf",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/xml",
    "application/yaml",
    "application/zip",
];
const FILE_TYPE_FAMILIES: &[&str] =
    &["text/", "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument."];

/// The checked attachments of a message. Inline content is decoded and not yet stored.
#[derive(Default)]
pub struct Attachments {
    images: Vec<(Source, Option<String>)>,
    files: Vec<(Source, String, Option<String>)>,
}

/// The location of an attachment's content.
enum Source {
    Url(String),
    Inline { media_type: String, content: Bytes },
}

/// Takes the attachments out of a frame and checks them.
pub async fn take(fields: &mut FrameFields) -> Result<Attachments, BadFrame> {
    let (images, files) = (fields.take_images(), fields.take_files());
    if images.is_empty() && files.is_empty() {
        return Ok(Attachments::default());
    }
    // Decoding megabytes would block this thread's other connections.
    let checked = tokio::task::spawn_blocking(move || check(images, files)).await;
    checked.unwrap_or_else(|_| Err(invalid("the attachments can't be read")))
}

fn check(images: Vec<GivenImage>, files: Vec<GivenFile>) -> Result<Attachments, BadFrame> {
    for (list, count) in [("images", images.len()), ("files", files.len())] {
        if count > limits::ATTACHMENTS_MAX {
            return Err(invalid(format!("`{list}` has more than {} entries", limits::ATTACHMENTS_MAX)));
        }
    }
    let images = images.into_iter().enumerate().map(|(n, given)| image(n, given));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let files = files.into_iter().map(file).collect::<Result<Vec<_>, _>>()?;
    let sources = images.iter().map(|(source, _)| source).chain(files.iter().map(|(source, ..)| source));
    let bytes: usize = sources.map(Source::bytes).sum();
    if bytes > limits::ATTACHMENTS_MAX_BYTES {
        return Err(invalid(format!(
            "the attachments have more than {} MiB together",
            limits::ATTACHMENTS_MAX_BYTES >> 20
        )));
    }
    Ok(Attachments { images, files })
}

impl Attachments {
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.files.is_empty()
    }

    /// Returns the SHA-256 of each attachment's content or URL, as the attachments' identity.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let sources = self.images.iter().map(|(source, _)| source).chain(self.files.iter().map(|(source, ..)| source));
        sources.map(Source::digest).collect()
    }

    /// Checks that the fetch guard allows every URL. Host names are resolved; a name that is unknown here is left to the program that
    /// fetches.
    pub async fn check_urls(&self, policy: &FetchPolicy) -> Result<(), BadFrame> {
        let images = self.images.iter().enumerate().map(|(n, (source, _))| (format!("image {}", n + 1), source));
        let files = self.files.iter().map(|(source, name, _)| (name.clone(), source));
        for (title, source) in images.chain(files) {
            let Source::Url(url) = source else { continue };
            let refused = |why: String| invalid(format!("{title}: {why}"));
            let url = policy.check(url).map_err(|why| refused(why.to_string()))?;
            let (Some(Host::Domain(name)), Some(port), false) =
                (url.host(), url.port_or_known_default(), policy.lists(&url))
            else {
                continue;
            };
            match is_public(name.to_string(), port).await {
                Some(true) => {}
                Some(false) => return Err(refused(format!("the host `{name}` is not on the public internet"))),
                None => return Err(refused(format!("the host `{name}` can't be looked up now, please try again"))),
            }
        }
        Ok(())
    }

    /// Puts inline content into the object store and returns the location of every attachment.
    pub async fn store(
        self,
        objects: &ObjectStore,
        key: &ConversationKey,
    ) -> Result<(Vec<Image>, Vec<File>), BadFrame> {
        let (mut images, mut files) = (Vec::new(), Vec::new());
        for (source, detail) in self.images {
            images.push(Image { content: source.store(objects, key).await?, detail });
        }
        for (source, name, mime_type) in self.files {
            files.push(File { name, mime_type, content: source.store(objects, key).await? });
        }
        Ok((images, files))
    }
}

/// Limits concurrent lookups. An abandoned lookup still holds a thread until it ends.
static LOOKUPS: Semaphore = Semaphore::const_new(limits::ATTACHMENT_LOOKUPS);

/// Returns true if a name resolves to public addresses alone, or not at all; `None` if the lookup takes too long.
async fn is_public(name: String, port: u16) -> Option<bool> {
    let wait = Duration::from_millis(limits::ATTACHMENT_LOOKUP_MS);
    let leave = timeout(wait, LOOKUPS.acquire()).await.ok()?.ok()?;
    let looked_up = tokio::spawn(async move {
        let addresses = lookup_host((name, port)).await;
        drop(leave);
        addresses.map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<_>>())
    });
    let addresses = timeout(wait, looked_up).await.ok()?.ok()?;
    Some(addresses.map_or(true, |addresses| addresses.into_iter().all(fetch::is_public)))
}

impl Source {
    fn bytes(&self) -> usize {
        match self {
            Self::Url(_) => 0,
            Self::Inline { content, .. } => content.len(),
        }
    }

    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Url(url) => Sha256::digest(url).into(),
            Self::Inline { content, .. } => Sha256::digest(content).into(),
        }
    }

    async fn store(self, objects: &ObjectStore, key: &ConversationKey) -> Result<AttachmentContent, BadFrame> {
        match self {
            Self::Url(url) => Ok(AttachmentContent::Url(url)),
            Self::Inline { media_type, content } => {
                let stored = objects.put(&key.org, key.conversation, &media_type, content).await;
                let object = stored.map_err(|error| match error {
                    ObjectPutError::Append(error) => BadFrame::from(error),
                    ObjectPutError::Read(error) => BadFrame::from(error),
                })?;
                Ok(AttachmentContent::Object(object))
            }
        }
    }
}

fn image(n: usize, given: GivenImage) -> Result<(Source, Option<String>), BadFrame> {
    let title = format!("image {}", n + 1);
    let source = source(&title, given.url)?;
    match &source {
        Source::Inline { media_type, .. } if !IMAGE_TYPES.contains(&media_type.as_str()) => {
            Err(invalid(format!("{title}: `{media_type}` is not allowed; images are png, jpeg, gif or webp")))
        }
        _ => Ok((source, given.detail)),
    }
}

fn file(given: GivenFile) -> Result<(Source, String, Option<String>), BadFrame> {
    let name = title::one_line(&given.name);
    if name.chars().count() > limits::ATTACHMENT_NAME_MAX_CHARS {
        return Err(invalid(format!("a file's name is longer than {} characters", limits::ATTACHMENT_NAME_MAX_CHARS)));
    }
    let title = format!("file `{name}`");
    let source = source(&title, given.url)?;
    let declared = given.mime_type.as_deref().map(essence);
    let carried = match &source {
        Source::Inline { media_type, .. } => Some(media_type.clone()),
        Source::Url(_) => None,
    };
    // The type declared beside a `data:` URL does not override the URL's own type, so both are checked.
    for media_type in declared.iter().chain(&carried) {
        let in_family = FILE_TYPE_FAMILIES.iter().any(|family| media_type.starts_with(family));
        if !in_family && !FILE_TYPES.contains(&media_type.as_str()) && !IMAGE_TYPES.contains(&media_type.as_str()) {
            return Err(invalid(format!("{title}: files of the type `{media_type}` are not allowed")));
        }
    }
    Ok((source, name, declared.or(carried)))
}

/// Returns a media type without its parameters.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().chars().take(128).collect()
}

fn source(title: &str, url: String) -> Result<Source, BadFrame> {
    let is_data = url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if is_data {
        let (media_type, content) = decode(title, &url[5..])?;
        return Ok(Source::Inline { media_type, content: content.into() });
    }
    if url.len() > limits::ATTACHMENT_URL_MAX_BYTES {
        return Err(invalid(format!("{title}: its URL is longer than {} bytes", limits::ATTACHMENT_URL_MAX_BYTES)));
    }
    match Url::parse(url.trim()) {
        Ok(parsed) if ["http", "https"].contains(&parsed.scheme()) => Ok(Source::Url(url.trim().to_string())),
        Ok(_) | Err(_) => Err(invalid(format!("{title}: its `url` is not an http, https or data URL"))),
    }
}

/// Decodes a `data:` URL, given without its scheme, into its media type and content.
fn decode(title: &str, rest: &str) -> Result<(String, Vec<u8>), BadFrame> {
    let too_large = || invalid(format!("{title}: larger than {} MiB", limits::ATTACHMENT_MAX_BYTES >> 20));
    let (head, data) = rest.split_once(',').ok_or_else(|| invalid(format!("{title}: its data URL has no data")))?;
    let head = head.to_ascii_lowercase();
    let media_type = match essence(&head) {
        none if none.is_empty() || none == "base64" => "text/plain".into(),
        media_type => media_type,
    };
    let is_base64 = head.split(';').skip(1).any(|parameter| parameter.trim() == "base64");
    // Four letters are three bytes. The bound is lenient; it keeps far too large data from being decoded first.
    if is_base64 && data.len() / 4 * 3 > limits::ATTACHMENT_MAX_BYTES + 4 {
        return Err(too_large());
    }
    let content = if is_base64 {
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let decoded = GeneralPurpose::new(&alphabet::STANDARD, config).decode(data);
        decoded.map_err(|_| invalid(format!("{title}: its data URL is not base64")))?
    } else {
        percent_decoded(data)
    };
    match content.len() {
        0 => Err(invalid(format!("{title}: it is empty"))),
        bytes if bytes > limits::ATTACHMENT_MAX_BYTES => Err(too_large()),
        _ => Ok((media_type, content)),
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| {
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| byte == b'%' && digits[0] != b'+')
        });
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::{actions::read, frames::ErrorCode};

    fn taken(images: Value, files: Value) -> Result<Attachments, String> {
        let frame = json!({ "action": "send_message", "images": images, "files": files });
        let mut request = read(&frame.to_string()).unwrap();
        check(request.fields.take_images(), request.fields.take_files()).map_err(|bad| {
            assert_eq!(bad.code, ErrorCode::ValidationError);
            bad.message
        })
    }

    fn file(name: &str, url: &str) -> Value {
        json!([{ "name": name, "url": url }])
    }

    #[test]
    fn data_urls_are_decoded_by_their_own_type() {
        let attachments = taken(
            json!([{ "url": "DATA:image/PNG;base64,AQID" }, { "url": "https://e.example/x", "detail": "low" }, 7]),
            json!([{ "name": " a\u{7}.txt ", "url": "data:,a%20b%zz+%+1" }, { "name": "b", "mimeType": "Text/CSV; x=1", "url": "http://e.example/" }]),
        )
        .unwrap();
        assert!(
            matches!(&attachments.images[0].0, Source::Inline { media_type, content } if media_type == "image/png" && content[..] == [1, 2, 3])
        );
        assert!(
            matches!(&attachments.images[1], (Source::Url(url), Some(detail)) if url == "https://e.example/x" && detail == "low")
        );
        assert!(
            matches!(&attachments.files[0], (Source::Inline { content, .. }, name, Some(kind)) if content[..] == *b"a b%zz+%+1" && name == "a.txt" && kind == "text/plain")
        );
        assert!(matches!(&attachments.files[1], (Source::Url(_), _, Some(kind)) if kind == "text/csv"));
    }

    #[test]
    fn refused_attachments_are_named() {
        let none = || json!(null);
        let large =
            format!("data:text/plain;base64,{}", "A".repeat((limits::ATTACHMENT_MAX_BYTES + 1).div_ceil(3) * 4));
        let half = format!("data:text/plain,{}", "A".repeat(limits::ATTACHMENT_MAX_BYTES));
        let many = vec![json!({ "url": "https://e.example/" }); limits::ATTACHMENTS_MAX + 1];
        let three = json!([1, 2, 3].map(|n| json!({ "name": n.to_string(), "url": half })));
        for (images, files, words) in [
            (json!([{ "url": "data:image/svg+xml,<svg/>" }]), none(), "image 1: `image/svg+xml` is not allowed"),
            (json!([{ "url": "file:///etc/passwd" }]), none(), "image 1: its `url` is not"),
            (json!([{ "url": "data:image/png;base64,A*" }]), none(), "image 1: its data URL is not base64"),
            (json!([{ "url": "data:image/png;base64," }]), none(), "image 1: it is empty"),
            (json!(many), none(), "`images` has more than 8"),
            (none(), file("run.exe", "data:application/x-msdownload;base64,AAAA"), "file `run.exe`: files of the type"),
            (none(), json!([{ "name": "x", "mimeType": "application/x-sh", "url": "https://e.example" }]), "file `x`"),
            (none(), json!([{ "name": "x", "mimeType": "text/plain", "url": "data:application/x-sh,x" }]), "file `x`"),
            (none(), file("big.txt", &large), "file `big.txt`: larger than 8 MiB"),
            (none(), file(&"n".repeat(256), "https://e.example"), "name is longer"),
            (none(), file("x", &format!("https://e.example/{}", "x".repeat(3000))), "longer than 2048"),
            (none(), three, "more than 16 MiB together"),
        ] {
            let problem = taken(images, files).err().unwrap_or_default();
            assert!(problem.contains(words), "{words}: {problem}");
        }
        assert!(taken(none(), file("half.txt", &half)).is_ok());
    }
}
