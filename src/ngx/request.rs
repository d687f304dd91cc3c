//! A request of nginx, seen for the length of one callback.

use std::cell::Cell;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ptr::{self, NonNull};

use super::conf::Complex;
use super::log::{self, Level};
use super::values::Saved;
use super::{exports, sys};
use crate::conf::{Location, Main};
use crate::response::Answer;
use crate::variables::Note;

/// nginx could not allocate from the request's pool.
#[derive(Debug)]
pub struct OutOfMemory;

/// What a content handler gives back to nginx.
pub struct Handled(pub(super) sys::ngx_int_t);

/// The request methods that this module tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Options,
    Other,
}

/// A part of the body, where nginx has left it.
pub enum BodyPart<'r> {
    Memory(&'r [u8]),
    File(FilePart<'r>),
}

/// A part of the body in a temporary file.
pub struct FilePart<'r> {
    file: NonNull<sys::ngx_file_t>,
    start: sys::off_t,
    length: usize,
    request: PhantomData<&'r ()>,
}

/// A request, for the length of the callback that was given it.
pub struct Request<'r> {
    pub(super) r: NonNull<sys::ngx_http_request_t>,
    callback: PhantomData<&'r mut ()>,
}

/// What this module remembers of a request; in the request's pool, so that it is found in the log phase and after an
/// internal redirect too.
pub(super) struct Context {
    request: *mut sys::ngx_http_request_t,
    event: Cell<*const [u8]>,
    serial: Cell<u64>,
    id: Cell<*const [u8]>,
    error: Cell<*const [u8]>,
    body: Cell<*const [u8]>,
    /// Taken out while it is used.
    pub(super) saved: Cell<Option<Box<Saved>>>,
    body_ready: Cell<Option<fn(Request)>>,
    /// The settings where an error came up that error_page has then led elsewhere; null when none did.
    pub(super) failed_at: Cell<*const Location>,
    note: Note,
}

