//! A stream connection to a peer: connects, sends, receives, closes itself; tells its handler what became possible.

use std::io;
use std::ptr::{self, NonNull};
use std::rc::Weak;

use super::sys;

/// What a connection's owner does on its events.
pub trait Handler {
    /// Bytes, an end or an error may be waiting; or nginx asks an idle connection to close ([`Peer::must_close`]).
    fn readable(&self);
    /// The connection is made (or failed), or takes bytes again.
    fn writable(&self);
}

/// A resolved address, and its text for the log.
#[derive(Clone)]
pub struct Address {
    pub(super) sockaddr: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
    pub(super) text: String,
}

impl Address {
    /// As `host:port` or `unix:path`.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What a receive brought.
pub enum Recv {
    Bytes(usize),
    /// Nothing now; the handler is called when there is.
    Again,
    Closed,
    Failed(io::Error),
}

/// What a send took.
pub enum Send {
    Bytes(usize),
    /// Nothing now; the handler is called when it would.
    Again,
    Failed(io::Error),
}

/// How fast a dead peer is noticed on an idle connection: seconds of silence, seconds between probes, probes.
const KEEPALIVE: [(libc::c_int, libc::c_int); 3] =
    [(libc::TCP_KEEPIDLE, 15), (libc::TCP_KEEPINTVL, 5), (libc::TCP_KEEPCNT, 3)];

/// An open connection, or one that is being made.
pub struct Peer {
    connection: NonNull<sys::ngx_connection_t>,
    // On the heap and by a raw pointer, because nginx points to it too.
    context: NonNull<Context>,
}

struct Context {
    handler: Weak<dyn Handler>,
    log: sys::ngx_log_t,
}

impl Peer {
    /// Starts to connect; the handler's `writable` tells when to ask [`Peer::established`].
    ///
    /// `unacknowledged` bounds, in milliseconds, how long sent bytes may go unacknowledged by the peer's kernel
    /// (TCP_USER_TIMEOUT).
    pub fn connect(address: &Address, unacknowledged: u32, handler: Weak<dyn Handler>) -> io::Result<Peer> {
        // SAFETY: the cycle's log is valid and a plain struct to copy. nginx would log each failed attempt at "crit" or
        // "error"; the owner logs a change of state once, so the copy lets only alerts through.
        let mut log = unsafe { ptr::read((*sys::ngx_cycle).log) };
        log.log_level = log.log_level.min(sys::NGX_LOG_ALERT as sys::ngx_uint_t);
        let context = NonNull::from(Box::leak(Box::new(Context { handler, log })));
        let mut name = sys::ngx_str_t::view(address.text.as_bytes());

        // SAFETY: all zeros is how nginx itself starts an ngx_peer_connection_t. It reads the name and the address in
        // this call only; the log and the handlers' data are in the context, which lives until the connection is closed.
        unsafe {
            let mut pc: sys::ngx_peer_connection_t = std::mem::zeroed();
            pc.sockaddr = (&raw const address.sockaddr).cast_mut().cast();
            pc.socklen = address.length;
            pc.name = &raw mut name;
            pc.get = Some(sys::ngx_event_get_peer);
            pc.log = &raw mut (*context.as_ptr()).log;
            pc.set_log_error(sys::ngx_connection_log_error_e_NGX_ERROR_ERR);
            let tcp = libc::c_int::from(address.sockaddr.ss_family) != libc::AF_UNIX;
            pc.set_so_keepalive(tcp.into());

            let status = sys::ngx_event_connect_peer(&raw mut pc);
            let connection = NonNull::new(pc.connection).filter(|_| status == sys::OK || status == sys::AGAIN);
            let Some(connection) = connection else {
                // nginx has closed it; with no connection left in the worker errno says nothing of use.
                let error = Err(match status {
                    sys::ERROR => io::Error::other("no connection to be had in this worker"),
                    _ => io::Error::last_os_error(),
                });
                drop(Box::from_raw(context.as_ptr()));
                return error;
            };
            let c = connection.as_ptr();
            (*c).data = context.as_ptr().cast();
            // What nginx logs of this connection carries its number, as `*NUMBER`.
            (*context.as_ptr()).log.connection = (*c).number;
            (*(*c).read).handler = Some(on_read);
            (*(*c).write).handler = Some(on_write);
            if tcp {
                sys::ngx_tcp_nodelay(c);
                for (option, value) in KEEPALIVE {
                    set_tcp_option((*c).fd, option, value);
                }
                set_tcp_option((*c).fd, libc::TCP_USER_TIMEOUT, unacknowledged as libc::c_int);
            }
            Ok(Peer { connection, context })
        }
    }

