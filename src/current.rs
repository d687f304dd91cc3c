//! Current: the event that a request is about, on a tape, for the variables that read it.
//!
//! The worker has one tape. While a request's event is worked on it holds that event; a variable that is read later, as by
//! the access log, finds another event on it and scans its own again.

use std::cell::RefCell;

use crate::event::{DuplicateNames, Error, Event, Limits, Tape};
use crate::ngx::Request;

#[derive(Default)]
struct Current {
    /// How many events there have been; a request remembers the number of its own.
    count: u64,
    /// The number of the event on the tape; 0 is none.
    on_tape: u64,
    tape: Tape,
}

thread_local! {
    static CURRENT: RefCell<Current> = RefCell::default();
}

/// Bounds for what has been validated before.
const ANYTHING: Limits = Limits { max_depth: u32::MAX, max_members: u32::MAX, duplicate_names: DuplicateNames::Allow };

/// Scans `text`, and makes it the event that the request is about; it has no id yet.
pub fn set<'r>(request: &Request<'r>, text: &'r [u8], limits: &Limits) -> Result<(), Error> {
    request.clear_event();
    scan(request, text, |tape| tape.parse(text, limits).map(|_| text.len()))?;
    Ok(())
}

/// As [`set`], for the event that `text` begins with; gives where it ends.
pub fn set_first<'r>(request: &Request<'r>, text: &'r [u8], limits: &Limits) -> Result<usize, Error> {
    request.clear_event();
    scan(request, text, |tape| tape.parse_first(text, limits))
}

/// Makes a text that is no event, or one that was rejected, what the request is about; the id stays, where there is one.
/// Whoever reads a member has the text scanned.
pub fn set_rejected<'r>(request: &Request<'r>, text: &'r [u8]) {
    let number = CURRENT.with_borrow_mut(|current| {
        current.count += 1;
        current.count
    });
    request.set_event(text, number);
    request.forget_values();
}

/// As [`set`], for a text that was made here from an event that has been validated, whose id it keeps.
pub fn replace<'r>(request: &Request<'r>, text: &'r [u8]) -> Result<(), Error> {
    scan(request, text, |tape| tape.parse(text, &ANYTHING).map(|_| text.len()))?;
    Ok(())
}

/// `parse` gives how much of the text is the event.
fn scan<'r>(
    request: &Request<'r>,
    text: &'r [u8],
    parse: impl FnOnce(&mut Tape) -> Result<usize, Error>,
) -> Result<usize, Error> {
    let end = CURRENT.with_borrow_mut(|current| {
        current.count += 1;
        current.on_tape = 0;
        let end = parse(&mut current.tape)?;
        current.on_tape = current.count;
        request.set_event(text.get(..end).unwrap_or(text), current.count);
        Ok(end)
    })?;
    request.forget_values();
    Ok(end)
}

/// Reads the event that the request is about; None when there is none.
pub fn read<T>(request: &Request, read: impl FnOnce(Event) -> T) -> Option<T> {
    let (text, number) = request.event()?;
    CURRENT.with(|current| {
        if current.borrow().on_tape != number {
            // Nobody reads a variable while the tape is written.
            let mut current = current.try_borrow_mut().ok()?;
            current.on_tape = 0;
            current.tape.parse(text, &ANYTHING).ok()?;
            current.on_tape = number;
        }
        let current = current.borrow();
        Some(read(current.tape.event(text)?))
    })
}