impl<'r> Request<'r> {
    /// # Safety
    /// `r` must be a live request, and `'r` no longer than the callback that nginx gave it to.
    pub(super) unsafe fn new(r: NonNull<sys::ngx_http_request_t>) -> Request<'r> {
        Request { r, callback: PhantomData }
    }

    pub(super) fn raw(&self) -> *mut sys::ngx_http_request_t {
        self.r.as_ptr()
    }

    /// This module's settings for the request's location.
    pub fn location(&self) -> &'r Location {
        // SAFETY: nginx puts what create_loc_conf made into each location, and it lives as long as the configuration,
        // which outlives its requests.
        unsafe { &*(*(*self.raw()).loc_conf.add(exports::context_index())).cast::<Location>() }
    }

    /// This module's settings for all of the http block.
    pub fn main(&self) -> Option<&'r Main> {
        // SAFETY: as in `location`.
        unsafe { (*(*self.raw()).main_conf.add(exports::context_index())).cast::<Main>().as_ref() }
    }

    pub fn method(&self) -> Method {
        // SAFETY: a live request.
        match unsafe { (*self.raw()).method } as u32 {
            sys::NGX_HTTP_GET => Method::Get,
            sys::NGX_HTTP_HEAD => Method::Head,
            sys::NGX_HTTP_POST => Method::Post,
            sys::NGX_HTTP_PUT => Method::Put,
            sys::NGX_HTTP_OPTIONS => Method::Options,
            _ => Method::Other,
        }
    }

    /// The query string, as sent.
    pub fn args(&self) -> &'r [u8] {
        // SAFETY: a live request; its line is in its header buffer.
        unsafe { (*self.raw()).args.bytes() }
    }

    /// The value of the Content-Type header.
    pub fn content_type(&self) -> Option<&'r [u8]> {
        // SAFETY: a live request; header values are in its pool or header buffer.
        unsafe { (*self.raw()).headers_in.content_type.as_ref().map(|header| header.value.bytes()) }
    }

    /// The body's length as the client announced it, in bytes; None when it did not.
    pub fn content_length(&self) -> Option<u64> {
        // SAFETY: a live request.
        u64::try_from(unsafe { (*self.raw()).headers_in.content_length_n }).ok()
    }

    /// Reads the body and then calls `ready`, at once or from the event loop; what nginx finds wrong it answers itself.
    pub fn read_body(self, ready: fn(Request)) -> Handled {
        let Some(context) = self.context() else { return Handled(HTTP_500) };
        context.body_ready.set(Some(ready));
        // SAFETY: a live request in its content phase. On an error nginx has given its reference back, else it is ours
        // and `body_ready` ends in exactly one finalization.
        unsafe {
            (*self.raw()).set_request_body_in_single_buf(1);
            match sys::ngx_http_read_client_request_body(self.raw(), Some(body_ready)) {
                error if error >= sys::NGX_HTTP_SPECIAL_RESPONSE as sys::ngx_int_t => Handled(error),
                _ => Handled(sys::DONE),
            }
        }
    }

    /// The body, once it has been read.
    pub fn body(&self) -> impl Iterator<Item = BodyPart<'r>> {
        // SAFETY: a live request. The chain and its buffers belong to it and stay as they are once the body is read.
        let mut link = unsafe { (*self.raw()).request_body.as_ref().map_or(ptr::null_mut(), |body| body.bufs) };
        std::iter::from_fn(move || {
            // SAFETY: as above.
            unsafe {
                let current = link.as_ref()?;
                link = current.next;
                let buf = &*current.buf;
                Some(match NonNull::new(buf.file).filter(|_| buf.in_file() != 0) {
                    Some(file) => BodyPart::File(FilePart {
                        file,
                        start: buf.file_pos,
                        length: usize::try_from(buf.file_last - buf.file_pos).unwrap_or(0),
                        request: PhantomData,
                    }),
                    None if buf.pos.is_null() => BodyPart::Memory(&[]),
                    None => {
                        BodyPart::Memory(std::slice::from_raw_parts(buf.pos, buf.last.offset_from_unsigned(buf.pos)))
                    }
                })
            }
        })
    }

    /// Zeroed bytes that live as long as the request.
    pub fn allocate(&self, length: usize) -> Result<&'r mut [u8], OutOfMemory> {
        // SAFETY: a live request; the memory is its pool's and nobody else's.
        unsafe {
            let bytes = sys::ngx_palloc((*self.raw()).pool, length.max(1)).cast::<u8>();
            if bytes.is_null() {
                return Err(OutOfMemory);
            }
            bytes.write_bytes(0, length);
            Ok(std::slice::from_raw_parts_mut(bytes, length))
        }
    }

    /// A complex value, evaluated now.
    pub fn evaluate(&self, value: &Complex) -> Result<&'r [u8], OutOfMemory> {
        let mut text = sys::ngx_str_t::view(&[]);
        // SAFETY: a live request, and a value compiled from its configuration; the result is in the request's pool.
        unsafe {
            match sys::ngx_http_complex_value(self.raw(), value.0.as_ptr(), &raw mut text) {
                sys::OK => Ok(text.bytes()),
                _ => Err(OutOfMemory),
            }
        }
    }

    /// Lets `event`, the one with this number, be what the request is about from now on.
    pub fn set_event(&self, event: &'r [u8], serial: u64) {
        if let Some(context) = self.context() {
            context.event.set(event);
            context.serial.set(serial);
        }
    }

    /// What [`Request::set_event`] was given; None before.
    pub fn event(&self) -> Option<(&'r [u8], u64)> {
        let context = self.context().filter(|context| context.serial.get() > 0)?;
        // SAFETY: set_event demands that it lives as long as the request.
        Some((unsafe { &*context.event.get() }, context.serial.get()))
    }

    /// Lets the request be about no event any more.
    pub fn clear_event(&self) {
        if let Some(context) = self.context() {
            context.event.set(&[]);
            context.serial.set(0);
            context.id.set(&[]);
            context.error.set(&[]);
        }
    }

    /// Lets `id` be the event's id from now on.
    pub fn set_id(&self, id: &'r [u8]) {
        if let Some(context) = self.context() {
            context.id.set(id);
        }
    }

    /// What [`Request::set_id`] was given; empty before.
    pub fn id(&self) -> &'r [u8] {
        // SAFETY: set_id demands that it lives as long as the request.
        self.context().map_or(&[], |context| unsafe { &*context.id.get() })
    }

    /// Lets `error` be what is wrong with the event.
    pub fn set_error(&self, error: &'r [u8]) {
        if let Some(context) = self.context() {
            context.error.set(error);
        }
    }

    /// What [`Request::set_error`] was given; empty before.
    pub fn error(&self) -> &'r [u8] {
        // SAFETY: set_error demands that it lives as long as the request.
        self.context().map_or(&[], |context| unsafe { &*context.error.get() })
    }

    /// Remembers the decoded body.
    pub fn set_body(&self, body: &'r [u8]) {
        if let Some(context) = self.context() {
            context.body.set(body);
        }
    }

    /// What [`Request::set_body`] was given; empty before.
    pub fn decoded_body(&self) -> &'r [u8] {
        // SAFETY: set_body demands that it lives as long as the request.
        self.context().map_or(&[], |context| unsafe { &*context.body.get() })
    }

    /// A copy that lives as long as the request.
    pub fn keep(&self, bytes: &[u8]) -> Result<&'r [u8], OutOfMemory> {
        let copy = self.allocate(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }

    /// The client's address, as nginx has it after realip; None for a unix socket.
    pub fn remote_addr(&self) -> Option<IpAddr> {
        // SAFETY: a live request has a connection with an address of the family that it says.
        unsafe {
            let sockaddr = (*(*self.raw()).connection).sockaddr;
            match libc::c_int::from(sockaddr.as_ref()?.sa_family) {
                libc::AF_INET => {
                    let address = &*sockaddr.cast::<libc::sockaddr_in>();
                    Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
                }
                libc::AF_INET6 => {
                    let address = &*sockaddr.cast::<libc::sockaddr_in6>();
                    Some(IpAddr::from(address.sin6_addr.s6_addr))
                }
                _ => None,
            }
        }
    }

    /// What the access log will say of the request; None when this module has not seen it.
    pub fn note(&self) -> Option<&'r Note> {
        self.context().map(|context| &context.note)
    }

    /// Writes a line to the error log, with what nginx says there of the request.
    pub fn log(&self, level: Level, message: &str) {
        // SAFETY: a live request has a connection, which has a log.
        unsafe { log::write((*(*self.raw()).connection).log, level as sys::ngx_uint_t, message.as_bytes()) }
    }

    /// Answers from the content handler, without the body: what is left of it is read and thrown away.
    pub fn answer_without_body(self, answer: &Answer, intercept: bool) -> Handled {
        // SAFETY: a live request in its content phase, of which nothing has been read or sent yet.
        match unsafe { sys::ngx_http_discard_request_body(self.raw()) } {
            sys::OK => Handled(self.send(answer, intercept)),
            error => Handled(error),
        }
    }

    /// Answers from the callback of [`Request::read_body`]; the end of the request.
    pub fn answer(self, answer: &Answer, intercept: bool) {
        let status = self.send(answer, intercept);
        // SAFETY: this takes the one reference that reading the body left, and `self` with it.
        unsafe { sys::ngx_http_finalize_request(self.raw(), status) }
    }

    /// Sends the answer, or leaves it to error_page; gives what to finalize the request with.
    pub(super) fn send(&self, answer: &Answer, intercept: bool) -> sys::ngx_int_t {
        // SAFETY: a live request whose header has not been sent; what its headers point to is static or in its pool.
        unsafe {
            let r = self.raw();
            for (name, value) in &answer.headers {
                let value = self.keep(value.as_bytes());
                if value.and_then(|value| self.add_header(name, value)).is_err() {
                    return HTTP_500;
                }
            }
            if intercept && self.has_error_page(answer.status) {
                return sys::ngx_int_t::from(answer.status as i16);
            }
            (*r).headers_out.status = answer.status.into();
            let Some(body) = &answer.body else {
                // Only a 204 comes without a body, and nginx knows that it has none. But where error_page has led here with
                // a status of its own, that is sent in its place (ngx_http_send_header), and needs a length and an end.
                (*r).headers_out.content_length_n = 0;
                let status = sys::ngx_http_send_header(r);
                if status == sys::ERROR || status > sys::OK || (*r).header_only() != 0 {
                    return status;
                }
                return sys::ngx_http_send_special(r, sys::NGX_HTTP_LAST as sys::ngx_uint_t);
            };
            let (media_type, body) = (body.media_type, &*body.bytes);
            (*r).headers_out.content_length_n = body.len() as sys::off_t;
            (*r).headers_out.content_type = sys::ngx_str_t::view(media_type.as_bytes());
            (*r).headers_out.content_type_len = media_type.len();
            (*r).headers_out.content_type_lowcase = ptr::null_mut();
            let status = sys::ngx_http_send_header(r);
            if status == sys::ERROR || status > sys::OK || (*r).header_only() != 0 {
                return status;
            }
            let buf = sys::ngx_create_temp_buf((*r).pool, body.len());
            let Some(buf) = buf.as_mut() else { return sys::ERROR };
            buf.last.copy_from_nonoverlapping(body.as_ptr(), body.len());
            buf.last = buf.last.add(body.len());
            // A buffer without bytes may only say that it is the last one.
            buf.set_temporary((!body.is_empty()).into());
            buf.set_last_buf((r == (*r).main).into());
            buf.set_last_in_chain(1);
            let mut chain = sys::ngx_chain_t { buf, next: ptr::null_mut() };
            sys::ngx_http_output_filter(r, &raw mut chain)
        }
    }

    fn has_error_page(&self, status: u16) -> bool {
        // SAFETY: the core module's settings of the location; error_pages is null or an array of ngx_http_err_page_t.
        unsafe {
            let index = sys::ngx_http_core_module.ctx_index;
            let core = *(*self.raw()).loc_conf.add(index);
            let Some(pages) = (*core.cast::<sys::ngx_http_core_loc_conf_t>()).error_pages.as_ref() else {
                return false;
            };
            let pages = std::slice::from_raw_parts(pages.elts.cast::<sys::ngx_http_err_page_t>(), pages.nelts);
            pages.iter().any(|page| page.status == sys::ngx_int_t::from(status as i16))
        }
    }

    pub(super) fn context(&self) -> Option<&'r Context> {
        // SAFETY: only start sets this module's context, and it lives in the request's pool. An internal
        // redirect forgets it (ngx_http_internal_redirect); it is then found among the pool's cleanups, as
        // ngx_http_realip_module does it. Subrequests share the pool: each context knows its request.
        unsafe {
            let r = self.raw();
            let context = (*(*r).ctx.add(exports::context_index())).cast::<Context>();
            if let Some(context) = context.as_ref() {
                return Some(context);
            }
            if (*r).internal() == 0 && (*r).filter_finalize() == 0 {
                return None;
            }
            let marker: unsafe extern "C" fn(_) = context_ended;
            let mut cleanup = (*(*r).pool).cleanup;
            while let Some(current) = cleanup.as_ref() {
                if current.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, marker)) {
                    let context = &*current.data.cast::<Context>();
                    if context.request == r {
                        return Some(context);
                    }
                }
                cleanup = current.next;
            }
            None
        }
    }

    /// Gives the request its context, if it has none yet.
    pub fn start(&self) -> Result<(), OutOfMemory> {
        if self.context().is_some() {
            return Ok(());
        }
        // SAFETY: the cleanup's data is memory of the pool, of the size and alignment of a Context, written before use.
        unsafe {
            let r = self.raw();
            let cleanup = sys::ngx_pool_cleanup_add((*r).pool, size_of::<Context>());
            let Some(cleanup) = cleanup.as_mut() else { return Err(OutOfMemory) };
            cleanup.handler = Some(context_ended);
            let context = cleanup.data.cast::<Context>();
            context.write(Context {
                request: r,
                event: Cell::new(&[]),
                serial: Cell::new(0),
                id: Cell::new(&[]),
                error: Cell::new(&[]),
                body: Cell::new(&[]),
                saved: Cell::new(None),
                body_ready: Cell::new(None),
                failed_at: Cell::new(ptr::null()),
                note: Note::default(),
            });
            *(*r).ctx.add(exports::context_index()) = context.cast();
            Ok(())
        }
    }
}

