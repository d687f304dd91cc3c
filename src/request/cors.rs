//! What happens of CORS to a request: its preflight is answered before anything else looks at it, a page that must not send
//! here is refused, and every answer of the location gets its headers, whoever makes it.

use crate::ngx::{Handled, Method, OutOfMemory, Request};
use crate::response::{Answer, Problem};

use super::tell;

/// Before limits and access rules, which a preflight could not pass, for it carries no credentials: None lets the request go
/// on its way.
pub fn enter(request: Request) -> Result<Option<Handled>, OutOfMemory> {
    let location = request.location();
    // What error_page has led here was judged where it came from.
    let Some(cors) = location.cors().filter(|_| request.failed_location().is_none()) else { return Ok(None) };
    let Some(origin) = origin(&request) else { return Ok(None) };
    let host = request.header("host").next().unwrap_or_default();
    if cors.refuses(origin, host) {
        // The access log tells of it.
        request.start()?;
        let answer = tell(&request, &Problem::ForeignOrigin(origin.to_vec()));
        return Ok(Some(request.answer_without_body(&answer, location.intercept_errors())));
    }
    let is_preflight =
        request.method() == Method::Options && request.header("access-control-request-method").next().is_some();
    if !is_preflight {
        return Ok(None);
    }
    let names = request.header("access-control-request-headers").next();
    for (name, value) in cors.preflight(origin, location.methods().list(), names) {
        request.add_header(name, value)?;
    }
    Ok(Some(request.answer_without_body(&Answer::no_content(), false)))
}

/// When the head of an answer is made, whoever made it.
pub fn add_headers(request: &Request) -> Result<(), OutOfMemory> {
    let location = request.failed_location().unwrap_or_else(|| request.location());
    let Some(cors) = location.cors() else { return Ok(()) };
    // One that was answered from elsewhere, by proxy_pass for example, may have its own.
    if request.answers_with("access-control-allow-origin") {
        return Ok(());
    }
    for (name, value) in cors.headers(origin(request)) {
        request.add_header(name, value)?;
    }
    Ok(())
}

/// None without a header; one that comes twice is no origin.
fn origin<'r>(request: &Request<'r>) -> Option<&'r [u8]> {
    let mut lines = request.header("origin");
    let first = lines.next()?;
    Some(lines.next().map_or(first, |_| &[]))
}
