//! The content handler of a location with `meteorit_selftest`: writes a value to its Redis, reads it back and deletes it, over
//! the connections that events take, and tells what came of it. Nothing of it is kept for later.

use std::time::Instant;

use serde_json::json;

use crate::conf::Content;
use crate::hold::{Ack, Terms};
use crate::ngx::{Handled, Method, Msec, OutOfMemory, Pending, Request};
use crate::pool::{Owner, Pool, Work};
use crate::response::{Answer, Fate, Problem};
use crate::selftest::SelfTest;
use crate::variables;

const TERMS: Terms = Terms { ack: Ack::Stored, ambiguous: false, spool: false };

/// A test on its way.
pub struct Running {
    pub test: SelfTest,
    since: Instant,
}

/// What came of a test: the value, and how long it took in milliseconds; or why it failed.
type Result = std::result::Result<(String, f64), String>;

pub fn handle(request: Request) -> Handled {
    match request.method() {
        Method::Get | Method::Head => request.read_body(begin),
        _ => {
            let (problem, location) = (Problem::MethodNotAllowed { allow: "GET, HEAD" }, request.location());
            request.answer_without_body(&problem.answer(), location.intercept_errors())
        }
    }
}

fn begin(request: Request) {
    let Some(Content::SelfTest(redis)) = request.location().content() else {
        return give(request, &Err("there is no Redis to test".into()));
    };
    let pool = redis.pool();
    let [name, value] = [variables::unique_id(), variables::unique_id()];
    let [name, value] = [&name, &value].map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let (test, commands) = SelfTest::begin(&name, &value);
    if let Err(problem) = pool.admit(commands.len(), 1, TERMS) {
        return give(request, &Err(away(pool).unwrap_or_else(|| problem.words().detail)));
    }
    match request.suspend() {
        Ok(pending) => {
            let running = Box::new(Running { test, since: Instant::now() });
            pool.submit(Owner::Client(pending, Work::SelfTest(running)), TERMS, &commands, &[]);
        }
        Err((request, OutOfMemory)) => give(request, &Err(Problem::NoResources.words().detail)),
    }
}

/// Each command of the test has its verdict.
pub fn settled(pool: &Pool, pending: Pending, running: Running, redis_time: Msec) {
    let Running { test, since } = running;
    let took = since.elapsed().as_secs_f64() * 1000.0;
    let result = match test.result() {
        Ok(value) => Ok((value, took)),
        Err(reason) => Err(away(pool).unwrap_or(reason)),
    };
    pending.answer(|request| {
        if let Some(note) = request.note() {
            note.redis_time.set(Some(redis_time));
        }
        (answer(request, &result), request.location().intercept_errors())
    });
}

fn away(pool: &Pool) -> Option<String> {
    pool.away_for().map(|reason| format!("Redis is away: {reason}"))
}

/// Answers a request that has not waited.
fn give(request: Request, result: &Result) {
    let answer = answer(&request, result);
    let intercept = request.location().intercept_errors();
    request.answer(&answer, intercept);
}

fn answer(request: &Request, result: &Result) -> Answer {
    let (fate, mut answer) = match result {
        Ok((value, took)) => {
            let took = (took * 1000.0).round() / 1000.0;
            (Fate::Stored, Answer::json(200, &format!(r#""round_trip_ms":{took},"value":{}"#, json!(value))))
        }
        Err(detail) => {
            let problem = Problem::SelfTestFailed(detail.clone());
            (problem.fate(), problem.answer())
        }
    };
    if let Some(note) = request.note() {
        note.fate.set(Some(fate));
    }
    answer.headers.push(("Cache-Control", "no-store".into()));
    answer
}
