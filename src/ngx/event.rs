//! Time, timers and posted events of nginx's loop.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use super::sys;

/// Milliseconds on nginx's monotonic clock, updated once per loop iteration.
pub type Msec = u64;

/// The time of this loop iteration (`ngx_current_msec`).
pub fn now() -> Msec {
    // SAFETY: a word that only this thread's event loop writes.
    unsafe { sys::ngx_current_msec as Msec }
}

/// Whether this worker is on its way out: it answers what it has and takes no more.
pub fn exiting() -> bool {
    // SAFETY: as above.
    unsafe { sys::ngx_exiting != 0 }
}

/// Milliseconds since 1970, as of this loop iteration (`ngx_cached_time`).
pub fn unix_ms() -> u64 {
    // SAFETY: nginx's cached time is always valid, and only this thread updates it.
    let time = unsafe { &*sys::ngx_cached_time };
    u64::try_from(time.sec).unwrap_or(0) * 1000 + time.msec as u64
}

/// `seconds` since 1970 in the words of strftime(3), in UTC or in the server's time zone; cut at 256 bytes, empty when the
/// format gives more.
pub fn strftime(format: &CStr, seconds: i64, local: bool) -> Vec<u8> {
    let mut text = [0u8; 256];
    // SAFETY: a tm is plain data that gmtime_r and localtime_r fill; strftime writes at most as much as told.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let done = match local {
            true => libc::localtime_r(&seconds, &mut tm),
            false => libc::gmtime_r(&seconds, &mut tm),
        };
        match done.is_null() {
            true => 0,
            false => libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &tm),
        }
    };
    text.get(..length).unwrap_or_default().to_vec()
}

/// nginx's number of this worker, from 0.
pub fn worker() -> u64 {
    // SAFETY: written once, before a worker begins.
    unsafe { sys::ngx_worker as u64 }
}

/// The number of this process.
pub fn pid() -> u32 {
    std::process::id()
}

/// Whether there is a process of that number.
pub fn lives(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: the signal 0 only looks.
    pid > 0 && unsafe { libc::kill(pid, 0) == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) }
}

/// nginx's version, as `1.28.0`.
pub fn version() -> &'static str {
    sys::NGINX_VERSION.to_str().unwrap_or_default()
}

/// Random bytes from the kernel, to seed a generator with: never the same in two workers.
pub fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    // SAFETY: getrandom writes at most as much as told; 32 bytes come whole (getrandom(2)).
    unsafe { libc::getrandom(seed.as_mut_ptr().cast(), seed.len(), 0) };
    seed
}

/// A random number, from the generator that nginx seeds in each worker; not for secrets.
pub fn random() -> u32 {
    // SAFETY: random() has no preconditions, and a worker has one thread.
    unsafe { sys::random() as u32 }
}

/// An `ngx_event_t` of ours with what to call.
///
/// nginx's debug log takes `data` of a timer for a connection and prints its `fd` (`ngx_event_ident`): the struct starts
/// with room for that.
#[repr(C)]
struct Event {
    connection: [usize; 4],
    event: sys::ngx_event_t,
    call: Rc<dyn Fn()>,
}

/// Owns an [`Event`] on the heap; a raw pointer, because nginx's trees and queues point to it too.
struct Handle(NonNull<Event>);

