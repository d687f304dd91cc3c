//! What regular expressions have captured of a request (`$1`, `$2`), where nginx is built with them.

#[cfg(nginx_pcre)]
pub(super) use with::Captures;
#[cfg(not(nginx_pcre))]
pub(super) use without::Captures;

#[cfg(nginx_pcre)]
mod with {
    use crate::ngx::sys;

    /// A request's captures at some time.
    pub struct Captures {
        numbers: Vec<core::ffi::c_int>,
        count: sys::ngx_uint_t,
        data: *mut sys::u_char,
    }

    impl Captures {
        /// As they are.
        ///
        /// # Safety
        /// `r` must be a live request.
        pub unsafe fn of(r: *const sys::ngx_http_request_t) -> Captures {
            // SAFETY: by the caller's word; it has room for `ncaptures` numbers at least, where it has captures.
            unsafe {
                let numbers = match (*r).captures.is_null() {
                    true => Vec::new(),
                    false => std::slice::from_raw_parts((*r).captures, (*r).ncaptures).to_vec(),
                };
                Captures { numbers, count: (*r).ncaptures, data: (*r).captures_data }
            }
        }

        /// Makes the request's what they were.
        ///
        /// # Safety
        /// `r` must be the request that they are of, alive.
        pub unsafe fn restore(&self, r: *mut sys::ngx_http_request_t) {
            // SAFETY: by the caller's word; captures that were there before still have their room.
            unsafe {
                (*r).ncaptures = self.count;
                (*r).captures_data = self.data;
                if !(*r).captures.is_null() {
                    (*r).captures.copy_from_nonoverlapping(self.numbers.as_ptr(), self.numbers.len());
                }
            }
        }
    }
}

#[cfg(not(nginx_pcre))]
mod without {
    use crate::ngx::sys;

    /// There are none: nginx was built without regular expressions.
    pub struct Captures;

    impl Captures {
        /// # Safety
        /// None.
        pub unsafe fn of(_: *const sys::ngx_http_request_t) -> Captures {
            Captures
        }

        /// # Safety
        /// None.
        pub unsafe fn restore(&self, _: *mut sys::ngx_http_request_t) {}
    }
}
