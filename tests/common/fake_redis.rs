//! A scripted Redis for what a real one will not do on demand: late, split, held, wrong or missing replies, and closes at a chosen moment.
//! It takes whole commands from each connection, records them, and asks the test's handler what to do.

mod connection;

use self::connection::{Link, Reply, serve};
use super::port::Port;
use super::system;
use super::{eventually, within};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What to do about one command. Replies leave in the order of their commands, a late one holding up those behind it, unless said otherwise.
#[derive(Clone, Debug)]
pub enum Action {
    /// The handshake's proper answer, `+OK` to anything else.
    Default,
    Reply(Vec<u8>),
    /// One byte at a time with this pause between them.
    ReplyBytewise(Vec<u8>, Duration),
    /// The same, this long after the command arrived.
    Delay(Duration, Box<Action>),
    /// Waits for [`FakeRedis::release`].
    Hold,
    /// These bytes this long after the command arrived, whatever else is waiting.
    OutOfTurn(Duration, Vec<u8>),
    /// No reply ever; the commands behind it are answered.
    Nothing,
    /// FIN once the replies before it are written; what arrives later is read and dropped.
    Close,
    CloseAfter(Vec<u8>),
    /// RST once the replies before it are written.
    Reset,
}

impl Action {
    pub fn reply(text: &str) -> Action {
        Action::Reply(text.as_bytes().to_vec())
    }

    pub fn after(delay: Duration, action: Action) -> Action {
        Action::Delay(delay, Box::new(action))
    }
}

/// A command as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The number of its connection, from 0 in the order they were accepted.
    pub connection: usize,
    pub at: Instant,
    pub args: Vec<Vec<u8>>,
}

impl Received {
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.args[0]).to_ascii_uppercase()
    }

    /// The words with blanks between them.
    pub fn text(&self) -> String {
        self.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect::<Vec<_>>().join(" ")
    }
}

/// A command whose answer waits for the test.
#[derive(Clone)]
pub struct Held {
    pub command: Received,
    reply: Reply,
}

type Handler = Box<dyn FnMut(usize, &[Vec<u8>]) -> Action + Send>;

#[derive(Default)]
pub struct FakeRedisBuilder {
    unix: Option<PathBuf>,
    whole_conversation: bool,
    receive_buffer: Option<i32>,
}

impl FakeRedisBuilder {
    /// On a unix socket instead of a port.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix = Some(path.into());
        self
    }

    /// The handler is asked about AUTH, SELECT, PING, CLIENT and HELLO too.
    pub fn with_handshake(mut self) -> Self {
        self.whole_conversation = true;
        self
    }

    /// SO_RCVBUF, so that a peer soon notices that nobody reads.
    pub fn receive_buffer(mut self, bytes: i32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    #[track_caller]
    pub fn start(self, handler: impl FnMut(usize, &[Vec<u8>]) -> Action + Send + 'static) -> FakeRedis {
        let fake = FakeRedis {
            shared: Arc::new(Shared {
                whole_conversation: self.whole_conversation,
                handler: Mutex::new(Box::new(handler)),
                ..Shared::default()
            }),
            port: Port::lease(),
            unix: self.unix,
            receive_buffer: self.receive_buffer,
            listening: Mutex::new(None),
        };
        fake.listen();
        fake
    }
}

pub struct FakeRedis {
    shared: Arc<Shared>,
    port: Port,
    unix: Option<PathBuf>,
    receive_buffer: Option<i32>,
    listening: Mutex<Option<Acceptor>>,
}

struct Acceptor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shared {
    whole_conversation: bool,
    handler: Mutex<Handler>,
    received: Mutex<Vec<Received>>,
    held: Mutex<Vec<Held>>,
    links: Mutex<Vec<Arc<Link>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    accepted: AtomicUsize,
    paused: AtomicBool,
    stopping: AtomicBool,
    /// What fails the test at the end: malformed commands, a handler that panicked.
    faults: Mutex<Vec<String>>,
}

impl Default for Shared {
    fn default() -> Self {
        Shared {
            whole_conversation: false,
            handler: Mutex::new(Box::new(|_, _| Action::Default)),
            received: Mutex::default(),
            held: Mutex::default(),
            links: Mutex::default(),
            threads: Mutex::default(),
            accepted: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            faults: Mutex::default(),
        }
    }
}

/// Longer than a worker that is away from Redis waits between two attempts to connect.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How soon a thread sees that it shall stop.
const LOOK: Duration = Duration::from_millis(20);

impl FakeRedis {
    /// The handler is asked about every command but those of the handshake, which are answered properly.
    #[track_caller]
    pub fn start(handler: impl FnMut(usize, &[Vec<u8>]) -> Action + Send + 'static) -> FakeRedis {
        FakeRedisBuilder::default().start(handler)
    }