const HTTP_500: sys::ngx_int_t = sys::NGX_HTTP_INTERNAL_SERVER_ERROR as sys::ngx_int_t;

impl FilePart<'_> {
    /// In bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Reads the part into the beginning of `into`; false when it could not be read whole.
    pub fn read(&self, into: &mut [u8]) -> bool {
        let Some(into) = into.get_mut(..self.length) else { return false };
        // SAFETY: the file belongs to the request that the part is of; `into` is as long as told.
        let read = unsafe { sys::ngx_read_file(self.file.as_ptr(), into.as_mut_ptr(), into.len(), self.start) };
        usize::try_from(read) == Ok(self.length)
    }
}

unsafe extern "C" fn body_ready(r: *mut sys::ngx_http_request_t) {
    let Some(r) = NonNull::new(r) else { return };
    // SAFETY: nginx hands back the live request whose body it has read.
    let request = unsafe { Request::new(r) };
    match request.context().and_then(|context| context.body_ready.take()) {
        Some(ready) => ready(request),
        // SAFETY: nobody else will end the request.
        None => unsafe { sys::ngx_http_finalize_request(r.as_ptr(), HTTP_500) },
    }
}

/// The end of a context; marks it among the cleanups of a pool, too.
unsafe extern "C" fn context_ended(context: *mut core::ffi::c_void) {
    // SAFETY: only a context's cleanup has this handler; the pool calls it once, and nobody reads the context after it.
    unsafe { context.cast::<Context>().drop_in_place() }
}
