//! Status: the locations by which operators see what the module does, and load balancers whether it takes events.
//!
//! Nothing here blocks, and nothing is counted.

use crate::conf::Content;
use crate::metrics::{Form, choose, json, prometheus};
use crate::ngx::{self, Handled, Method, Request};
use crate::response::{Answer, Body};

mod policy;

/// The page, one document that loads nothing from elsewhere.
const PAGE: &str = include_str!("status/page.html");

/// The content handler of a location with `meteorit_status` or `meteorit_ready`.
pub fn handle(request: Request) -> Handled {
    let mut answer = match (request.method(), request.location().content()) {
        (Method::Get | Method::Head, Some(Content::Status(form))) => status(&request, *form),
        (Method::Get | Method::Head, Some(Content::Ready(redis))) => {
            let away = redis.iter().find_map(|redis| Some((&redis.settings.name, redis.pool().takes_events().err()?)));
            match away {
                _ if ngx::exiting() => not_ready("the worker is on its way out"),
                Some((name, why)) => not_ready(&format!("redis \"{name}\": {why}")),
                None => Answer::json(200, r#""ready":true"#),
            }
        }
        _ => {
            let mut answer = problem(405, "method-not-allowed", "Method not allowed", "this is only to be read");
            answer.headers.push(("Allow", "GET, HEAD".into()));
            answer
        }
    };
    answer.headers.push(("Cache-Control", "no-store".into()));
    request.answer_without_body(&answer, false)
}

fn status(request: &Request, form: Option<Form>) -> Answer {
    let asked = choose(request.header("accept"));
    let form = match (form, asked) {
        (Some(Form::Text), Form::OpenMetrics) => Form::OpenMetrics,
        (Some(form), _) => form,
        (None, asked) => asked,
    };
    if form == Form::Html {
        let mut answer = text(PAGE.into(), "text/html; charset=utf-8");
        answer.headers.push(("Vary", "Accept".into()));
        answer.headers.push(("Content-Security-Policy", policy::of(PAGE).into()));
        answer.headers.push(("X-Content-Type-Options", "nosniff".into()));
        answer.headers.push(("Referrer-Policy", "no-referrer".into()));
        return answer;
    }
    let Some(reading) = request.main().and_then(|main| main.reading()) else {
        return problem(503, "unavailable", "Temporarily unavailable", "there is nothing to count here");
    };
    let mut answer = match form {
        Form::Text => {
            text(prometheus::render(&reading, prometheus::Format::Text), "text/plain; version=0.0.4; charset=utf-8")
        }
        Form::OpenMetrics => text(
            prometheus::render(&reading, prometheus::Format::OpenMetrics),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        _ => text(json::render(&reading), "application/json"),
    };
    answer.headers.push(("Vary", "Accept".into()));
    answer
}

fn not_ready(detail: &str) -> Answer {
    let mut answer = problem(503, "not-ready", "Not ready", detail);
    answer.headers.push(("Retry-After", "1".into()));
    answer
}

fn problem(status: u16, kind: &str, title: &str, detail: &str) -> Answer {
    let detail = serde_json::json!(detail);
    let members =
        format!(r#""type":"urn:meteorit:problem:{kind}","title":"{title}","status":{status},"detail":{detail}"#);
    let mut answer = Answer::json(status, &members);
    if let Some(body) = &mut answer.body {
        body.media_type = "application/problem+json";
    }
    answer
}

fn text(text: String, media_type: &'static str) -> Answer {
    Answer { status: 200, headers: Vec::new(), body: Some(Body { media_type, bytes: text.into_bytes().into() }) }
}