    pub fn builder() -> FakeRedisBuilder {
        FakeRedisBuilder::default()
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn url(&self) -> String {
        match &self.unix {
            Some(path) => format!("unix:{}", path.display()),
            None => format!("redis://127.0.0.1:{}", self.port()),
        }
    }

    /// Replaces the handler for the commands to come.
    pub fn set_handler(&self, handler: impl FnMut(usize, &[Vec<u8>]) -> Action + Send + 'static) {
        *self.shared.handler.lock().unwrap() = Box::new(handler);
    }

    /// The commands so far, without the handshake's.
    pub fn commands(&self) -> Vec<Received> {
        let is_event = |command: &Received| super::resp::handshake_reply(&command.args, 0).is_none();
        self.all_commands().into_iter().filter(is_event).collect()
    }

    pub fn all_commands(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits for this many commands beside the handshake's, and returns all there are.
    #[track_caller]
    pub fn wait_commands(&self, count: usize) -> Vec<Received> {
        let arrived = within(TIMEOUT, || self.commands().len() >= count);
        let commands = self.commands();
        assert!(arrived, "{} commands of {count} after {TIMEOUT:?}: {commands:?}", commands.len());
        commands
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many of them the peer has not closed.
    pub fn open_connections(&self) -> usize {
        self.shared.links.lock().unwrap().iter().filter(|link| link.is_open()).count()
    }

    #[track_caller]
    pub fn wait_connections(&self, count: usize) {
        eventually(TIMEOUT, || self.connections() >= count);
    }

    /// The commands held now, in the order they arrived.
    pub fn held(&self) -> Vec<Held> {
        self.shared.held.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn wait_held(&self, count: usize) -> Vec<Held> {
        eventually(TIMEOUT, || self.held().len() >= count);
        self.held()
    }

    /// Answers one of the held commands, counted from the oldest.
    #[track_caller]
    pub fn release(&self, index: usize, action: Action) {
        let held = {
            let mut held = self.shared.held.lock().unwrap();
            assert!(index < held.len(), "only {} commands are held", held.len());
            held.remove(index)
        };
        held.reply.settle(action, &held.command, &self.shared);
    }

    pub fn release_all(&self, action: Action) {
        let held = std::mem::take(&mut *self.shared.held.lock().unwrap());
        for held in held {
            held.reply.settle(action.clone(), &held.command, &self.shared);
        }
    }

    /// Sends bytes nobody asked for.
    #[track_caller]
    pub fn send(&self, connection: usize, bytes: &[u8]) {
        let link = self.shared.links.lock().unwrap()[connection].clone();
        link.send(bytes).expect("bytes to the peer");
    }

    /// On return nothing more is read from any connection, so the peer's send buffer fills.
    pub fn pause_reading(&self) {
        self.shared.paused.store(true, Ordering::SeqCst);
        for link in self.shared.links.lock().unwrap().iter() {
            link.finish_reading();
        }
    }

    pub fn resume_reading(&self) {
        self.shared.paused.store(false, Ordering::SeqCst);
    }

    /// New connections are refused; those there are stay.
    pub fn stop_listening(&self) {
        let Some(acceptor) = self.listening.lock().unwrap().take() else {
            return;
        };
        acceptor.stop.store(true, Ordering::SeqCst);
        acceptor.thread.join().expect("the accepting thread");
        if let Some(path) = &self.unix {
            let _ = std::fs::remove_file(path);
        }
    }

    #[track_caller]
    pub fn resume_listening(&self) {
        self.stop_listening();
        self.listen();
    }

    /// Closes every connection there is, with FIN or with RST.
    pub fn close_all(&self, reset: bool) {
        for link in self.shared.links.lock().unwrap().iter() {
            link.close(reset);
        }
    }

    #[track_caller]
    fn listen(&self) {
        let listener: OwnedFd = match &self.unix {
            Some(path) => UnixListener::bind(path).expect("a listening socket").into(),
            None => TcpListener::bind(("127.0.0.1", self.port())).expect("a listening port").into(),
        };
        if let Some(bytes) = self.receive_buffer {
            system::set_receive_buffer(&listener, bytes).expect("SO_RCVBUF");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, unix) = (self.shared.clone(), self.unix.is_some());
        let thread = thread::spawn({
            let stop = stop.clone();
            move || accept_until(&stop, listener, unix, &shared)
        });
        *self.listening.lock().unwrap() = Some(Acceptor { stop, thread });
    }
}

fn accept_until(stop: &AtomicBool, listener: OwnedFd, unix: bool, shared: &Arc<Shared>) {
    let accept: Box<dyn Fn() -> io::Result<OwnedFd>> = if unix {
        let listener = UnixListener::from(listener.try_clone().expect("a listening socket"));
        Box::new(move || Ok(listener.accept()?.0.into()))
    } else {
        let listener = TcpListener::from(listener.try_clone().expect("a listening socket"));
        Box::new(move || {
            let stream = listener.accept()?.0;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        })
    };
    while !stop.load(Ordering::SeqCst) {
        if !system::wait_readable(listener.as_fd(), LOOK) {
            continue;
        }
        let Ok(socket) = accept() else { continue };
        let number = shared.accepted.load(Ordering::SeqCst);
        let link = Arc::new(Link::new(number, socket));
        shared.links.lock().unwrap().push(link.clone());
        shared.accepted.store(number + 1, Ordering::SeqCst);
        let thread = thread::spawn({
            let shared = shared.clone();
            move || serve(&link, &shared)
        });
        shared.threads.lock().unwrap().push(thread);
    }
    // A process being started elsewhere may hold a copy of the descriptor for a moment, which would keep the port open.
    system::shutdown(listener.as_fd(), libc::SHUT_RDWR);
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        self.stop_listening();
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.close_all(false);
        let threads = std::mem::take(&mut *self.shared.threads.lock().unwrap());
        let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        let mut faults = std::mem::take(&mut *self.shared.faults.lock().unwrap());
        if panicked > 0 {
            faults.push(format!("{panicked} threads of it panicked"));
        }
        if thread::panicking() {
            faults.iter().for_each(|fault| eprintln!("the scripted Redis: {fault}"));
        } else {
            assert!(faults.is_empty(), "the scripted Redis: {}", faults.join("; "));
        }
    }
}
