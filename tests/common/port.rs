//! A TCP port that belongs to one value: no other test, in this process or another, gets it until the value is dropped.
//! So a server can be stopped and started again on it, and a port nobody listens on stays refused.

use super::system;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

/// The lease is a lock on a file named after the port; the kernel gives it back even when the process is killed.
pub struct Port {
    number: u16,
    _lease: File,
}

/// Below the range from which the kernel takes ports for outgoing connections, or any client could sit on one of them.
const FIRST: u32 = 10_000;
const LAST: u32 = 32_000;

impl Port {
    pub fn lease() -> Port {
        super::system::block_sigchld();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir().join(format!("meteorit-test-ports-{}", system::user_id()));
        std::fs::create_dir_all(&dir).expect("a directory for the port leases");

        let count = last_free_of_outgoing() - FIRST;
        // Processes that run at the same time begin at different places.
        let offset = std::process::id().wrapping_mul(611);
        for _ in 0..count {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = (FIRST + offset.wrapping_add(step) % count) as u16;
            let lease = File::create(dir.join(number.to_string())).expect("a port lease");
            if lease.try_lock().is_ok() && nobody_listens(number) {
                return Port { number, _lease: lease };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + count);
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

fn nobody_listens(number: u16) -> bool {
    let Ok(listener) = TcpListener::bind(("127.0.0.1", number)) else { return false };
    // A process being started elsewhere may hold a copy of the descriptor for a moment, which would keep the port taken.
    system::shutdown(listener.as_fd(), libc::SHUT_RDWR);
    true
}

fn last_free_of_outgoing() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(LAST);
    if outgoing > FIRST + 1000 { outgoing.min(LAST) } else { LAST }
}
