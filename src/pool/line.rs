//! A connection of the pool, with what the pool knows about it.

use crate::backoff::Backoff;
use crate::conf::redis::Settings;
use crate::connection::Connection;
use crate::metrics::{Connections, Redis};
use crate::ngx::{Msec, Timer};

pub struct Line {
    pub connection: Connection,
    /// The address in use, or to be tried next.
    pub address: usize,
    pub backoff: Backoff,
    /// When to try again after a failure; None while connecting or connected.
    pub retry_at: Option<Msec>,
    /// Why the last attempt failed: logged when it changes.
    pub away_for: String,
    /// A connection that was lost too soon counts as good again only when a command has succeeded on it.
    pub on_trial: bool,
    /// Whether a connection was lost or could not be made since one was made.
    pub has_failed: bool,
    timer_at: Option<Msec>,
}

impl Line {
    pub fn new(timer: Timer, counters: Redis) -> Line {
        Line {
            connection: Connection::new(timer, counters),
            address: 0,
            backoff: Backoff::default(),
            retry_at: None,
            away_for: String::new(),
            on_trial: false,
            has_failed: false,
            timer_at: None,
        }
    }

    /// Whether a request would wait in vain: the last attempt failed, and none has succeeded since.
    pub fn is_away(&self) -> bool {
        self.backoff.is_failing() && self.connection.ready_since().is_none()
    }

    /// Adds what it is to those of its pool.
    pub fn count(&self, connections: &mut Connections) {
        let is_closed = self.connection.is_closed();
        let is_ready = self.connection.ready_since().is_some();
        connections.ready += u64::from(is_ready);
        connections.closed += u64::from(is_closed);
        connections.connecting += u64::from(!is_closed && !is_ready);
        let is_open = self.retry_at.is_some();
        connections.open += u64::from(is_open);
        connections.half_open += u64::from(!is_open && (self.on_trial || self.backoff.is_failing()));
    }

    /// Seconds until the next attempt, at least 1.
    pub fn retry_in(&self, now: Msec) -> u32 {
        let left = self.retry_at.map_or(0, |at| at.saturating_sub(now));
        u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }

    /// Lets the timer fire at `at`, unless it fires earlier anyway and will then be set anew.
    pub fn set_timer_before(&mut self, at: Msec, now: Msec) {
        if self.timer_at.is_none_or(|earlier| earlier > at) {
            self.timer_at = Some(at);
            self.connection.timer.set(at.saturating_sub(now));
        }
    }

    /// The timer has fired.
    pub fn timer_fired(&mut self) {
        self.timer_at = None;
    }

    /// When there is something to do next, if nothing happens before.
    pub fn wake_at(&self, settings: &Settings) -> Option<Msec> {
        [self.connection.overdue_at(settings), self.retry_at].into_iter().flatten().min()
    }
}
