//! The clients of a ledger: each on a thread of its own, one event a request mostly, a batch at times, now and then one that leaves.

use super::audit::{Counts, audit};
use super::losses::Ends;
use super::{Answer, Entry, Promise, event};
use crate::common::http::Http;
use crate::common::message::Request;
use crate::common::random::Random;
use crate::common::{eventually, wait_for};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Longer than any answer takes: what takes longer hangs.
const HANGS: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(30);
/// How long a client waits that is told to come again.
const PATIENCE: Duration = Duration::from_millis(10);

/// What the clients send, and where.
#[derive(Clone)]
pub struct Traffic {
    pub clients: usize,
    /// Takes one event a request.
    pub path: &'static str,
    /// Takes many, if anything does.
    pub batches: Option<&'static str>,
    /// Whether some clients go away before they have their answer.
    pub leave: bool,
    /// Whether some events are such as no location takes.
    pub invalid: bool,
    pub seed: u64,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic { clients: 8, path: "/events", batches: Some("/batches"), leave: false, invalid: true, seed: 1 }
    }
}

/// Clients at work; dropping it stops them.
pub struct Ledger {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Entry>>>,
}

struct Shared {
    port: u16,
    traffic: Traffic,
    stop: AtomicBool,
    ids: AtomicU64,
    connections: AtomicU64,
    answered: AtomicU64,
    promised: AtomicU64,
}

impl Ledger {
    /// The numbers of its events begin at `first`.
    pub fn open(port: u16, traffic: Traffic, first: u64) -> Ledger {
        let clients = traffic.clients as u64;
        let shared = Arc::new(Shared {
            port,
            traffic,
            stop: AtomicBool::new(false),
            ids: AtomicU64::new(first),
            connections: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            promised: AtomicU64::new(0),
        });
        let client = |number| {
            let shared = shared.clone();
            let random = Random(shared.traffic.seed * 1000 + number);
            thread::spawn(move || Client { shared: &shared, random, entries: Vec::new() }.run())
        };
        Ledger { threads: (0..clients).map(client).collect(), shared }
    }

    /// Waits until this many more events have an answer, whatever it is.
    #[track_caller]
    pub fn wait_answered(&self, count: u64) {
        let goal = self.shared.answered.load(Ordering::SeqCst) + count;
        eventually(SOON, || self.shared.answered.load(Ordering::SeqCst) >= goal);
    }

    /// Waits until this many more events have a 2xx.
    #[track_caller]
    pub fn wait_promised(&self, count: u64) {
        let goal = self.shared.promised.load(Ordering::SeqCst) + count;
        eventually(SOON, || self.shared.promised.load(Ordering::SeqCst) >= goal);
    }

    /// Each client finishes the request it is at.
    #[track_caller]
    pub fn close(mut self) -> Book {
        self.shared.stop.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads);
        let entries = threads.into_iter().flat_map(|thread| thread.join().expect("a client of the ledger")).collect();
        Book { entries, next: self.shared.ids.load(Ordering::SeqCst) }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What the clients have written down.
pub struct Book {
    entries: Vec<Entry>,
    /// The number after the last one.
    pub next: u64,
}

impl Book {
    /// Fails the test unless `stored`, in its order, is what `promise` says of workers that ended so.
    #[track_caller]
    pub fn audit(&self, stored: &[Vec<u8>], promise: &Promise, ends: &Ends) -> Counts {
        self.try_audit(stored, promise, ends).unwrap_or_else(|faults| panic!("a promise is broken:\n{faults}"))
    }

    pub fn try_audit(&self, stored: &[Vec<u8>], promise: &Promise, ends: &Ends) -> Result<Counts, String> {
        audit(&self.entries, stored, promise, ends)
    }
}

struct Client<'a> {
    shared: &'a Shared,
    random: Random,
    entries: Vec<Entry>,
}

impl Client<'_> {
    fn run(mut self) -> Vec<Entry> {
        while let Some(http) = self.connect() {
            let connection = self.shared.connections.fetch_add(1, Ordering::SeqCst);
            self.talk(http, connection);
        }
        self.entries
    }

    /// Tries again while nginx is away; `None` once the ledger is closed. A connection comes before a number, so a refused one costs none.
    fn connect(&self) -> Option<Http> {
        let stop = || self.shared.stop.load(Ordering::SeqCst);
        let connected = wait_for(SOON, || match stop() {
            true => Some(None),
            false => Http::try_connect(self.shared.port).ok().map(Some),
        });
        connected.expect("an nginx that takes connections within 30 s")
    }

    /// Until the connection ends, by whomever.
    fn talk(&mut self, mut http: Http, connection: u64) {
        http.set_timeout(HANGS);
        while !self.shared.stop.load(Ordering::SeqCst) {
            let (request, ids) = self.request();
            if self.shared.traffic.leave && self.random.below(100) == 0 {
                let bytes = request.to_bytes();
                let sent = self.random.below(bytes.len() + 1);
                let _ = http.try_send_raw(&bytes[..sent]);
                self.note(ids, connection, Answer::Left, None);
                return http.abort();
            }
            let response = http.try_call(&request);
            let worker = response.as_ref().ok().and_then(|response| response.header("Worker")?.parse().ok());
            let goes_on = response.as_ref().is_ok_and(|response| !response.closes());
            let answer = match response {
                Ok(response) => Answer::Status(response.status),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    Answer::Hung
                }
                Err(_) => Answer::Cut,
            };
            self.note(ids, connection, answer, worker);
            if !goes_on {
                return;
            }
            // What costs nginx little would else fill the ledger.
            match answer {
                Answer::Status(503) => thread::sleep(PATIENCE),
                Answer::Status(202) => thread::sleep(PATIENCE / 10),
                _ => {}
            }
        }
    }

    fn request(&mut self) -> (Request, std::ops::Range<u64>) {
        let traffic = &self.shared.traffic;
        let batch = traffic.batches.filter(|_| self.random.below(10) == 0);
        let count = if batch.is_some() { 1 + self.random.below(20) as u64 } else { 1 };
        let first = self.shared.ids.fetch_add(count, Ordering::SeqCst);
        let ids = first..first + count;
        if let Some(path) = batch {
            let events: Vec<Vec<u8>> = ids.clone().map(event).collect();
            return (Request::post(path, [&b"["[..], &events.join(&b','), b"]"].concat()), ids);
        }
        let mut body = event(first);
        if traffic.invalid && self.random.below(50) == 0 {
            // The name is there already: a 422.
            body.pop();
            body.extend(br#","id":0}"#);
        }
        (Request::post(traffic.path, body), ids)
    }

    fn note(&mut self, ids: std::ops::Range<u64>, connection: u64, answer: Answer, worker: Option<i32>) {
        let count = ids.end - ids.start;
        let at = SystemTime::now();
        self.entries.extend(ids.map(|id| Entry { id, connection, answer, worker, at }));
        self.shared.answered.fetch_add(count, Ordering::SeqCst);
        if answer.is_promise() {
            self.shared.promised.fetch_add(count, Ordering::SeqCst);
        }
    }
}
