//! Settings of the organisation.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Admin,
    answer::{Answer, Refusal},
    forms::{OneSettings, Settings, StoredSettings},
    serve::Asked,
};
use crate::{limits, log::batch::Lasts, subjects};

/// The bucket of what administrators set, and the stream behind it.
pub const BUCKET: &str = "SETTINGS";
pub const STREAM: &str = "KV_SETTINGS";

/// Settings as the bucket has them.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(flatten)]
    set: StoredSettings,
    updated_at: Option<DateTime<Utc>>,
}

/// `GET settings`.
pub async fn show(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let org = &asked.principal.org;
    let stored: Stored =
        match admin.log.last_of(STREAM, &[subjects::kv(BUCKET, &subjects::settings_key(org))]).await? {
            Lasts::All(messages) => messages.first().and_then(|message| serde_json::from_slice(&message.payload).ok()),
            Lasts::TooMany => None,
        }
        .unwrap_or_default();
    Ok(answer(org, stored))
}

/// `PUT settings`.
pub async fn replace(admin: &Admin, asked: &Asked) -> Result<Answer, Refusal> {
    let org = &asked.principal.org;
    let set = check(asked.json()?)?;
    let stored = Stored { set, updated_at: Some(Utc::now()) };
    let payload = serde_json::to_vec(&stored).expect("settings are a map with string keys");
    let subject = subjects::kv(BUCKET, &subjects::settings_key(org));
    admin.log.put(&subject, &format!("settings-{}", Uuid::new_v4()), &[], payload.into()).await?;
    Ok(answer(org, stored))
}

fn answer(org: &str, stored: Stored) -> Answer {
    let Stored { set, updated_at } = stored;
    Answer::ok(&OneSettings { settings: Settings { org_id: org.to_string(), set, updated_at } })
}

fn check(set: StoredSettings) -> Result<StoredSettings, Refusal> {
    let is_long = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.chars().count() > max);
    for (name, text, max) in [
        ("model", &set.model, limits::NAME_MAX_CHARS),
        ("systemPrompt", &set.system_prompt, limits::SETTINGS_TEXT_MAX_CHARS),
        ("persona", &set.persona, limits::SETTINGS_TEXT_MAX_CHARS),
    ] {
        if is_long(text, max) {
            return Err(Refusal::invalid(format!("`{name}` is longer than {max} characters")));
        }
    }
    let is_tool = |name: &String| !name.trim().is_empty() && name.chars().count() <= limits::NAME_MAX_CHARS;
    if set.default_tools.len() > limits::SETTINGS_TOOLS_MAX || !set.default_tools.iter().all(is_tool) {
        return Err(Refusal::invalid("`defaultTools` is a list of names of tools"));
    }
    Ok(set)
}
