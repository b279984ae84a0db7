//! `get_session`: describes a session.

use super::{Connection, answer, session, session_not_found, session_view};
use crate::wire::actions::{BadFrame, ClientRequest};

pub(super) async fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let id = request.fields.required_session()?;
    let (record, _) = session(connection, id).await?.ok_or_else(session_not_found)?;
    answer(connection, request, 200, "Session", session_view(&record));
    Ok(())
}
