//! Turns on the page of a report, step by step.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{
    ReportStep, ReportStepKind, ReportToolCall, ReportTurn,
    markup::{Elapsed, EscapedText, EventLink, Plural, Spending, Timestamp, fact, json, quote},
};
use crate::domain::event::{
    AttachmentContent, CallRequested, Citation, Ending, ModelReplied, Prompt, ReplyEnd, Resolution, ToolReturned,
    TurnCompleted, TurnFailed, TurnResumed,
};

/// A turn.
pub(super) fn turn(number: usize, turn: &ReportTurn) -> Markup {
    let outcome = if turn.is_void { "not taken" } else { turn.outcome.unwrap_or("open") };
    html! {
        section {
            h2 { "Turn " (number) ": " (outcome) }
            dl { (facts(turn)) }
            (quote(&turn.message))
            (attachments(turn))
            @if let Some(skill) = &turn.skill { p.soft { "Skill " (EscapedText(&skill.name)) } (quote(&skill.body)) }
            ol.steps { @for known in &turn.steps { (step(known)) } }
        }
    }
}

fn facts(turn: &ReportTurn) -> Markup {
    html! {
        (fact("Asked", html! { (Timestamp(turn.asked_at)) ", " (EventLink(turn.seq)) }))
        (fact("By", html! { (EscapedText(&turn.user)) " " code { (turn.user_id) } }))
        @if let Some(asker) = &turn.asker {
            @let admin = if asker.is_admin { ", administrator" } else { "" };
            (fact("Proved to be", html! { (EscapedText(&asker.user)) (admin) " " (EscapedText(&asker.groups.join(", "))) }))
        }
        (fact("Session", html! { code { (turn.session) } }))
        (fact("Turn, request", html! { code { (turn.turn) } " " (EscapedText(&turn.request_id)) }))
        (fact("Model asked for", EscapedText(turn.model_asked.as_deref().unwrap_or("the agent's"))))
        (fact("Model that answered", EscapedText(&turn.models.join(", "))))
        @match &turn.agent_config {
            Some(version) => (fact("Configuration", html! {
                a href={ "#c" (version.revision) } { (EscapedText(&version.agent)) ", revision " (version.revision) }
            })),
            None => (fact("Configuration", "the workers' own")),
        }
        (fact("Pool", EscapedText(&turn.pool)))
        @if let Some(usage) = turn.usage { (fact("Used", html! { (Spending(usage)) })) }
    }
}

fn attachments(turn: &ReportTurn) -> Markup {
    let images = turn.images.iter().map(|image| ("Image", "", &image.content));
    let files = turn.files.iter().map(|file| ("File", file.name.as_str(), &file.content));
    html! {
        @for (what, name, content) in images.chain(files) {
            @match content {
                AttachmentContent::Url(url) => p { (what) " " (EscapedText(name)) " " code { (EscapedText(url)) } },
                AttachmentContent::Object(object) => p {
                    (what) " " (EscapedText(name)) ": " (EscapedText(&object.media_type)) ", " (object.size) " bytes, "
                    code { (EscapedText(&object.digest)) }
                },
            }
        }
    }
}

fn step(known: &ReportStep) -> Markup {
    html! {
        li.void[!known.had_effect] {
            p.soft {
                (Timestamp(known.at)) ", " (EventLink(known.seq))
                @if let Some(ms) = known.took_ms { ", after " (Elapsed(ms)) }
                @if !known.had_effect { " " span.flag.warn { "changed nothing: the turn had moved on" } }
            }
            (what(known))
        }
    }
}

fn what(known: &ReportStep) -> Markup {
    match &known.what {
        ReportStepKind::Claimed { worker, is_takeover } => {
            let how = if *is_takeover { "takes the turn over from another one" } else { "takes the turn" };
            html! { p { "Worker " code { (worker) } " " (how) ". Epoch " (known.seq) "." } }
        }
        ReportStepKind::Released { epoch } => html! { p { "The worker lets go of the turn. Epoch " (epoch) "." } },
        ReportStepKind::ModelReplied(replied) => model_replied(replied),
        ReportStepKind::ToolCalled(call) => tool_called(call),
        ReportStepKind::ToolReturned { result, retries } => tool_returned(result, *retries),
        ReportStepKind::Asked(parked) => html! {
            (asked(&parked.prompt))
            p { "Until " (Timestamp(parked.deadline)) " " span.soft { (parked.park) } "." }
        },
        ReportStepKind::Decided { resolution, by_name } => decided(resolution, by_name.as_deref()),
        ReportStepKind::Completed(completed) => completion(completed),
        ReportStepKind::Failed(failed) => failure(failed),
        ReportStepKind::Cancelled { cancelled, by_name } => html! {
            p {
                b { (EscapedText(by_name.as_deref().unwrap_or("an unnamed user"))) " cancels the turn" }
                " in session " code { (cancelled.by) } "."
            }
        },
    }
}

fn failure(failed: &TurnFailed) -> Markup {
    let reason = serde_json::to_value(failed.reason).unwrap_or_default();
    html! {
        p { b { "The turn fails" } " (" (reason.as_str().unwrap_or_default()) "). Epoch " (failed.epoch) "." }
        (quote(&failed.detail))
    }
}

fn model_replied(replied: &ModelReplied) -> Markup {
    html! {
        p {
            b { (EscapedText(replied.model.as_deref().unwrap_or("The model"))) }
            " asks for " (Plural(replied.calls.len(), "tool call")) ". Epoch " (replied.epoch) "."
        }
        (told(replied.preamble.as_deref()))
        @if !replied.text.is_empty() { (quote(&replied.text)) }
        @for call in &replied.calls { (requested(call)) }
        dl {
            (ended(replied.ended.as_ref()))
            @if let Some(usage) = replied.usage { (fact("Used", html! { (Spending(usage)) })) }
            @if let Some(id) = &replied.response_id { (fact("Response", html! { code { (EscapedText(id)) } })) }
        }
        (citations("Documents before the model", &replied.grounding))
    }
}

