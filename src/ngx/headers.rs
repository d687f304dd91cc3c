//! The header lines of a request and of its answer.

use super::request::{OutOfMemory, Request};
use super::sys;

impl<'r> Request<'r> {
    /// The values of a header, in lines as sent; `name` in any case.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        // SAFETY: a live request.
        unsafe { lines(&raw const (*self.raw()).headers_in.headers, name) }
    }

    /// Whether the answer has a header of this name, as far as it is made.
    pub fn answers_with(&self, name: &str) -> bool {
        // SAFETY: a live request.
        unsafe { lines(&raw const (*self.raw()).headers_out.headers, name) }.next().is_some()
    }

    /// Adds a line to the head of the answer, which must not have been sent.
    pub fn add_header(&self, name: &'static str, value: &'r [u8]) -> Result<(), OutOfMemory> {
        // SAFETY: a live request; an element of the list is as large as told. Zeroed first, for later versions of nginx
        // have a `next` in it that they expect to be null.
        unsafe {
            let header = sys::ngx_list_push(&raw mut (*self.raw()).headers_out.headers);
            let header = header.cast::<sys::ngx_table_elt_t>();
            if header.is_null() {
                return Err(OutOfMemory);
            }
            header.write_bytes(0, 1);
            (*header).hash = 1;
            (*header).key = sys::ngx_str_t::view(name.as_bytes());
            (*header).value = sys::ngx_str_t::view(value);
        }
        Ok(())
    }
}

/// The values of the lines of that name, in their order.
///
/// # Safety
/// `list` must be a list of headers, and what it holds live as long as `'r`.
unsafe fn lines<'r>(list: *const sys::ngx_list_t, name: &str) -> impl Iterator<Item = &'r [u8]> {
    // SAFETY: by the caller's word: a list of parts, each an array of elements.
    let mut part = unsafe { &raw const (*list).part };
    let mut index = 0;
    let next = move || {
        // SAFETY: as above.
        unsafe {
            let current = part.as_ref()?;
            if index < current.nelts {
                index += 1;
                return Some(&*current.elts.cast::<sys::ngx_table_elt_t>().add(index - 1));
            }
            part = current.next;
            index = 0;
            let next = part.as_ref().filter(|part| part.nelts > 0)?;
            index = 1;
            Some(&*next.elts.cast::<sys::ngx_table_elt_t>())
        }
    };
    // A hash of 0 marks a line of an answer that is not sent.
    // SAFETY: as above.
    let named = move |line: &&sys::ngx_table_elt_t| unsafe {
        line.hash != 0 && line.key.bytes().eq_ignore_ascii_case(name.as_bytes())
    };
    // SAFETY: as above.
    std::iter::from_fn(next).filter(named).map(|line| unsafe { line.value.bytes() })
}
