//! Files of a message for the tool that is called with them: each under a subject of its own, for as long as the call
//! runs.
//!
//! A service of tools has no rights on the object store, which holds the attachments of all users. The subject that the
//! tool gets is a capability: no other subject leads to the file, and it stops working when the call is over. Contents
//! are sent decrypted, so no service has to know how they are encrypted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::{
    domain::event::{AttachmentContent, File, Object},
    limits,
    nats::{
        connection::soon,
        core::{Client, HeaderMap, Message},
    },
    subjects,
};

/// Reads an object's content; `None`: the object no longer exists.
pub trait ReadFiles: Send + Sync {
    fn read<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Option<Bytes>, String>>;
}

/// Serves files to tools. Clones share the files that are lent.
#[derive(Clone)]
pub struct FileLender {
    client: Client,
    process: Uuid,
    lent: Arc<Mutex<HashMap<Uuid, Arc<LentFile>>>>,
    /// Memory budget for contents, in bytes.
    room: Arc<Semaphore>,
}

/// A file that a running call may read.
struct LentFile {
    object: Object,
    reader: Arc<dyn ReadFiles>,
    content: OnceCell<(Bytes, OwnedSemaphorePermit)>,
}

/// The files of one call, withdrawn on drop.
pub struct FileLoan {
    files: FileLender,
    tokens: Vec<Uuid>,
    /// The description of the files that the tool gets.
    pub told: Value,
}

/// A tool's request for a part of a file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FileRequest {
    offset: usize,
}

impl FileLender {
    pub fn new(client: Client) -> Self {
        let room = Arc::new(Semaphore::new(limits::FILES_LENT_BYTES));
        Self { client, process: Uuid::new_v4(), lent: Arc::default(), room }
    }

    /// Makes the files of a message readable for a call.
    pub fn lend(&self, files: &[File], reader: &Arc<dyn ReadFiles>) -> FileLoan {
        let mut loan = FileLoan { files: self.clone(), tokens: Vec::new(), told: Value::Null };
        let told = files.iter().map(|file| {
            let mut told = json!(file);
            if let AttachmentContent::Object(object) = &file.content {
                let token = Uuid::new_v4();
                let lent = LentFile { object: object.clone(), reader: reader.clone(), content: OnceCell::new() };
                self.lent.lock().expect("no panic happens under this lock").insert(token, Arc::new(lent));
                loan.tokens.push(token);
                if let Some(object) = told["object"].as_object_mut() {
                    object.insert("read".into(), subjects::file(self.process, Some(token)).into());
                }
            }
            told
        });
        loan.told = Value::Array(told.collect());
        loan
    }

    /// Answers tools until the future is dropped.
    pub async fn serve(self) {
        let mut asked = match soon(self.client.subscribe(subjects::file(self.process, None))).await {
            Ok(asked) => asked,
            Err(error) => {
                return tracing::error!(
                    error,
                    "the file service for tools did not start; tools can't read the files of their calls"
                );
            }
        };
        let at_once = Arc::new(Semaphore::new(limits::FILES_PARALLEL));
        while let Some(message) = asked.next().await {
            let Ok(permit) = at_once.clone().acquire_owned().await else { return };
            let files = self.clone();
            tokio::spawn(async move {
                files.answer(message).await;
                drop(permit);
            });
        }
    }

    async fn answer(&self, message: Message) {
        // Only inboxes are answered: this process publishes to the reply subject with its own rights.
        let Some(reply) = message.reply.clone().filter(|reply| reply.starts_with(&subjects::inbox_prefix(""))) else {
            return;
        };
        let (mut headers, mut payload) = (HeaderMap::new(), Bytes::new());
        match self.read(&message).await {
            Ok((content, offset)) => {
                headers.insert("Turnstream-Size", content.len().to_string());
                let end = content.len().min(offset.saturating_add(limits::FILE_PIECE_BYTES));
                payload = content.slice(offset.min(end)..end);
            }
            Err((code, why)) => {
                headers.insert("Nats-Service-Error", why);
                headers.insert("Nats-Service-Error-Code", code);
            }
        }
        if let Err(error) = soon(self.client.publish_with_headers(reply, headers, payload)).await {
            tracing::debug!(error, "a tool did not get its file");
        }
    }

    async fn read(&self, message: &Message) -> Result<(Bytes, usize), (&'static str, &'static str)> {
        let gone = ("404", "There is no such file, or its call is over.");
        let lent = || {
            let token = subjects::parse_last_id(&message.subject)?;
            self.lent.lock().expect("no panic happens under this lock").get(&token).cloned()
        };
        let lent = lent().ok_or(gone)?;
        let asked: FileRequest = match message.payload.is_empty() {
            true => FileRequest::default(),
            false => serde_json::from_slice(&message.payload).map_err(|_| ("400", "It is not {\"offset\": bytes}."))?,
        };
        let load = async {
            let size = (lent.object.size as usize).min(limits::FILES_LENT_BYTES) as u32;
            let wait = Duration::from_millis(limits::READ_DEADLINE_MS);
            let room = tokio::time::timeout(wait, self.room.clone().acquire_many_owned(size)).await;
            let room = room.ok().and_then(Result::ok).ok_or(("503", "There is no room for the file now."))?;
            match lent.reader.read(&lent.object).await {
                Ok(Some(content)) => Ok((content, room)),
                Ok(None) => Err(("404", "The file is no longer kept.")),
                Err(cause) => {
                    tracing::warn!(cause, "a file can't be read for a tool");
                    Err(("503", "The file can't be read now."))
                }
            }
        };
        let (content, _) = lent.content.get_or_try_init(|| load).await?;
        Ok((content.clone(), asked.offset))
    }
}

impl Drop for FileLoan {
    fn drop(&mut self) {
        let mut lent = self.files.lent.lock().expect("no panic happens under this lock");
        self.tokens.iter().for_each(|token| drop(lent.remove(token)));
    }
}
