//! `ping`: a heartbeat on the level of the protocol.

use chrono::Utc;

use super::Connection;
use crate::wire::{
    actions::{BadFrame, ClientRequest},
    frames::{Frame, PongData},
};

pub(super) fn serve(connection: &mut Connection, request: &ClientRequest) -> Result<(), BadFrame> {
    let timestamp = Utc::now().timestamp_millis();
    let pong = Frame::Pong { request_id: request.request_id.as_deref(), timestamp, data: PongData { timestamp } };
    connection.out.push(pong.to_bytes());
    Ok(())
}
