//! Pictures of a turn's message, for the model. Files never reach it.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use super::Worker;
use crate::{
    domain::event::{AttachmentContent, Image, Object},
    limits,
    model::{ChatMessage, ChatRequest, ImageUrl},
    nats::ReadError,
    tools::ReadFiles,
};

/// Text for the model in place of an expired picture: the store keeps attachments for a while only.
const GONE: &str = "[An image that came with this message is no longer there.]";

/// Adds the pictures of a turn to the last user message of its request, which is the message that the turn answers.
///
/// Uploaded pictures are read from the object store and embedded whole; the permit is their share of this process's memory.
pub(super) async fn show(
    worker: &Worker,
    images: &[Image],
    request: &mut ChatRequest,
) -> Result<Option<OwnedSemaphorePermit>, ReadError> {
    let message = request.messages.iter_mut().rfind(|message| matches!(message, ChatMessage::User(_)));
    let Some(ChatMessage::User(text)) = message.as_deref().filter(|_| !images.is_empty()) else { return Ok(None) };
    let mut text = text.clone();
    let bytes = images.iter().map(|image| match &image.content {
        AttachmentContent::Url(_) => 0,
        AttachmentContent::Object(object) => object.size as usize,
    });
    let bytes = bytes.sum::<usize>().min(limits::IMAGES_BYTES) as u32;
    let room = worker.images.clone().acquire_many_owned(bytes).await.ok();
    let mut shown = Vec::new();
    for image in images {
        let url = match &image.content {
            AttachmentContent::Url(url) => Some(url.clone()),
            AttachmentContent::Object(object) => match worker.objects.get(object).await? {
                Some(content) => data_url(&object.media_type, content).await,
                None => None,
            },
        };
        match url {
            Some(url) => shown.push(ImageUrl { url, detail: image.detail.clone() }),
            None => text = format!("{text}\n\n{GONE}").trim_start().to_string(),
        }
    }
    if let Some(message) = message {
        *message =
            if shown.is_empty() { ChatMessage::User(text) } else { ChatMessage::Picture { text, images: shown } };
    }
    Ok(room)
}

/// Reads uploaded files, for tools.
pub(super) struct MessageFiles(pub Arc<Worker>);

impl ReadFiles for MessageFiles {
    fn read<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        Box::pin(async move { self.0.objects.get(object).await.map_err(|error| error.to_string()) })
    }
}

/// Encodes a content as a data URL. Megabytes are encoded off the async threads, where no tokens wait.
async fn data_url(media_type: &str, content: Bytes) -> Option<String> {
    let mut url = format!("data:{media_type};base64,");
    let encoded = tokio::task::spawn_blocking(move || {
        BASE64_STANDARD.encode_string(content, &mut url);
        url
    });
    encoded.await.ok()
}
