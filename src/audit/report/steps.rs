//! Turns on the page of a report, step by step.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use super::{
    Step, ToolCall, Turn, What,
    html::{At, Count, Json, Quote, Seq, Spent, Text, Took, fact},
};
use crate::domain::event::{
    CallRequested, Citation, Content, Ending, ModelReplied, Prompt, ReplyEnd, Resolution, ToolReturned, TurnCompleted,
    TurnResumed,
};

/// A turn.
pub(super) fn turn(f: &mut Formatter<'_>, number: usize, turn: &Turn) -> fmt::Result {
    let outcome = if turn.is_void { "not taken" } else { turn.outcome.unwrap_or("open") };
    writeln!(f, "<section><h2>Turn {number}: {outcome}</h2><dl>")?;
    fact(f, "Asked", format_args!("{}, {}", At(turn.asked_at), Seq(turn.seq)))?;
    fact(f, "By", format_args!("{} <code>{}</code>", Text(&turn.user), turn.user_id))?;
    if let Some(asker) = &turn.asker {
        let admin = if asker.is_admin { ", administrator" } else { "" };
        let groups = asker.groups.join(", ");
        fact(f, "Proved to be", format_args!("{}{admin} {}", Text(&asker.user), Text(&groups)))?;
    }
    fact(f, "Session", format_args!("<code>{}</code>", turn.session))?;
    fact(f, "Turn, request", format_args!("<code>{}</code> {}", turn.turn, Text(&turn.request_id)))?;
    fact(f, "Model asked for", Text(turn.model_asked.as_deref().unwrap_or("the agent's")))?;
    fact(f, "Model that answered", Text(&turn.models.join(", ")))?;
    match &turn.agent_config {
        Some(version) => {
            let (agent, revision) = (Text(&version.agent), version.revision);
            fact(f, "Configuration", format_args!("<a href=\"#c{revision}\">{agent}, revision {revision}</a>"))?;
        }
        None => fact(f, "Configuration", "the workers' own")?,
    }
    fact(f, "Pool", Text(&turn.pool))?;
    if let Some(usage) = turn.usage {
        fact(f, "Used", Spent(usage))?;
    }
    writeln!(f, "</dl>{}", Quote(&turn.message))?;
    attachments(f, turn)?;
    if let Some(skill) = &turn.skill {
        writeln!(f, "<p class=\"soft\">Skill {}</p>{}", Text(&skill.name), Quote(&skill.body))?;
    }
    writeln!(f, "<ol class=\"steps\">")?;
    turn.steps.iter().try_for_each(|known| step(f, known))?;
    writeln!(f, "</ol></section>")
}

fn attachments(f: &mut Formatter<'_>, turn: &Turn) -> fmt::Result {
    let images = turn.images.iter().map(|image| ("Image", "", &image.content));
    let files = turn.files.iter().map(|file| ("File", file.name.as_str(), &file.content));
    images.chain(files).try_for_each(|(what, name, content)| match content {
        Content::Url(url) => writeln!(f, "<p>{what} {} <code>{}</code></p>", Text(name), Text(url)),
        Content::Object(object) => {
            let (kind, digest) = (Text(&object.media_type), Text(&object.digest));
            writeln!(f, "<p>{what} {}: {kind}, {} bytes, <code>{digest}</code></p>", Text(name), object.size)
        }
    })
}

