//! Status: the locations by which operators see what the module does, and load balancers whether it takes events.
//!
//! Nothing here blocks, and nothing is counted.

use std::rc::Rc;

use crate::conf::Content;
use crate::conf::redis::Redis;
use crate::metrics::{Form, choose, json, prometheus};
use crate::ngx::{self, Handled, Method, Request};
use crate::response::{Answer, Body, Problem};

mod policy;

/// The page, one document that loads nothing from elsewhere.
const PAGE: &str = include_str!("status/page.html");

/// The content handler of a location with `meteorit_status` or `meteorit_ready`.
pub fn handle(request: Request) -> Handled {
    let mut answer = match (request.method(), request.location().content()) {
        (Method::Get | Method::Head, Some(Content::Status(form))) => status(&request, *form),
        (Method::Get | Method::Head, Some(Content::Ready(redis))) => ready(redis),
        _ => Problem::MethodNotAllowed { allow: "GET, HEAD" }.answer(),
    };
    answer.headers.push(("Cache-Control", "no-store".into()));
    request.answer_without_body(&answer, false)
}

fn ready(redis: &[Rc<Redis>]) -> Answer {
    let away = redis.iter().find_map(|redis| Some((&redis.settings.name, redis.pool().takes_events().err()?)));
    match away {
        _ if ngx::exiting() => Problem::NotReady("the worker is on its way out".into()).answer(),
        Some((name, why)) => Problem::NotReady(format!("redis \"{name}\": {why}")).answer(),
        None => Answer::json(200, r#""ready":true"#),
    }
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
        return Problem::NothingCounted.answer();
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

fn text(text: String, media_type: &'static str) -> Answer {
    Answer { status: 200, headers: Vec::new(), body: Some(Body { media_type, bytes: text.into_bytes().into() }) }
}
