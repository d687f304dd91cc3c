//! A request that waits: for an answer that comes from the event loop, or for its client to go away first.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use slab::Slab;

use super::request::{OutOfMemory, Request};
use super::sys;
use crate::metrics;
use crate::response::Answer;

/// A request that waits for its answer. It is answered exactly once: by [`Pending::answer`], or, should that never
/// happen, with nginx's 500 when this is dropped. When its client goes away first, both do nothing.
pub struct Pending {
    slot: usize,
    counters: metrics::Location,
}

/// A waiting request, or null when it has ended without us; and the cleanup that tells of such an end.
struct Live {
    request: *mut sys::ngx_http_request_t,
    cleanup: *mut sys::ngx_http_cleanup_t,
}

thread_local! {
    /// Never borrowed across a call into nginx, which may come back here.
    static LIVE: RefCell<Slab<Live>> = const { RefCell::new(Slab::new()) };
}

impl<'r> Request<'r> {
    /// Ends the callback of [`Request::read_body`] without an answer yet.
    pub fn suspend(self) -> Result<Pending, (Request<'r>, OutOfMemory)> {
        let r = self.r.as_ptr();
        // SAFETY: a live request; nginx calls the cleanup when the request ends, whatever ends it (h1 and h2 clients that
        // go away are seen by ngx_http_test_reading). A subrequest has no reading of its own to watch.
        unsafe {
            let cleanup = sys::ngx_http_cleanup_add(r, 0);
            if cleanup.is_null() {
                return Err((self, OutOfMemory));
            }
            let slot = LIVE.with_borrow_mut(|live| live.insert(Live { request: r, cleanup }));
            (*cleanup).handler = Some(ended);
            (*cleanup).data = ptr::without_provenance_mut(slot);
            if r == (*r).main {
                (*r).read_event_handler = Some(sys::ngx_http_test_reading);
            }
            (*r).write_event_handler = Some(sys::ngx_http_request_empty_handler);
            Ok(Pending { slot, counters: self.location().counters() })
        }
    }
}

impl Pending {
    /// Answers the request, from outside its own events. `make` sees the request, to log and to take notes.
    pub fn answer(self, make: impl FnOnce(&Request) -> (Answer, bool)) {
        let Some(r) = ManuallyDrop::new(self).take() else { return };
        // SAFETY: `take` gives a live request, which no cleanup will take from us now. The connection outlives the
        // finalization (ngx_http_upstream.c relies on the same), and whatever was posted meanwhile has to run, for no
        // event of the request's own does it.
        unsafe {
            let request = Request::new(r);
            let (answer, intercept) = make(&request);
            let status = request.send(&answer, intercept);
            finalize(r, status);
        }
    }

    /// Lets `work` see the request, which goes on waiting; None when it has ended.
    pub fn with<T>(&self, work: impl FnOnce(&Request) -> T) -> Option<T> {
        let r = LIVE.with_borrow(|live| NonNull::new(live.get(self.slot)?.request))?;
        // SAFETY: a live request; it does not end in this call, for nothing finalizes it.
        Some(work(&unsafe { Request::new(r) }))
    }

    /// Whether the request has ended without its answer.
    pub fn is_gone(&self) -> bool {
        LIVE.with_borrow(|live| live.get(self.slot).is_none_or(|live| live.request.is_null()))
    }

    /// Those of its location, also when the request is gone.
    pub fn counters(&self) -> metrics::Location {
        self.counters
    }

    /// Forgets the request without an answer, for a worker that is about to exit: nginx then closes its connection.
    pub fn abandon(self) {
        ManuallyDrop::new(self).take();
    }

    /// To be called once: the slot is another's from then on.
    fn take(&self) -> Option<NonNull<sys::ngx_http_request_t>> {
        let live = LIVE.with_borrow_mut(|live| live.try_remove(self.slot))?;
        let request = NonNull::new(live.request)?;
        // SAFETY: the cleanup is in the pool of the request, which lives.
        unsafe { (*live.cleanup).handler = None };
        Some(request)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(r) = self.take() {
            // SAFETY: as in `answer`.
            unsafe { finalize(r, sys::NGX_HTTP_INTERNAL_SERVER_ERROR as sys::ngx_int_t) }
        }
    }
}

/// # Safety
/// `r` must be live, with one reference that is the caller's to give up.
unsafe fn finalize(r: NonNull<sys::ngx_http_request_t>, status: sys::ngx_int_t) {
    // SAFETY: by the caller's word; see Pending::answer.
    unsafe {
        let connection = (*r.as_ptr()).connection;
        sys::ngx_http_finalize_request(r.as_ptr(), status);
        sys::ngx_http_run_posted_requests(connection);
    }
}

/// The request has ended without us.
unsafe extern "C" fn ended(slot: *mut core::ffi::c_void) {
    LIVE.with_borrow_mut(|live| {
        if let Some(live) = live.get_mut(slot.addr()) {
            live.request = ptr::null_mut();
        }
    });
}