fn step(f: &mut Formatter<'_>, known: &Step) -> fmt::Result {
    let class = if known.had_effect { "" } else { " class=\"void\"" };
    writeln!(f, "<li{class}><p class=\"soft\">{}, {}", At(known.at), Seq(known.seq))?;
    if let Some(ms) = known.took_ms {
        writeln!(f, ", after {}", Took(ms))?;
    }
    if !known.had_effect {
        writeln!(f, " <span class=\"flag warn\">changed nothing: the turn had moved on</span>")?;
    }
    writeln!(f, "</p>")?;
    match &known.what {
        What::Claimed { worker, is_takeover } => {
            let how = if *is_takeover { "takes the turn over from another one" } else { "takes the turn" };
            line(f, format_args!("Worker <code>{worker}</code> {how}. Epoch {}", known.seq))?;
        }
        What::Released { epoch } => line(f, format_args!("The worker lets go of the turn. Epoch {epoch}"))?,
        What::ModelReplied(replied) => model_replied(f, replied)?,
        What::ToolCalled(call) => tool_called(f, call)?,
        What::ToolReturned { result, retries } => tool_returned(f, result, *retries)?,
        What::Asked(parked) => {
            asked(f, &parked.prompt)?;
            line(f, format_args!("Until {} <span class=\"soft\">{}</span>", At(parked.deadline), parked.park))?;
        }
        What::Decided { resolution, by_name } => decided(f, resolution, by_name.as_deref())?,
        What::Completed(completed) => completion(f, completed)?,
        What::Failed(failed) => {
            let reason = serde_json::to_value(failed.reason).unwrap_or_default();
            let reason = reason.as_str().unwrap_or_default();
            line(f, format_args!("<b>The turn fails</b> ({reason}). Epoch {}", failed.epoch))?;
            write!(f, "{}", Quote(&failed.detail))?;
        }
        What::Cancelled { cancelled, by_name } => {
            let name = Text(by_name.as_deref().unwrap_or("somebody"));
            line(f, format_args!("<b>{name} cancels the turn</b> in session <code>{}</code>", cancelled.by))?;
        }
    }
    writeln!(f, "</li>")
}

fn line(f: &mut Formatter<'_>, words: impl Display) -> fmt::Result {
    writeln!(f, "<p>{words}.</p>")
}

fn model_replied(f: &mut Formatter<'_>, replied: &ModelReplied) -> fmt::Result {
    let model = Text(replied.model.as_deref().unwrap_or("The model"));
    line(
        f,
        format_args!("<b>{model}</b> asks for {}. Epoch {}", Count(replied.calls.len(), "tool call"), replied.epoch),
    )?;
    if let Some(preamble) = &replied.preamble {
        writeln!(f, "<p class=\"soft\">Meanwhile the visitor was told</p>{}", Quote(preamble))?;
    }
    if !replied.text.is_empty() {
        write!(f, "{}", Quote(&replied.text))?;
    }
    replied.calls.iter().try_for_each(|call| requested(f, call))?;
    writeln!(f, "<dl>")?;
    ended(f, replied.ended.as_ref())?;
    if let Some(usage) = replied.usage {
        fact(f, "Used", Spent(usage))?;
    }
    if let Some(id) = &replied.response_id {
        fact(f, "Response", format_args!("<code>{}</code>", Text(id)))?;
    }
    writeln!(f, "</dl>")?;
    citations(f, "Documents before the model", &replied.grounding)
}

/// How the model's reply ended, and its provider's word for it.
fn ended(f: &mut Formatter<'_>, ended: Option<&ReplyEnd>) -> fmt::Result {
    let Some(ReplyEnd { ending, finish_reason }) = ended else { return Ok(()) };
    let class = if *ending == Ending::Whole { "" } else { " class=\"flag warn\"" };
    let reason = finish_reason.as_deref().unwrap_or("no finish reason");
    fact(f, "The reply ended", format_args!("<span{class}>{}</span> ({})", ending.words(), Text(reason)))
}

/// A call that the model asks for.
fn requested(f: &mut Formatter<'_>, call: &CallRequested) -> fmt::Result {
    let flag = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
    writeln!(
        f,
        "<p><b>{}</b> <code>{}</code> <span class=\"flag\">{}</span> <span class=\"flag\">{}</span></p>{}",
        Text(&call.name),
        Text(&call.id),
        flag(call.confirm, "asks a person", "needs no approval"),
        flag(call.idempotent, "may be called again", "is called once"),
        Json(&call.arguments),
    )
}

fn tool_called(f: &mut Formatter<'_>, call: &ToolCall) -> fmt::Result {
    line(f, format_args!("<b>{} is called</b>. Epoch {}", Text(&call.name), call.epoch))?;
    line(f, format_args!("Idempotency key <code>{}</code>", Text(&call.idempotency_key)))
}

fn tool_returned(f: &mut Formatter<'_>, returned: &ToolReturned, retries: usize) -> fmt::Result {
    let verb = if returned.is_error { "fails" } else { "returns" };
    line(f, format_args!("<b>{} {verb}</b>. Epoch {}", Text(&returned.name), returned.epoch))?;
    if retries > 0 {
        line(
            f,
            format_args!(
                "A worker that took the turn over called it again, with the same key: {}",
                Count(retries, "time")
            ),
        )?;
    }
    write!(f, "{}", Json(&returned.result))?;
    values(f, returned.values.as_ref())?;
    if let Some(otp) = &returned.otp {
        let sent = otp.sent.as_ref().map_or("none was sent", |sent| sent.masked_destination.as_str());
        line(f, format_args!("The visitor is asked for a one-time password: {}", Text(sent)))?;
    }
    citations(f, "Documents in the result", &returned.grounding)
}

