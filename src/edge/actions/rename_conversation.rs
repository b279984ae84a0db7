//! `rename_conversation`: sets a conversation's title.

use super::{Connection, answer, create_conversation_session::resumable};
use crate::{
    domain::{Command, title},
    edge::policy::{access::VisitorRequest, admission},
    log::conversations::ExecuteError,
    wire::{
        actions::{BadFrame, ClientRequest, invalid},
        frames::{ErrorCode, RenameReply},
    },
};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let id = request.fields.required_text("conversationId")?.parse().ok();
    let title = title::clean(request.fields.required_text("title")?);
    let title = title.ok_or_else(|| invalid("nothing is left of `title`"))?;
    admission::admit_write(connection)?;
    let (key, state) = resumable(connection, id, VisitorRequest::Rename).await?.ok_or_else(not_found)?;
    let command = Command::Rename { title: title.clone(), by: connection.session };
    match connection.edge.conversations.execute(&key, state, &command, &connection.edge.author()).await {
        Ok(_) => {}
        Err(ExecuteError::Refused(_)) => return Err(not_found()),
        Err(error) => return Err(error.into()),
    }
    let renamed = RenameReply { conversation_id: key.conversation, title: &title };
    answer(connection, request, 200, "Conversation renamed", renamed);
    Ok(())
}

fn not_found() -> BadFrame {
    BadFrame { code: ErrorCode::ConversationNotFound, message: "there is no such conversation".into() }
}
