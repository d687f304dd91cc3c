//! One connection of the scripted Redis: a reader that turns bytes into commands, and a writer that lets each reply out when it is due.

use super::{Action, Held, LOOK, Received, Shared};
use crate::common::resp::{handshake_reply, take_command};
use crate::common::system;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub struct Link {
    number: usize,
    /// Gone once it is closed.
    socket: Mutex<Option<Arc<OwnedFd>>>,
    /// Held over each read, so that pausing can wait for one under way.
    reading: Mutex<()>,
    out: Mutex<Out>,
    changed: Condvar,
    open: AtomicBool,
}

#[derive(Default)]
struct Out {
    in_turn: VecDeque<Step>,
    out_of_turn: Vec<(Instant, Vec<u8>)>,
    next_id: u64,
    /// A close was written: nothing may follow.
    ended: bool,
    /// Nobody is there to write to.
    gone: bool,
}

struct Step {
    id: u64,
    /// `None` while the test holds it.
    due: Option<Instant>,
    bytes: Vec<u8>,
    gap: Option<Duration>,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Fin,
    Reset,
}

/// The place of a held command among the replies of its connection.
#[derive(Clone)]
pub struct Reply {
    link: Arc<Link>,
    id: u64,
}

impl Reply {
    pub fn settle(&self, action: Action, command: &Received, shared: &Shared) {
        self.link.place(self.id, action, Instant::now(), command, shared);
    }
}

/// Runs until the peer has closed or the server ends.
pub fn serve(link: &Arc<Link>, shared: &Shared) {
    let Some(socket) = link.socket.lock().unwrap().clone() else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| write_replies(link, &socket));
        read_commands(link, &socket, shared);
        link.out.lock().unwrap().gone = true;
        link.changed.notify_all();
        // Wakes a writer whose peer does not read.
        system::shutdown(socket.as_fd(), libc::SHUT_RDWR);
    });
    link.socket.lock().unwrap().take();
    drop(socket);
    link.open.store(false, Ordering::SeqCst);
}

fn read_commands(link: &Arc<Link>, socket: &OwnedFd, shared: &Shared) {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    while !shared.stopping.load(Ordering::SeqCst) {
        if shared.paused.load(Ordering::SeqCst) {
            thread::sleep(LOOK / 4);
            continue;
        }
        if !system::wait_readable(socket.as_fd(), LOOK) {
            continue;
        }
        let read = {
            let _reading = link.reading.lock().unwrap();
            if shared.paused.load(Ordering::SeqCst) {
                continue;
            }
            system::recv_now(socket.as_fd(), &mut chunk)
        };
        match read {
            Ok(None) => continue,
            Ok(Some(0)) | Err(_) => return,
            Ok(Some(_)) if link.out.lock().unwrap().ended => continue,
            Ok(Some(n)) => buffer.extend_from_slice(&chunk[..n]),
        }
        loop {
            match take_command(&mut buffer) {
                Ok(Some(args)) => link.take(args, shared),
                Ok(None) => break,
                Err(fault) => {
                    shared.faults.lock().unwrap().push(format!("connection {}: {fault}", link.number));
                    return;
                }
            }
        }
    }
}

fn write_replies(link: &Link, socket: &OwnedFd) {
    let mut out = link.out.lock().unwrap();
    while !out.gone {
        let now = Instant::now();
        if let Some(i) = out.out_of_turn.iter().position(|(due, _)| *due <= now) {
            let (_, bytes) = out.out_of_turn.remove(i);
            drop(out);
            let _ = system::send_all(socket.as_fd(), &bytes);
            out = link.out.lock().unwrap();
            continue;
        }
        if out.in_turn.front().and_then(|step| step.due).is_some_and(|due| due <= now) {
            let step = out.in_turn.pop_front().expect("a step that is due");
            out.ended |= step.end.is_some();
            drop(out);
            write_step(link, socket, &step);
            if step.end.is_some() {
                return;
            }
            out = link.out.lock().unwrap();
            continue;
        }
        let next =
            out.out_of_turn.iter().map(|(due, _)| *due).chain(out.in_turn.front().and_then(|step| step.due)).min();
        let wait = next.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now));
        out = link.changed.wait_timeout(out, wait).unwrap().0;
    }
}

