//! Load at a fixed rate, and how long each answer takes: a request has its time whatever became of those before it, and what
//! it waits for a connection counts, so a server that stands still is not forgiven (no coordinated omission).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::http;

/// How long answers took, from the time that a request was due, in microseconds.
pub struct Latencies {
    sorted: Vec<f64>,
    /// Answers of another status.
    pub failures: u64,
}

impl Latencies {
    /// What so many of 1000 do not exceed.
    pub fn at(&self, per_mille: usize) -> f64 {
        let index = (self.sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
        self.sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

struct Client {
    stream: TcpStream,
    /// When the request under way was due.
    due: Instant,
    received: Vec<u8>,
}

/// Sends `rate` requests a second over `connections`. The first tenth of the time is not counted.
pub fn run(port: u16, body: &str, status: u16, connections: usize, rate: f64, seconds: f64) -> io::Result<Latencies> {
    // A thread's timers may be late by 50 us otherwise (prctl(2), PR_SET_TIMERSLACK).
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZero::new(1));
    let request = http::request(body);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = (0..connections).map(|index| connect(&poll, port, index)).collect::<io::Result<Vec<_>>>()?;
    let mut free: VecDeque<usize> = (0..connections).collect();
    let mut latencies = Latencies { sorted: Vec::new(), failures: 0 };
    let begin = Instant::now();
    let count = (rate * seconds) as u64;
    let uncounted = begin + Duration::from_secs_f64(seconds / 10.0);
    let due_at = |number: u64| begin + Duration::from_secs_f64(number as f64 / rate);
    let (mut sent, mut answered) = (0, 0);
    let mut events = Vec::with_capacity(connections);
    while answered < count {
        let mut now = Instant::now();
        while sent < count && due_at(sent) <= now {
            let Some(index) = free.pop_front() else { break };
            let client = &mut clients[index];
            client.due = due_at(sent);
            // A request is far smaller than the socket's buffer.
            client.stream.write_all(&request)?;
            sent += 1;
        }
        now = Instant::now();
        let wait = match free.is_empty() || sent == count {
            true => Duration::from_secs(5),
            false => due_at(sent).saturating_duration_since(now),
        };
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
        if events.is_empty() && (free.is_empty() || sent == count) {
            return Err(io::Error::other("no answer for 5 seconds"));
        }
        now = Instant::now();
        for event in &events {
            let index = event.data.u64() as usize;
            let client = &mut clients[index];
            let Some(got) = client.receive()? else {
                continue;
            };
            answered += 1;
            free.push_back(index);
            if got != status {
                latencies.failures += 1;
            } else if client.due >= uncounted {
                latencies.sorted.push((now - client.due).as_nanos() as f64 / 1e3);
            }
        }
    }
    latencies.sorted.sort_by(f64::total_cmp);
    Ok(latencies)
}

fn connect(poll: &OwnedFd, port: u16, index: usize) -> io::Result<Client> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    epoll::add(poll, stream.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
    Ok(Client { stream, due: Instant::now(), received: Vec::new() })
}

impl Client {
    /// The status of the answer, once it is there whole.
    fn receive(&mut self) -> io::Result<Option<u16>> {
        let mut room = [0; 4096];
        match self.stream.read(&mut room) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(count) => self.received.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let status = http::status_of(&self.received);
        if status.is_some() {
            self.received.clear();
        }
        Ok(status)
    }
}
