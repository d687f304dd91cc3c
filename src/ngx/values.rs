//! Values that nginx keeps of variables which an event has part in: made anew when the event changes.
//!
//! nginx evaluates a variable like that of a `map` once for a request. Before the body is read, or while another event of
//! the same body was worked on, the value may have been made of another event, or of none.

use std::ptr;

use super::captures::Captures;
use super::request::{OutOfMemory, Request};
use super::sys;

/// A request's variables that an event has part in, and its captures, as they were before the first event of a batch.
pub(super) struct Saved {
    /// By index. A table's value is None: it is made anew.
    values: Vec<(usize, Option<sys::ngx_http_variable_value_t>)>,
    captures: Captures,
}

/// What an event does to a variable.
enum Part {
    /// It is chosen by a table (`map`, `geo`, `split_clients`), of keys that may read the event.
    Table,
    /// It is set by something else (`set`, a regular expression's capture) that evaluating a table may do again.
    Set,
    None,
}

impl Part {
    fn of(variable: &sys::ngx_http_variable_t) -> Part {
        const SET: u32 = sys::NGX_HTTP_VAR_CHANGEABLE;
        if is_table(variable) {
            Part::Table
        } else if variable.flags as u32 & (SET | sys::NGX_HTTP_VAR_NOCACHEABLE) == SET {
            Part::Set
        } else {
            Part::None
        }
    }
}

/// Whether a `map`, `geo`, `split_clients` or the like gives the variable its value: its data is a pointer to the table
/// then, and a small number otherwise, but for variables of the SSL module, which have a function there.
pub(super) fn is_table(variable: &sys::ngx_http_variable_t) -> bool {
    const LARGEST_NUMBER: usize = 1 << 20;
    // SAFETY: the names of variables live as long as the configuration.
    variable.data > LARGEST_NUMBER && !unsafe { variable.name.bytes() }.starts_with(b"ssl_")
}

/// Lets nginx make the value anew.
fn forget(value: &mut sys::ngx_http_variable_value_t) {
    value.set_valid(0);
    value.set_not_found(0);
}

impl Request<'_> {
    /// Remembers the values as they are, before the first event of a batch.
    pub fn save_values(&self) -> Result<(), OutOfMemory> {
        let context = self.context().ok_or(OutOfMemory)?;
        let (values, variables) = self.variables();
        // SAFETY: a live request; the two arrays have an entry each for every indexed variable.
        let pairs = unsafe { (*values).iter().zip(&*variables) };
        let values = pairs.enumerate().filter_map(|(index, (value, variable))| match Part::of(variable) {
            Part::Table => Some((index, None)),
            Part::Set => Some((index, Some(*value))),
            Part::None => None,
        });
        // SAFETY: a live request.
        let captures = unsafe { Captures::of(self.r.as_ptr()) };
        context.saved.set(Some(Box::new(Saved { values: values.collect(), captures })));
        Ok(())
    }

    /// Forgets the values that an event may have had part in: it is another one from now on.
    pub fn forget_values(&self) {
        let saved = self.context().and_then(|context| context.saved.take());
        let (values, variables) = self.variables();
        // SAFETY: a live request; the two arrays have an entry each for every indexed variable. Nothing here calls nginx.
        let (values, variables) = unsafe { (&mut *values, &*variables) };
        match &saved {
            Some(saved) => {
                for (index, before) in &saved.values {
                    match (values.get_mut(*index), before) {
                        (Some(value), Some(before)) => *value = *before,
                        (Some(value), None) => forget(value),
                        (None, _) => {}
                    }
                }
                // SAFETY: a live request, whose captures these were.
                unsafe { saved.captures.restore(self.r.as_ptr()) }
            }
            None => {
                let is_known = |value: &sys::ngx_http_variable_value_t| value.valid() != 0 || value.not_found() != 0;
                for (value, variable) in values.iter_mut().zip(variables) {
                    if is_known(value) && is_table(variable) {
                        forget(value);
                    }
                }
            }
        }
        if let Some(context) = self.context() {
            context.saved.set(saved);
        }
    }

    /// The values of the request's indexed variables, and the variables.
    fn variables(&self) -> (*mut [sys::ngx_http_variable_value_t], *const [sys::ngx_http_variable_t]) {
        // SAFETY: a live request, whose `variables` are as many as its configuration has indexed variables.
        unsafe {
            let r = self.r.as_ptr();
            let index = sys::ngx_http_core_module.ctx_index;
            let main = (*(*r).main_conf.add(index)).cast::<sys::ngx_http_core_main_conf_t>();
            let count = (*main).variables.nelts;
            let variables = (*main).variables.elts.cast::<sys::ngx_http_variable_t>();
            (ptr::slice_from_raw_parts_mut((*r).variables, count), ptr::slice_from_raw_parts(variables, count))
        }
    }
}