fn write_step(link: &Link, socket: &OwnedFd, step: &Step) {
    // A peer that is gone shows in the reader.
    match step.gap {
        None => drop(system::send_all(socket.as_fd(), &step.bytes)),
        Some(gap) => {
            for byte in step.bytes.chunks(1) {
                if link.out.lock().unwrap().gone || system::send_all(socket.as_fd(), byte).is_err() {
                    return;
                }
                thread::sleep(gap);
            }
        }
    }
    match step.end {
        None => {}
        Some(End::Fin) => system::shutdown(socket.as_fd(), libc::SHUT_WR),
        Some(End::Reset) => link.close(true),
    }
}

impl Link {
    pub fn new(number: usize, socket: OwnedFd) -> Link {
        Link {
            number,
            socket: Mutex::new(Some(Arc::new(socket))),
            reading: Mutex::default(),
            out: Mutex::default(),
            changed: Condvar::new(),
            open: AtomicBool::new(true),
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &*self.socket.lock().unwrap() {
            Some(socket) => system::send_all(socket.as_fd(), bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub fn finish_reading(&self) {
        drop(self.reading.lock().unwrap());
    }

    pub fn close(&self, reset: bool) {
        let Some(socket) = self.socket.lock().unwrap().clone() else {
            return;
        };
        if reset {
            system::reset(socket.as_fd());
        } else {
            system::shutdown(socket.as_fd(), libc::SHUT_RDWR);
        }
    }

    fn take(self: &Arc<Self>, args: Vec<Vec<u8>>, shared: &Shared) {
        let command = Received { connection: self.number, at: Instant::now(), args };
        shared.received.lock().unwrap().push(command.clone());
        let ours = !shared.whole_conversation && handshake_reply(&command.args, self.number).is_some();
        let action = if ours { Action::Default } else { self.ask(&command, shared) };
        let id = {
            let mut out = self.out.lock().unwrap();
            out.next_id += 1;
            let id = out.next_id;
            out.in_turn.push_back(Step { id, due: None, bytes: Vec::new(), gap: None, end: None });
            id
        };
        self.place(id, action, command.at, &command, shared);
    }

    fn ask(&self, command: &Received, shared: &Shared) -> Action {
        let mut handler = shared.handler.lock().unwrap();
        // The handler may assert: its failure becomes the test's, and this thread goes on.
        catch_unwind(AssertUnwindSafe(|| handler(self.number, &command.args))).unwrap_or_else(|_| {
            shared.faults.lock().unwrap().push(format!("the handler panicked at {:?}", command.text()));
            Action::Reset
        })
    }

    /// Gives the step with this id, which waits in turn, what the action says.
    fn place(self: &Arc<Self>, id: u64, action: Action, arrived: Instant, command: &Received, shared: &Shared) {
        let mut out = self.out.lock().unwrap();
        let Some(at) = out.in_turn.iter().position(|step| step.id == id) else {
            return;
        };
        let (mut action, mut due) = (action, arrived);
        while let Action::Delay(delay, inner) = action {
            due += delay;
            action = *inner;
        }
        let (bytes, gap, end) = match action {
            Action::Default => {
                let reply = handshake_reply(&command.args, self.number).unwrap_or_else(|| b"+OK\r\n".to_vec());
                (reply, None, None)
            }
            Action::Reply(bytes) => (bytes, None, None),
            Action::ReplyBytewise(bytes, gap) => (bytes, Some(gap), None),
            Action::Close => (Vec::new(), None, Some(End::Fin)),
            Action::CloseAfter(bytes) => (bytes, None, Some(End::Fin)),
            Action::Reset => (Vec::new(), None, Some(End::Reset)),
            Action::Hold => {
                let held = Held { command: command.clone(), reply: Reply { link: self.clone(), id } };
                shared.held.lock().unwrap().push(held);
                return;
            }
            Action::Nothing | Action::OutOfTurn(..) | Action::Delay(..) => {
                out.in_turn.remove(at);
                if let Action::OutOfTurn(delay, bytes) = action {
                    out.out_of_turn.push((due + delay, bytes));
                }
                self.changed.notify_all();
                return;
            }
        };
        let step = &mut out.in_turn[at];
        (step.due, step.bytes, step.gap, step.end) = (Some(due), bytes, gap, end);
        self.changed.notify_all();
    }
}
