//! Files of a message for the tool that is called with them: each under a subject of its own, for as long as the call runs.
//!
//! A service of tools has no rights on the object store, which holds everybody's attachments. The subject that it is told is a
//! capability: nothing else leads to the file, and it leads nowhere when the call is over. What is given out is clear, so no service has to know how contents are sealed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::{
    domain::event::{Content, File, Object},
    limits,
    log::bus::soon,
    subjects,
};

/// Reads an object's content; `None`: it is no longer there.
pub trait ReadFiles: Send + Sync {
    fn read<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Option<Bytes>, String>>;
}

/// Gives out files. Clones share what is lent.
#[derive(Clone)]
pub struct Lender {
    client: Client,
    process: Uuid,
    lent: Arc<Mutex<HashMap<Uuid, Arc<Lent>>>>,
    /// Room for contents, in bytes.
    room: Arc<Semaphore>,
}

/// A file that a running call may read.
struct Lent {
    object: Object,
    reader: Arc<dyn ReadFiles>,
    content: OnceCell<(Bytes, OwnedSemaphorePermit)>,
}

/// The files of one call; they are taken back when it is dropped.
pub struct Loan {
    lender: Lender,
    tokens: Vec<Uuid>,
    /// The files as the tool is told of them.
    pub told: Value,
}

/// What a tool asks for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    offset: usize,
}

impl Lender {
    pub fn new(client: Client) -> Self {
        let room = Arc::new(Semaphore::new(limits::FILES_LENT_BYTES));
        Self { client, process: Uuid::new_v4(), lent: Arc::default(), room }
    }

    /// Lends the files of a message to a call.
    pub fn lend(&self, files: &[File], reader: &Arc<dyn ReadFiles>) -> Loan {
        let mut loan = Loan { lender: self.clone(), tokens: Vec::new(), told: Value::Null };
        let told = files.iter().map(|file| {
            let mut told = json!(file);
            if let Content::Object(object) = &file.content {
                let token = Uuid::new_v4();
                let lent = Lent { object: object.clone(), reader: reader.clone(), content: OnceCell::new() };
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
            let lender = self.clone();
            tokio::spawn(async move {
                lender.answer(message).await;
                drop(permit);
            });
        }
    }

    async fn answer(&self, message: Message) {
        // This process answers at inboxes alone: a reply subject is where it publishes with its own rights.
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
        let asked: Asked = match message.payload.is_empty() {
            true => Asked::default(),
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

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.lender.lent.lock().expect("no panic happens under this lock");
        self.tokens.iter().for_each(|token| drop(lent.remove(token)));
    }
}
