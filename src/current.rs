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
    scan(request, text, limits)
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
    scan(request, text, &ANYTHING)
}

fn scan<'r>(request: &Request<'r>, text: &'r [u8], limits: &Limits) -> Result<(), Error> {
    CURRENT.with_borrow_mut(|current| {
        current.count += 1;
        current.on_tape = 0;
        current.tape.parse(text, limits)?;
        current.on_tape = current.count;
        request.set_event(text, current.count);
        Ok(())
    })?;
    request.forget_values();
    Ok(())
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
