//! Load from several keep-alive connections, in which every event has an id of its own and what became of it is known:
//! the status of its answer, or the error that cut its connection.

use super::http::Http;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// When a connection stops sending. Each bounds the load; [`Load::stop`] ends it earlier.
#[derive(Clone, Copy)]
pub enum Until {
    PerConnection(u64),
    Elapsed(Duration),
}

/// One event that was sent, wholly or in part.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: u64,
    pub result: Result<u16, String>,
    pub took: Duration,
}

impl Sent {
    pub fn has_status(&self, status: u16) -> bool {
        self.result == Ok(status)
    }
}

/// Load in the background; dropping it stops it.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Sent>>>,
}

/// Runs the load to its end. `request` makes the whole request for an id.
#[track_caller]
pub fn load(
    port: u16,
    connections: usize,
    until: Until,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Vec<Sent> {
    Load::start(port, connections, until, request).finish()
}

impl Load {
    pub fn start(
        port: u16,
        connections: usize,
        until: Until,
        request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    ) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ids, request) = (Arc::new(AtomicU64::new(0)), Arc::new(request));
        let threads = (0..connections).map(|_| {
            let (stop, answered, ids, request) = (stop.clone(), answered.clone(), ids.clone(), request.clone());
            thread::spawn(move || send_until(port, until, &stop, &answered, &ids, &*request))
        });
        Load { threads: threads.collect(), stop, answered }
    }

    /// How many events have their answer by now.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until this many more have theirs: that the load is flowing, before or after what the test does to the server.
    #[track_caller]
    pub fn wait_more(&self, count: u64) {
        let goal = self.answered() + count;
        super::eventually(Duration::from_secs(20), || self.answered() >= goal);
    }

    /// Each connection finishes the event it is at. Returns every event sent, in the order of their ids.
    #[track_caller]
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits for the bound that was given.
    #[track_caller]
    pub fn finish(mut self) -> Vec<Sent> {
        let threads = std::mem::take(&mut self.threads);
        let mut sent: Vec<Sent> =
            threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the load")).collect();
        sent.sort_by_key(|sent| sent.id);
        sent
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send_until(
    port: u16,
    until: Until,
    stop: &AtomicBool,
    answered: &AtomicU64,
    ids: &AtomicU64,
    request: &(impl Fn(u64) -> Vec<u8> + ?Sized),
) -> Vec<Sent> {
    let started = Instant::now();
    let mut sent = Vec::new();
    let mut connection = None;
    let more = |count: usize| match until {
        Until::PerConnection(limit) => (count as u64) < limit,
        Until::Elapsed(time) => started.elapsed() < time,
    };
    while more(sent.len()) && !stop.load(Ordering::SeqCst) {
        // An event gets its id only once there is a connection, so a refused connection loses none.
        let Some(mut http) = connection.take().or_else(|| connect(port, stop)) else {
            break;
        };
        let id = ids.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        let answer = exchange(&mut http, &request(id));
        let result = match answer {
            Ok((status, closes)) => {
                answered.fetch_add(1, Ordering::SeqCst);
                connection = (!closes).then_some(http);
                Ok(status)
            }
            Err(error) => Err(error.to_string()),
        };
        sent.push(Sent { id, result, took: begun.elapsed() });
    }
    sent
}

fn exchange(http: &mut Http, request: &[u8]) -> io::Result<(u16, bool)> {
    http.try_send_raw(request)?;
    let response = http.try_read_response()?;
    Ok((response.status, response.closes()))
}

/// Tries again while the server is away; panics when it stays away.
fn connect(port: u16, stop: &AtomicBool) -> Option<Http> {
    let connected = super::wait_for(Duration::from_secs(10), || match Http::try_connect(port) {
        Ok(http) => Some(Some(http)),
        Err(_) => stop.load(Ordering::SeqCst).then_some(None),
    });
    connected.expect("a server that comes back within 10 s")
}
