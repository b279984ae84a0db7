//! What came with the message of a turn: pictures for the model, files for tools.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::Worker;
use crate::{
    domain::{Turn, event::Content},
    log::ReadError,
    model::{ChatMessage, ImageUrl},
};

/// Said to the model where a picture can't be shown: the store keeps it for a while only.
const GONE: &str = "[An image that came with this message is no longer there.]";

/// The message that the turn answers. Pictures that came with it are read from the object store and put in whole; files
/// never reach the model.
pub(super) async fn user_message(worker: &Worker, turn: &Turn) -> Result<ChatMessage, ReadError> {
    let mut text = turn.request.message.clone();
    let mut images = Vec::new();
    for image in &turn.request.images {
        let url = match &image.content {
            Content::Url(url) => Some(url.clone()),
            Content::Object(object) => match worker.objects.get(object).await? {
                Some(content) => data_url(&object.media_type, content).await,
                None => None,
            },
        };
        match url {
            Some(url) => images.push(ImageUrl { url, detail: image.detail.clone() }),
            None => text = format!("{text}\n\n{GONE}").trim_start().to_string(),
        }
    }
    Ok(if images.is_empty() { ChatMessage::User(text) } else { ChatMessage::Picture { text, images } })
}

/// A content as a URL. Megabytes of it are made where no tokens wait.
async fn data_url(media_type: &str, content: Bytes) -> Option<String> {
    let mut url = format!("data:{media_type};base64,");
    let encoded = tokio::task::spawn_blocking(move || {
        BASE64_STANDARD.encode_string(content, &mut url);
        url
    });
    encoded.await.ok()
}
