//! Values that nginx keeps of variables which an event has part in: forgotten when the event changes.
//!
//! nginx evaluates a variable like that of a `map` once for a request. Before the body is read, or while another event of
//! the same body was worked on, the value may have been made of another event, or of none. Which variables read the event
//! is found out by evaluating each once, on its own; the others, as `$request_id`, stay what they are.

use std::cell::{Cell, RefCell};
use std::ptr;

use super::request::Request;
use super::sys;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    /// Has not read the event when it was evaluated.
    Apart,
    ReadsEvent,
}

struct Known {
    /// The configuration whose variables these are.
    configuration: *const sys::ngx_http_core_main_conf_t,
    kinds: Vec<Kind>,
}

thread_local! {
    static KNOWN: RefCell<Known> = const { RefCell::new(Known { configuration: ptr::null(), kinds: Vec::new() }) };
    static EVENT_READ: Cell<bool> = const { Cell::new(false) };
}

/// A variable that depends on the event has been read.
pub(super) fn event_was_read() {
    EVENT_READ.set(true);
}

impl Request<'_> {
    /// Forgets the values that depend on the event: it is another one from now on.
    pub fn forget_values(&self) {
        // SAFETY: a live request; its variables are an array with one entry for each indexed variable of its configuration.
        let (configuration, variables) = unsafe {
            let r = self.r.as_ptr();
            let index = sys::ngx_http_core_module.ctx_index;
            let main = (*(*r).main_conf.add(index)).cast::<sys::ngx_http_core_main_conf_t>();
            (main.cast_const(), ptr::slice_from_raw_parts_mut((*r).variables, (*main).variables.nelts))
        };
        for index in 0..variables.len() {
            // SAFETY: as above; no reference to an entry is held while nginx evaluates.
            let value = unsafe { &raw mut (*variables)[index] };
            // SAFETY: as above.
            if unsafe { (*value).valid() == 0 && (*value).not_found() == 0 } {
                continue;
            }
            let kind = KNOWN.with_borrow_mut(|known| {
                if known.configuration != configuration {
                    *known = Known { configuration, kinds: Vec::new() };
                }
                known.kinds.resize(variables.len(), Kind::Unknown);
                known.kinds.get(index).copied().unwrap_or(Kind::Unknown)
            });
            let kind = match kind {
                Kind::Unknown => {
                    let kind = if self.reads_event(index, variables) { Kind::ReadsEvent } else { Kind::Apart };
                    KNOWN.with_borrow_mut(|known| {
                        if let Some(slot) = known.kinds.get_mut(index) {
                            *slot = kind;
                        }
                    });
                    kind
                }
                kind => kind,
            };
            if kind == Kind::ReadsEvent {
                // SAFETY: as above.
                unsafe {
                    (*value).set_valid(0);
                    (*value).set_not_found(0);
                }
            }
        }
    }

    /// Evaluates the variable as if no other had been, and puts everything back.
    fn reads_event(&self, index: usize, variables: *mut [sys::ngx_http_variable_value_t]) -> bool {
        // SAFETY: a live request. nginx allocates captures where there are none; the values are plain data.
        unsafe {
            let r = self.r.as_ptr();
            let values: Vec<_> = (*variables).to_vec();
            let (captures, count, data) = ((*r).captures, (*r).ncaptures, (*r).captures_data);
            (*r).captures = ptr::null_mut();
            (*r).ncaptures = 0;
            for value in &mut *variables {
                value.set_valid(0);
                value.set_not_found(0);
            }
            EVENT_READ.set(false);
            sys::ngx_http_get_indexed_variable(r, index);
            (&mut *variables).copy_from_slice(&values);
            (*r).captures = captures;
            (*r).ncaptures = count;
            (*r).captures_data = data;
        }
        EVENT_READ.get()
    }
}