fn told(preamble: Option<&str>) -> Markup {
    html! { @if let Some(text) = preamble { p.soft { "Preamble shown to the visitor" } (quote(text)) } }
}

/// The ending of the model's reply, and the provider's finish reason.
fn ended(ended: Option<&ReplyEnd>) -> Markup {
    let Some(ReplyEnd { ending, finish_reason }) = ended else { return html! {} };
    let class = (*ending != Ending::Whole).then_some("flag warn");
    let reason = finish_reason.as_deref().unwrap_or("no finish reason");
    fact("The reply ended", html! { span class=[class] { (ending.words()) } " (" (EscapedText(reason)) ")" })
}

/// A call that the model asks for.
fn requested(call: &CallRequested) -> Markup {
    html! {
        p {
            b { (EscapedText(&call.name)) } " " code { (EscapedText(&call.id)) } " "
            span.flag { @if call.confirm { "asks a person" } @else { "needs no approval" } } " "
            span.flag { @if call.idempotent { "may be called again" } @else { "is called once" } }
        }
        (json(&call.arguments))
    }
}

fn tool_called(call: &ReportToolCall) -> Markup {
    html! {
        p { b { (EscapedText(&call.name)) " is called" } ". Epoch " (call.epoch) "." }
        p { "Idempotency key " code { (EscapedText(&call.idempotency_key)) } "." }
    }
}

fn tool_returned(returned: &ToolReturned, retries: usize) -> Markup {
    let verb = if returned.is_error { "fails" } else { "returns" };
    html! {
        p { b { (EscapedText(&returned.name)) " " (verb) } ". Epoch " (returned.epoch) "." }
        @if retries > 0 {
            p {
                "A worker that took the turn over called it again, with the same key: " (Plural(retries, "time")) "."
            }
        }
        (json(&returned.result))
        (values(returned.values.as_ref()))
        @if let Some(otp) = &returned.otp {
            @let sent = otp.sent.as_ref().map_or("none was sent", |sent| sent.masked_destination.as_str());
            p { "The visitor is asked for a one-time password: " (EscapedText(sent)) "." }
        }
        (citations("Documents in the result", &returned.grounding))
    }
}

fn asked(prompt: &Prompt) -> Markup {
    match prompt {
        Prompt::Approval { call, tool, arguments, description } => html! {
            p { b { "A person is asked" } " to approve " (EscapedText(tool)) " " code { (EscapedText(call)) } "." }
            (quote(description))
            (json(arguments))
        },
        Prompt::Interaction { call, tool, form, reason, .. } | Prompt::Elicitation { call, tool, form, reason } => {
            html! {
                p { b { "A form is shown" } " (" (form.kind()) ") for " (EscapedText(tool)) " " code { (EscapedText(call)) } "." }
                (quote(reason))
                (json(&form.spec().to_string()))
            }
        }
        Prompt::Task { call, tool } => html! {
            p { b { "The turn waits" } " for a task of " (EscapedText(tool)) " " code { (EscapedText(call)) } "." }
        },
    }
}

fn decided(resumed: &TurnResumed, by_name: Option<&str>) -> Markup {
    let what = match resumed.resolution {
        Resolution::Approved => "Approved",
        Resolution::Submitted => "Submitted",
        Resolution::Declined => "Declined",
        Resolution::Expired => "Expired: no decision in time",
    };
    html! {
        p {
            b { (what) }
            @if let Some(session) = resumed.by {
                " by " (EscapedText(by_name.unwrap_or("an unnamed user"))) ", in session " code { (session) }
            }
            "."
        }
        (values(resumed.values.as_ref()))
    }
}

fn values(values: Option<&Map<String, Value>>) -> Markup {
    let Some(values) = values else { return html! {} };
    html! { p.soft { "Submitted values" } (json(&Value::Object(values.clone()).to_string())) }
}

fn completion(completed: &TurnCompleted) -> Markup {
    html! {
        p {
            b { (EscapedText(completed.model.as_deref().unwrap_or("The model"))) " answers" }
            ". Epoch " (completed.epoch) "."
        }
        (told(completed.preamble.as_deref()))
        (quote(&completed.response.text()))
        dl {
            (fact("Message", html! { code { (completed.message_id) } }))
            (ended(completed.ended.as_ref()))
            @if let Some(usage) = completed.usage { (fact("Used in the turn", html! { (Spending(usage)) })) }
            @if let Some(id) = &completed.response_id { (fact("Response", html! { code { (EscapedText(id)) } })) }
            @if completed.needs_escalation {
                (fact("Asks for a person", EscapedText(completed.escalation_reason.as_deref().unwrap_or("yes"))))
            }
            @if let Some(judged) = &completed.workflow {
                @let done = if judged.done { "done" } else { "not done" };
                (fact("Step of the workflow", html! { (EscapedText(&judged.step)) ": " (done) ". " (EscapedText(&judged.reason)) }))
            }
        }
        (citations("Sources", &completed.citations))
    }
}

fn citations(title: &str, citations: &[Citation]) -> Markup {
    if citations.is_empty() {
        return html! {};
    }
    html! {
        p.soft { (title) }
        table {
            tbody {
                @for Citation { id, title, url, snippet, score } in citations {
                    tr {
                        td { (EscapedText(title)) br; code { (EscapedText(id)) } " " (EscapedText(url.as_deref().unwrap_or_default())) }
                        td { (EscapedText(snippet)) }
                        td.score { (format_args!("{score:.3}")) }
                    }
                }
            }
        }
    }
}
