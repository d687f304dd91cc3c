//! nginx's own declarations, made by build.rs, and what C macros and inline functions add to them.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, dead_code, clippy::all, unsafe_op_in_unsafe_fn)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

pub const OK: ngx_int_t = NGX_OK as ngx_int_t;
pub const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
pub const AGAIN: ngx_int_t = NGX_AGAIN as ngx_int_t;
pub const DONE: ngx_int_t = NGX_DONE as ngx_int_t;

/// NGX_CONF_OK and NGX_CONF_ERROR (`core/ngx_conf_file.h`).
pub const CONF_OK: *mut core::ffi::c_char = core::ptr::null_mut();
pub const CONF_ERROR: *mut core::ffi::c_char = core::ptr::without_provenance_mut(usize::MAX);

impl ngx_str_t {
    /// The string's bytes.
    ///
    /// # Safety
    /// `data` must point to `len` bytes that live, unchanged, as long as `'a`.
    pub unsafe fn bytes<'a>(&self) -> &'a [u8] {
        if self.len == 0 || self.data.is_null() {
            return &[];
        }
        // SAFETY: the caller vouches for the pointer, the length and the lifetime.
        unsafe { core::slice::from_raw_parts(self.data, self.len) }
    }

    /// A view of `bytes` for nginx to read: nothing may be written through it.
    pub const fn view(bytes: &[u8]) -> ngx_str_t {
        ngx_str_t { len: bytes.len(), data: bytes.as_ptr().cast_mut() }
    }
}

/// `ngx_queue_insert_tail` (`core/ngx_queue.h`).
///
/// # Safety
/// Both must be valid, `head` an initialised queue, `item` in no queue.
pub unsafe fn queue_insert_tail(head: *mut ngx_queue_t, item: *mut ngx_queue_t) {
    // SAFETY: by the caller's word all the links are valid.
    unsafe {
        (*item).prev = (*head).prev;
        (*(*item).prev).next = item;
        (*item).next = head;
        (*head).prev = item;
    }
}

/// `ngx_queue_remove` (`core/ngx_queue.h`).
///
/// # Safety
/// `item` must be in a queue.
pub unsafe fn queue_remove(item: *mut ngx_queue_t) {
    // SAFETY: an item in a queue has valid neighbours.
    unsafe {
        (*(*item).next).prev = (*item).prev;
        (*(*item).prev).next = (*item).next;
    }
}
