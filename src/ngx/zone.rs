//! The zone of shared memory that counters live in: nginx hands it on from one configuration to the next, and all workers
//! have it at the same address.

use core::ffi::c_void;
use std::ptr;
use std::sync::atomic::AtomicU64;

use super::conf::Conf;
use super::event::unix_ms;
use super::{exports, log, sys};
use crate::conf::Main;
use crate::metrics::Table;

impl Conf<'_> {
    /// Asks nginx for a zone of so many bytes, and has `main` told of it once it is there: [`Main::attach`].
    pub fn zone(&mut self, name: &str, size: usize, main: &Main) -> Result<(), String> {
        let least = 8 * page();
        if size < least {
            return Err(format!("the zone \"{name}\" is too small: it has {least} bytes at least"));
        }
        let mut name = self.copy(name.as_bytes())?;
        // SAFETY: the configuration is being read; the name is in its pool. `main` is this module's main configuration, in
        // the same pool.
        unsafe {
            let zone = sys::ngx_shared_memory_add(self.raw(), &raw mut name, size, exports::tag());
            // nginx has logged why not.
            let Some(zone) = zone.as_mut() else { return Err(String::new()) };
            zone.init = Some(init);
            zone.data = ptr::from_ref(main).cast_mut().cast();
            Ok(())
        }
    }
}

/// The size of a page, in bytes.
fn page() -> usize {
    // SAFETY: nginx writes it once, before it reads a configuration.
    unsafe { sys::ngx_pagesize }
}

/// nginx has the memory: that of the configuration before, whose `data` then is `old`, or new one.
unsafe extern "C" fn init(zone: *mut sys::ngx_shm_zone_t, old: *mut c_void) -> sys::ngx_int_t {
    // SAFETY: nginx gives a zone that `Conf::zone` asked for, mapped, with a slab pool at its beginning whose `data` is for
    // the zone's owner. All free pages of a new pool are taken at once, zeroed, for the table alone: they reach to the pool's
    // end (ngx_slab_init), and hold nothing but words that are read and written by atomic access from then on. nginx keeps
    // them mapped as long as a configuration has the zone, and a worker as long as it lives, which counts by the
    // configuration that it was born with; a master counts nothing. (A nginx without master and workers is for development:
    // its requests have to be over before a reload gives the zone another size.)
    unsafe {
        let pool = (*zone).shm.addr.cast::<sys::ngx_slab_pool_t>();
        let Some(main) = (*zone).data.cast::<Main>().as_ref() else { return sys::ERROR };
        if old.is_null() {
            (*pool).data = sys::ngx_slab_calloc(pool, (*pool).pfree * page());
        }
        let memory = (*pool).data.cast::<AtomicU64>();
        if memory.is_null() {
            return sys::ERROR;
        }
        let length = (*pool).end.addr().saturating_sub(memory.addr()) / size_of::<AtomicU64>();
        let Some(table) = Table::over(std::slice::from_raw_parts(memory, length), unix_ms()) else { return sys::ERROR };
        main.attach(table, &mut |warning| {
            log::write((*zone).shm.log, sys::NGX_LOG_WARN as sys::ngx_uint_t, warning.as_bytes())
        });
        sys::OK
    }
}
