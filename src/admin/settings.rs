//! Settings of the organisation: the part of its agent `default`'s configuration that administrators set.

use chrono::{DateTime, Utc};

use super::{
    AdminApi,
    forms::{OrgSettings, OrgSettingsUpdate, SettingsResponse},
    request::AdminRequest,
    response::{HttpRefusal, HttpResponse},
};
use crate::{
    agents::{AgentConfig, DEFAULT, config::ToolRule, store::AgentPutError},
    limits,
    nats::AppendError,
};

/// The bucket of the connectors that administrators set, and the stream behind it.
pub const BUCKET: &str = "SETTINGS";
pub const STREAM: &str = "KV_SETTINGS";

/// `GET settings`.
pub async fn show(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let org = &asked.principal.org;
    let entry = admin.agents.get(org, DEFAULT).await?;
    Ok(answer(org, entry.as_ref().and_then(|entry| Some((entry.at, entry.config.as_deref()?)))))
}

/// `PUT settings`. The rest of the agent's configuration stays.
pub async fn replace(admin: &AdminApi, asked: &AdminRequest) -> Result<HttpResponse, HttpRefusal> {
    let org = &asked.principal.org;
    let set = check(asked.json()?)?;
    let entry = admin.agents.get(org, DEFAULT).await?;
    let mut config = entry.and_then(|entry| entry.config).map(|config| (*config).clone()).unwrap_or_default();
    let rule_of = |name: &String| {
        let known = config.tools.iter().flatten().find(|rule| rule.name == *name).cloned();
        known.unwrap_or_else(|| ToolRule { name: name.clone(), ..ToolRule::default() })
    };
    let tools: Vec<ToolRule> = set.default_tools.iter().map(rule_of).collect();
    config.tools = Some(tools).filter(|tools| !tools.is_empty());
    let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    (config.model, config.persona) = (said(&set.model), said(&set.persona));
    config.system_prompt = said(&set.system_prompt);
    admin.agents.put(org, DEFAULT, &config).await.map_err(|error| match error {
        AgentPutError::Read(error) => HttpRefusal::from(error),
        AgentPutError::Append(error) => HttpRefusal::from(error),
        AgentPutError::Changed => HttpRefusal::from(AppendError::Conflict),
    })?;
    show(admin, asked).await
}

fn answer(org: &str, stored: Option<(DateTime<Utc>, &AgentConfig)>) -> HttpResponse {
    let (updated_at, config) = stored.unzip();
    let set = config.map_or_else(OrgSettingsUpdate::default, |config| OrgSettingsUpdate {
        model: config.model.clone(),
        system_prompt: config.system_prompt.clone(),
        persona: config.persona.clone(),
        default_tools: config.tools.iter().flatten().map(|rule| rule.name.clone()).collect(),
    });
    HttpResponse::ok(&SettingsResponse { settings: OrgSettings { org_id: org.to_string(), set, updated_at } })
}

fn check(set: OrgSettingsUpdate) -> Result<OrgSettingsUpdate, HttpRefusal> {
    let is_long = |text: &Option<String>, max: usize| text.as_ref().is_some_and(|text| text.chars().count() > max);
    for (name, text, max) in [
        ("model", &set.model, limits::NAME_MAX_CHARS),
        ("systemPrompt", &set.system_prompt, limits::SETTINGS_TEXT_MAX_CHARS),
        ("persona", &set.persona, limits::SETTINGS_TEXT_MAX_CHARS),
    ] {
        if is_long(text, max) {
            return Err(HttpRefusal::invalid(format!("`{name}` is longer than {max} characters")));
        }
    }
    let is_tool = |name: &String| !name.trim().is_empty() && name.chars().count() <= limits::NAME_MAX_CHARS;
    if set.default_tools.len() > limits::SETTINGS_TOOLS_MAX || !set.default_tools.iter().all(is_tool) {
        return Err(HttpRefusal::invalid("`defaultTools` is a list of names of tools"));
    }
    Ok(set)
}