    /// Whether the connection is made: `Ok(false)` while it is under way, the socket's error when it failed.
    pub fn established(&self) -> io::Result<bool> {
        // SAFETY: the connection is open; `error` is as large as told.
        unsafe {
            let c = self.connection.as_ptr();
            let mut error: libc::c_int = 0;
            let mut length = size_of::<libc::c_int>() as libc::socklen_t;
            let got =
                libc::getsockopt((*c).fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &raw mut length);
            match (got, error) {
                (-1, _) => Err(io::Error::last_os_error()),
                (_, 0) => Ok((*(*c).write).ready() != 0),
                (_, error) => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Receives into `room`, which must not be empty.
    pub fn recv(&mut self, room: &mut [u8]) -> Recv {
        // SAFETY: the connection is open, its recv is set by nginx, and `room` is writable for its length.
        unsafe {
            let c = self.connection.as_ptr();
            if (*(*c).read).ready() == 0 {
                return self.armed((*c).read, Recv::Again, Recv::Failed);
            }
            let Some(recv) = (*c).recv else { return Recv::Closed };
            match recv(c, room.as_mut_ptr(), room.len()) {
                0 => Recv::Closed,
                n @ 1.. => Recv::Bytes((n as usize).min(room.len())),
                n if n == sys::AGAIN => self.armed((*c).read, Recv::Again, Recv::Failed),
                _ => Recv::Failed(io::Error::last_os_error()),
            }
        }
    }

    /// Sends the beginning of `bytes`, which must not be empty.
    pub fn send(&mut self, bytes: &[u8]) -> Send {
        // SAFETY: the connection is open, its send is set by nginx and only reads `bytes`.
        unsafe {
            let c = self.connection.as_ptr();
            let Some(send) = (*c).send else { return Send::Again };
            match send(c, bytes.as_ptr().cast_mut(), bytes.len()) {
                n @ 1.. => Send::Bytes((n as usize).min(bytes.len())),
                n if n == sys::AGAIN || n == 0 => self.armed((*c).write, Send::Again, Send::Failed),
                _ => Send::Failed(io::Error::last_os_error()),
            }
        }
    }

    /// Makes sure that the event method will report `event`; `ngx_handle_*_event` do nothing under epoll's edge
    /// triggering but are what makes the other methods work.
    unsafe fn armed<T>(&self, event: *mut sys::ngx_event_t, again: T, failed: fn(io::Error) -> T) -> T {
        // SAFETY: the event is one of the open connection's two.
        let status = unsafe {
            match (*event).write() {
                0 => sys::ngx_handle_read_event(event, 0),
                _ => sys::ngx_handle_write_event(event, 0),
            }
        };
        if status == sys::OK { again } else { failed(io::Error::last_os_error()) }
    }

    /// An idle connection does not hold up a worker that is on its way out: nginx then asks it to close.
    pub fn set_idle(&self, idle: bool) {
        // SAFETY: the connection is open.
        unsafe { (*self.connection.as_ptr()).set_idle(idle.into()) }
    }

    /// Whether nginx asks to close: an idle connection at a graceful quit, any at `worker_shutdown_timeout`.
    pub fn must_close(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { (*self.connection.as_ptr()).close() != 0 }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // SAFETY: open until now; ngx_close_connection takes back its events and timers, and its pool was never made.
        // After it nginx does not know the context, which was leaked from a box.
        unsafe {
            sys::ngx_close_connection(self.connection.as_ptr());
            drop(Box::from_raw(self.context.as_ptr()));
        }
    }
}

fn set_tcp_option(socket: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: setsockopt reads `length` bytes of `value`. A kernel that does not know an option leaves its default.
    unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, option, (&raw const value).cast(), length) };
}

unsafe extern "C" fn on_read(event: *mut sys::ngx_event_t) {
    // SAFETY: only a Peer's events have this handler.
    if let Some(handler) = unsafe { owner(event) } {
        handler.readable();
    }
}

unsafe extern "C" fn on_write(event: *mut sys::ngx_event_t) {
    // SAFETY: as above.
    if let Some(handler) = unsafe { owner(event) } {
        handler.writable();
    }
}

/// The owner of the connection that `event` belongs to.
///
/// # Safety
/// The connection must be a Peer's.
unsafe fn owner(event: *mut sys::ngx_event_t) -> Option<std::rc::Rc<dyn Handler>> {
    // SAFETY: `data` of the event is the connection, whose `data` is the context that lives as long as the Peer.
    unsafe {
        let connection = (*event).data.cast::<sys::ngx_connection_t>();
        (*(*connection).data.cast::<Context>()).handler.upgrade()
    }
}
