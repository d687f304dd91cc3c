//! A TCP proxy between nginx and Redis that can do to a connection what networks do: lose what is sent without a word, be slow, break
//! off, and lead elsewhere.

use super::port::Port;
use super::random::Random;
use super::system;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How soon a thread sees that something has changed.
const LOOK: Duration = Duration::from_millis(20);

pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    target: AtomicU16,
    /// Connections to come are lost ones.
    unreachable: AtomicBool,
    /// Whatever passes, passes in small pieces.
    dribbles: AtomicBool,
    stopping: AtomicBool,
    links: Mutex<Vec<Arc<Link>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// One connection, as two sockets.
struct Link {
    client: TcpStream,
    /// `None` when it was unreachable from the start.
    server: Option<TcpStream>,
    loses: AtomicU8,
}

/// Directions of which nothing arrives any more, bit by bit.
#[derive(Clone, Copy)]
pub enum Loses {
    Requests = 1,
    Replies = 2,
    Both = 3,
}

impl Proxy {
    #[track_caller]
    pub fn start(target: u16) -> Proxy {
        let port = Port::lease();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).expect("a listening port");
        let shared = Arc::new(Shared { target: AtomicU16::new(target), ..Shared::default() });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Proxy { port, shared, acceptor: Some(acceptor) }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }

    /// Where connections to come lead to.
    pub fn lead_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// The connections there are lose what is sent from now on, and are never closed by this side: half-open ones.
    pub fn lose(&self, what: Loses) {
        for link in self.shared.links.lock().unwrap().iter() {
            link.loses.store(what as u8, Ordering::SeqCst);
        }
    }

    /// Connections to come are taken, and nothing more happens on them.
    pub fn set_unreachable(&self, unreachable: bool) {
        self.shared.unreachable.store(unreachable, Ordering::SeqCst);
    }

    pub fn set_dribbling(&self, dribbles: bool) {
        self.shared.dribbles.store(dribbles, Ordering::SeqCst);
    }

    /// Breaks all connections off, by RST to nginx.
    pub fn cut(&self) {
        for link in self.shared.links.lock().unwrap().iter() {
            system::reset(link.client.as_fd());
            link.end();
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.links.lock().unwrap().len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut *self.shared.threads.lock().unwrap());
        self.acceptor.take().into_iter().chain(threads).for_each(|thread| drop(thread.join()));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::SeqCst) {
        if !system::wait_readable(listener.as_fd(), LOOK) {
            continue;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        let _ = client.set_nodelay(true);
        let server = match shared.unreachable.load(Ordering::SeqCst) {
            true => None,
            // Nobody there: the client sees its connection end.
            false => match TcpStream::connect(("127.0.0.1", shared.target.load(Ordering::SeqCst))) {
                Ok(server) => Some(server),
                Err(_) => continue,
            },
        };
        let _ = server.as_ref().map(|server| server.set_nodelay(true));
        let link = Arc::new(Link { client, server, loses: AtomicU8::new(0) });
        shared.links.lock().unwrap().push(link.clone());
        let mut threads = shared.threads.lock().unwrap();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread::spawn({
            let shared = shared.clone();
            move || serve(&link, &shared)
        }));
    }
}

fn serve(link: &Arc<Link>, shared: &Shared) {
    match &link.server {
        None => pass(link, &link.client, None, 0, shared),
        Some(server) => thread::scope(|scope| {
            scope.spawn(|| pass(link, &link.client, Some(server), Loses::Requests as u8, shared));
            pass(link, server, Some(&link.client), Loses::Replies as u8, shared);
        }),
    }
    shared.links.lock().unwrap().retain(|other| !Arc::ptr_eq(other, link));
}

/// Carries bytes one way until an end is closed.
fn pass(link: &Link, from: &TcpStream, to: Option<&TcpStream>, way: u8, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    let mut random = Random(u64::from(way));
    while !shared.stopping.load(Ordering::SeqCst) {
        if !system::wait_readable(from.as_fd(), LOOK) {
            continue;
        }
        let dribbles = shared.dribbles.load(Ordering::SeqCst);
        let most = if dribbles { 1 + random.below(100) } else { buffer.len() };
        let count = match system::recv_now(from.as_fd(), &mut buffer[..most]) {
            Ok(None) => continue,
            Ok(Some(count)) => count,
            Err(_) => 0,
        };
        let lost = link.loses.load(Ordering::SeqCst) & way != 0;
        if count == 0 {
            // Where replies are lost, Redis's end is lost too: the client never learns of it.
            if !lost || way == Loses::Requests as u8 {
                link.end();
            }
            return;
        }
        if let Some(to) = to.filter(|_| !lost)
            && system::send_all(to.as_fd(), &buffer[..count]).is_err()
        {
            return link.end();
        }
        if dribbles {
            thread::sleep(Duration::from_millis(1));
        }
    }
    link.end();
}

impl Link {
    fn end(&self) {
        for socket in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            system::shutdown(socket.as_fd(), libc::SHUT_RDWR);
        }
    }
}
