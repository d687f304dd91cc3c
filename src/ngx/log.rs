//! The error log.

use super::sys;

/// nginx's log levels that this module uses.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Level {
    Alert = sys::NGX_LOG_ALERT,
    Error = sys::NGX_LOG_ERR,
    Warn = sys::NGX_LOG_WARN,
    Notice = sys::NGX_LOG_NOTICE,
    Info = sys::NGX_LOG_INFO,
}

/// Writes one line to the log of the running cycle.
pub fn log(level: Level, message: &str) {
    // SAFETY: the cycle and its log live as long as the process.
    unsafe { write((*sys::ngx_cycle).log, level as sys::ngx_uint_t, message.as_bytes()) }
}

/// Writes one line to `log`, when its level lets it.
///
/// # Safety
/// `log` must be a valid log.
pub(super) unsafe fn write(log: *mut sys::ngx_log_t, level: sys::ngx_uint_t, message: &[u8]) {
    // SAFETY: by the caller's word; "%*s" takes a size_t and a pointer (core/ngx_string.c).
    unsafe {
        if (*log).log_level >= level {
            #[cfg(not(angie))]
            sys::ngx_log_error_core(level, log, 0, c"%*s".as_ptr(), message.len(), message.as_ptr());
            // With the name of a source file, for Angie's filters of the log.
            #[cfg(angie)]
            sys::ngx_log_error_core(
                level,
                log,
                c"meteorit".as_ptr(),
                0,
                c"%*s".as_ptr(),
                message.len(),
                message.as_ptr(),
            );
        }
    }
}