impl Handle {
    fn new<T: 'static>(owner: Weak<T>, call: fn(&T)) -> Handle {
        // SAFETY: ngx_event_t is plain data for which all zeros is nginx's own initial state.
        let event = unsafe { std::mem::zeroed::<sys::ngx_event_t>() };
        let call = Rc::new(move || {
            if let Some(owner) = owner.upgrade() {
                call(&owner);
            }
        });
        let event = NonNull::from(Box::leak(Box::new(Event { connection: [0; 4], event, call })));
        // SAFETY: just made, and nginx does not know it yet.
        unsafe {
            let raw = event.as_ptr();
            (*raw).event.data = raw.cast();
            (*raw).event.handler = Some(fired);
            (*raw).event.log = (*sys::ngx_cycle).log;
        }
        Handle(event)
    }

    fn event(&self) -> *mut sys::ngx_event_t {
        // SAFETY: the event lives as long as its handle.
        unsafe { &raw mut (*self.0.as_ptr()).event }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: leaked from a box in `new`; Timer and Posted have taken it out of nginx's structures.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

unsafe extern "C" fn fired(event: *mut sys::ngx_event_t) {
    // SAFETY: only events made by Handle::new have this handler, and one that is dropped leaves nginx's structures first.
    // The callback is held on its own, for it may drop the event.
    let call = unsafe { Rc::clone(&(*(*event).data.cast::<Event>()).call) };
    call();
}

/// A timer; dropping it cancels it.
pub struct Timer(Handle);

impl Timer {
    /// A timer, not yet set, that calls `fire` on its owner, if that still lives.
    pub fn new<T: 'static>(owner: Weak<T>, fire: fn(&T)) -> Timer {
        Timer(Handle::new(owner, fire))
    }

    /// Sets, or moves, the timer to `delay` milliseconds from now.
    pub fn set(&self, delay: Msec) {
        self.cancel();
        let event = self.0.event();
        // SAFETY: the event is valid and in no tree; this is ngx_event_add_timer (event/ngx_event_timer.h).
        unsafe {
            (*event).timer.key = (sys::ngx_current_msec).wrapping_add(delay as sys::ngx_msec_t) as _;
            sys::ngx_rbtree_insert(&raw mut sys::ngx_event_timer_rbtree, &raw mut (*event).timer);
            (*event).set_timer_set(1);
        }
    }

    /// Unsets the timer, if it is set.
    pub fn cancel(&self) {
        let event = self.0.event();
        // SAFETY: the event is in the timer tree exactly while timer_set says so.
        unsafe {
            if (*event).timer_set() != 0 {
                sys::ngx_rbtree_delete(&raw mut sys::ngx_event_timer_rbtree, &raw mut (*event).timer);
                (*event).set_timer_set(0);
            }
        }
    }

    /// A worker on its way out waits for its timers, but not for a cancelable one.
    pub fn set_cancelable(&self, cancelable: bool) {
        // SAFETY: the event is valid; the bit is read only by the event loop.
        unsafe { (*self.0.event()).set_cancelable(cancelable.into()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// An event that runs at the end of this loop iteration; dropping it takes it back.
pub struct Posted(Handle);

impl Posted {
    /// An event, not yet posted, that calls `run` on its owner, if that still lives.
    pub fn new<T: 'static>(owner: Weak<T>, run: fn(&T)) -> Posted {
        Posted(Handle::new(owner, run))
    }

    /// Posts the event to the end of this iteration; posting it twice is posting it once.
    pub fn post(&self) {
        self.post_to(&raw mut sys::ngx_posted_events);
    }

    /// Posts the event to the next iteration, after what has happened meanwhile. It does not keep a worker that is on its
    /// way out from exiting.
    pub fn post_next(&self) {
        self.post_to(&raw mut sys::ngx_posted_next_events);
    }

    fn post_to(&self, queue: *mut sys::ngx_queue_t) {
        let event = self.0.event();
        // SAFETY: ngx_post_event (event/ngx_event_posted.h); the event is in no queue unless `posted` says so.
        unsafe {
            if (*event).posted() == 0 {
                (*event).set_posted(1);
                sys::queue_insert_tail(queue, &raw mut (*event).queue);
            }
        }
    }

    /// Whether the event waits for the end of this iteration.
    pub fn is_posted(&self) -> bool {
        // SAFETY: the event is valid.
        unsafe { (*self.0.event()).posted() != 0 }
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        let event = self.0.event();
        // SAFETY: ngx_delete_posted_event; the event is in a queue exactly while `posted` says so.
        unsafe {
            if (*event).posted() != 0 {
                (*event).set_posted(0);
                sys::queue_remove(&raw mut (*event).queue);
            }
        }
    }
}
