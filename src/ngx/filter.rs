//! Where CORS meets nginx: a handler before limits and access rules, and a filter for the head of every answer.
//!
//! An error can be answered far from where it came up: error_page leads to another location, whose settings are then the
//! request's. So each page of a location with CORS is given a variable that is empty and notes the location when it is read.

use std::ptr::NonNull;

use super::conf::Conf;
use super::request::{OutOfMemory, Request};
use super::sys;
use crate::conf::Location;
use crate::request::cors;

/// The variable that notes the location; for the configuration that this module makes itself.
const NOTE: &str = "meteorit_failed_location";

/// The filter below ours. Written while the configuration is read.
static mut NEXT: sys::ngx_http_output_header_filter_pt = None;

/// Puts the filter before all others. The chain of filters belongs to the process, not to a configuration: a worker may run by
/// an older one than was read last, so this is done whether the configuration has CORS or not.
///
/// # Safety
/// Must be called once in a module's postconfiguration.
pub(super) unsafe fn install_filter() {
    // SAFETY: nginx builds the chain anew for each configuration, and is single-threaded here.
    unsafe {
        NEXT = sys::ngx_http_top_header_filter;
        sys::ngx_http_top_header_filter = Some(header_filter);
    }
}

/// Puts the handler in its place. Those of a phase run from the last one added to the first, and this module is behind
/// nginx's own: it comes before `return` and `if` of the location.
///
/// # Safety
/// `cf` must be that of a module's postconfiguration.
pub(super) unsafe fn install_handler(cf: NonNull<sys::ngx_conf_t>) -> Result<(), OutOfMemory> {
    // SAFETY: cf->ctx is the http block's; the array is one of handlers, and nginx is single-threaded here.
    unsafe {
        let ctx = (*cf.as_ptr()).ctx.cast::<sys::ngx_http_conf_ctx_t>();
        let index = sys::ngx_http_core_module.ctx_index;
        let main = (*(*ctx).main_conf.add(index)).cast::<sys::ngx_http_core_main_conf_t>();
        let phase = &raw mut (*main).phases[sys::ngx_http_phases_NGX_HTTP_REWRITE_PHASE as usize];
        let handler = sys::ngx_array_push(&raw mut (*phase).handlers).cast::<sys::ngx_http_handler_pt>();
        if handler.is_null() {
            return Err(OutOfMemory);
        }
        handler.write(Some(rewrite_handler));
    }
    Ok(())
}

/// Adds the variable to those of nginx.
///
/// # Safety
/// `cf` must be that of a module's preconfiguration.
pub(super) unsafe fn add_variable(cf: *mut sys::ngx_conf_t) -> Result<(), OutOfMemory> {
    let mut name = sys::ngx_str_t::view(NOTE.as_bytes());
    let flags = sys::NGX_HTTP_VAR_NOCACHEABLE | sys::NGX_HTTP_VAR_NOHASH;
    // SAFETY: nginx copies the name, and gives back a variable of the configuration or null.
    let variable = unsafe { sys::ngx_http_add_variable(cf, &raw mut name, flags as sys::ngx_uint_t).as_mut() };
    variable.ok_or(OutOfMemory)?.get_handler = Some(note_location);
    Ok(())
}

impl Conf<'_> {
    /// Has the pages of error_page in the location note where the error came up.
    pub fn watch_error_pages(&mut self) -> Result<(), String> {
        // SAFETY: error_pages is null or an array of ngx_http_err_page_t, perhaps that of an outer level. The core module's
        // settings have been merged before those of this module, and nobody else writes them.
        let pages = unsafe {
            let Some(pages) = self.core().error_pages().as_ref() else { return Ok(()) };
            std::slice::from_raw_parts_mut(pages.elts.cast::<sys::ngx_http_err_page_t>(), pages.nelts)
        };
        let note = format!("${{{NOTE}}}");
        for page in pages {
            // SAFETY: both are words of the configuration.
            let (value, args) = unsafe { (page.value.value.bytes(), page.args.bytes()) };
            if value.starts_with(note.as_bytes()) {
                continue;
            }
            let mut text = [note.as_bytes(), value].concat();
            // A page without variables has its query string apart (ngx_http_core_error_page), one with them has it not.
            if !args.is_empty() {
                text.push(b'?');
                text.extend_from_slice(args);
            }
            let watched = self.compile(&text).map_err(|()| String::new())?;
            // SAFETY: a compiled value is a plain struct; what it points to is the configuration's.
            page.value = unsafe { *watched.0.as_ptr() };
        }
        Ok(())
    }
}

impl<'r> Request<'r> {
    /// The settings where the error came up that is being answered elsewhere.
    pub fn failed_location(&self) -> Option<&'r Location> {
        // SAFETY: note_location puts in what create_loc_conf made, which outlives the requests.
        unsafe { self.context()?.failed_at.get().as_ref() }
    }
}

unsafe extern "C" fn note_location(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    _: usize,
) -> sys::ngx_int_t {
    let Some(r) = NonNull::new(r) else { return sys::ERROR };
    // SAFETY: nginx gives a live request and the value to fill.
    unsafe {
        let request = Request::new(r);
        if request.location().cors().is_some() && request.failed_location().is_none() {
            let Ok(()) = request.start() else { return sys::ERROR };
            if let Some(context) = request.context() {
                context.failed_at.set(request.location());
            }
        }
        let value = &mut *value;
        value.set_len(0);
        value.data = NonNull::dangling().as_ptr();
        value.set_valid(1);
        value.set_no_cacheable(0);
        value.set_not_found(0);
    }
    sys::OK
}

unsafe extern "C" fn rewrite_handler(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    let Some(r) = NonNull::new(r) else { return sys::ERROR };
    // SAFETY: nginx gives a live request in its rewrite phase, where a handler may answer it as in the content phase.
    match cors::enter(unsafe { Request::new(r) }) {
        Ok(None) => sys::NGX_DECLINED as sys::ngx_int_t,
        Ok(Some(handled)) => handled.0,
        Err(OutOfMemory) => sys::NGX_HTTP_INTERNAL_SERVER_ERROR as sys::ngx_int_t,
    }
}

unsafe extern "C" fn header_filter(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    let Some(live) = NonNull::new(r) else { return sys::ERROR };
    // SAFETY: nginx gives a live request whose head is about to be sent; that of a subrequest is not.
    unsafe {
        if r == (*r).main && cors::add_headers(&Request::new(live)).is_err() {
            return sys::ERROR;
        }
        match NEXT {
            Some(next) => next(r),
            None => sys::ERROR,
        }
    }
}
