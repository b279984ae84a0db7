//! A request of an administrator, as the tasks read it.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::NaiveDate;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::response::HttpRefusal;
use crate::auth::Principal;

/// A request that may be served.
pub struct AdminRequest {
    pub principal: Principal,
    /// The segment of the path in the place of `{id}`.
    pub id: String,
    pub(super) query: HashMap<String, String>,
    /// True if the answer may be a page.
    pub accepts_html: bool,
    pub(super) body: Bytes,
}

impl AdminRequest {
    /// Returns the id in the path. A malformed id counts as missing.
    pub fn id(&self) -> Result<Uuid, HttpRefusal> {
        self.id.parse().map_err(|_| HttpRefusal::not_found())
    }

    /// Parses the body, a JSON object.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpRefusal> {
        let invalid = |error: serde_json::Error| HttpRefusal::invalid(format!("the body: {error}"));
        // A list would be accepted for a struct, too.
        let object: Map<String, Value> = serde_json::from_slice(&self.body).map_err(invalid)?;
        T::deserialize(Value::Object(object)).map_err(invalid)
    }

    /// Returns the page size, clamped to 1 to 200.
    pub fn limit(&self) -> Result<usize, HttpRefusal> {
        Ok(self.number("limit")?.map_or(50, |limit| limit.clamp(1, 200) as usize))
    }

    /// Returns the position where the page begins; 0 is the beginning, too.
    pub fn cursor(&self) -> Result<Option<i64>, HttpRefusal> {
        match self.number("cursor")? {
            Some(cursor) if cursor < 0 => Err(HttpRefusal::invalid("`cursor` is not one of this list's")),
            cursor => Ok(cursor.filter(|cursor| *cursor > 0)),
        }
    }

    /// Returns a parameter that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Parses a day, `2026-07-31`.
    pub fn day(&self, name: &str) -> Result<Option<NaiveDate>, HttpRefusal> {
        let day = self
            .text(name)
            .map(|value| value.parse().map_err(|_| HttpRefusal::invalid(format!("`{name}` is not a day"))));
        day.transpose()
    }

    fn number(&self, name: &str) -> Result<Option<i64>, HttpRefusal> {
        let value = self.query.get(name).filter(|value| !value.is_empty());
        let number =
            value.map(|value| value.parse().map_err(|_| HttpRefusal::invalid(format!("`{name}` is not a number"))));
        number.transpose()
    }
}