fn asked(f: &mut Formatter<'_>, prompt: &Prompt) -> fmt::Result {
    match prompt {
        Prompt::Approval { call, tool, arguments, description } => {
            line(f, format_args!("<b>A person is asked</b> to approve {} <code>{}</code>", Text(tool), Text(call)))?;
            write!(f, "{}{}", Quote(description), Json(arguments))
        }
        Prompt::Interaction { call, tool, form, reason, .. } | Prompt::Elicitation { call, tool, form, reason } => {
            let kind = form.kind();
            line(f, format_args!("<b>A form is shown</b> ({kind}) for {} <code>{}</code>", Text(tool), Text(call)))?;
            write!(f, "{}{}", Quote(reason), Json(&form.spec().to_string()))
        }
        Prompt::Task { call, tool } => {
            line(f, format_args!("<b>The turn waits</b> for a task of {} <code>{}</code>", Text(tool), Text(call)))
        }
    }
}

fn decided(f: &mut Formatter<'_>, resumed: &TurnResumed, by_name: Option<&str>) -> fmt::Result {
    let what = match resumed.resolution {
        Resolution::Approved => "Approved",
        Resolution::Submitted => "Submitted",
        Resolution::Declined => "Declined",
        Resolution::Expired => "Expired: nobody decided in time",
    };
    match resumed.by {
        Some(session) => {
            let name = Text(by_name.unwrap_or("somebody"));
            line(f, format_args!("<b>{what}</b> by {name}, in session <code>{session}</code>"))?;
        }
        None => line(f, format_args!("<b>{what}</b>"))?,
    }
    values(f, resumed.values.as_ref())
}

fn values(f: &mut Formatter<'_>, values: Option<&serde_json::Map<String, Value>>) -> fmt::Result {
    let Some(values) = values else { return Ok(()) };
    let text = Value::Object(values.clone()).to_string();
    writeln!(f, "<p class=\"soft\">What was submitted</p>{}", Json(&text))
}

fn completion(f: &mut Formatter<'_>, completed: &TurnCompleted) -> fmt::Result {
    let model = Text(completed.model.as_deref().unwrap_or("The model"));
    line(f, format_args!("<b>{model} answers</b>. Epoch {}", completed.epoch))?;
    if let Some(preamble) = &completed.preamble {
        writeln!(f, "<p class=\"soft\">Meanwhile the visitor was told</p>{}", Quote(preamble))?;
    }
    write!(f, "{}", Quote(&completed.response.text()))?;
    writeln!(f, "<dl>")?;
    fact(f, "Message", format_args!("<code>{}</code>", completed.message_id))?;
    ended(f, completed.ended.as_ref())?;
    if let Some(usage) = completed.usage {
        fact(f, "Used in the turn", Spent(usage))?;
    }
    if let Some(id) = &completed.response_id {
        fact(f, "Response", format_args!("<code>{}</code>", Text(id)))?;
    }
    if completed.needs_escalation {
        fact(f, "Asks for a person", Text(completed.escalation_reason.as_deref().unwrap_or("yes")))?;
    }
    if let Some(judged) = &completed.workflow {
        let done = if judged.done { "done" } else { "not done" };
        let (step, reason) = (Text(&judged.step), Text(&judged.reason));
        fact(f, "Step of the workflow", format_args!("{step}: {done}. {reason}"))?;
    }
    writeln!(f, "</dl>")?;
    citations(f, "Sources", &completed.citations)
}

fn citations(f: &mut Formatter<'_>, title: &str, citations: &[Citation]) -> fmt::Result {
    if citations.is_empty() {
        return Ok(());
    }
    writeln!(f, "<p class=\"soft\">{title}</p><table><tbody>")?;
    for Citation { id, title, url, snippet, score } in citations {
        let url = url.as_deref().unwrap_or_default();
        let named = format_args!("{}<br><code>{}</code> {}", Text(title), Text(id), Text(url)).to_string();
        writeln!(f, "<tr><td>{named}</td><td>{}</td><td class=\"score\">{score:.3}</td></tr>", Text(snippet))?;
    }
    writeln!(f, "</tbody></table>")
}
