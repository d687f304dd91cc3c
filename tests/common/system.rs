//! The few system calls std has no safe form for, each as one checked function: signals, poll, a receive that never waits, socket options.
//! The only place in the tests with `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

pub fn is_root() -> bool {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

pub fn user_id() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: a plain number in, a plain number out.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // 0 and below address groups of processes, never one of ours.
    assert!(pid > 1, "not the pid of a process under test: {pid}");
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) })
}

/// Descendants whose parent ends become children of this process.
pub fn adopt_orphans() {
    // SAFETY: a plain number; it sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// How a child that std does not know of has ended; `None` while it runs.
pub fn exit_of(pid: i32) -> Option<ExitStatus> {
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    let ended = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
    (ended == pid).then(|| ExitStatus::from_raw(status))
}

/// The kernel sends `signal` to the child when the thread that spawned it ends.
pub fn die_with_parent(command: &mut Command, signal: i32) {
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(move || check(libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0)));
    }
}

/// Whether there is something to read (or to accept, or an end) before `timeout`.
pub fn wait_readable(fd: BorrowedFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, and the descriptor is borrowed for the call.
    unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as i32) > 0 }
}

/// `Ok(None)` when there is nothing to read now.
pub fn recv_now(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: pointer and length are those of one live slice.
    let n = unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    if n >= 0 {
        return Ok(Some(n as usize));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

pub fn send_all(fd: BorrowedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length are those of one live slice.
        let n = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        if n >= 0 {
            bytes = &bytes[n as usize..];
            continue;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

/// Ends a direction of the socket itself, whatever copies of the descriptor exist.
pub fn shutdown(fd: BorrowedFd, how: i32) {
    // SAFETY: plain numbers; that the peer is gone already is no fault.
    unsafe { libc::shutdown(fd.as_raw_fd(), how) };
}

/// Sends RST at once, whatever copies of the descriptor exist. A unix socket, which has no RST, is shut down.
pub fn reset(fd: BorrowedFd) {
    // A close before the RST is out must send one too.
    let _ = set_option(&fd, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 });
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let size = size_of::<libc::sockaddr>() as libc::socklen_t;
    // connect(2): AF_UNSPEC dissolves the association, for TCP with a reset.
    // SAFETY: pointer and size are those of one live sockaddr.
    if unsafe { libc::connect(fd.as_raw_fd(), &nowhere, size) } != 0 {
        shutdown(fd, libc::SHUT_RDWR);
    }
}

pub fn set_receive_buffer(fd: &impl AsFd, bytes: i32) -> io::Result<()> {
    set_option(fd, libc::SO_RCVBUF, &bytes)
}

/// How many connections may wait to be accepted, beside one.
pub fn set_backlog(fd: BorrowedFd, count: i32) {
    // SAFETY: plain numbers; the descriptor is borrowed for the call.
    check(unsafe { libc::listen(fd.as_raw_fd(), count) }).expect("a listening socket");
}

fn set_option<T>(fd: &impl AsFd, name: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a live T and the size is T's.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, std::ptr::from_ref(value).cast(), size) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A signal that a thread blocks never interrupts what it waits for.
pub fn block_sigchld() {
    // SAFETY: the set is initialised before it is used, and belongs to this call.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}
