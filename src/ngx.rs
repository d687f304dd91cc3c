//! The thin safe layer over nginx: the only place with `unsafe`, and the only one that sees nginx's structs.
//!
//! What it hands out cannot be misused from safe code: a request is answered exactly once, a timer or posted event
//! deletes itself, a connection closes itself, a callback never outlives its owner.

mod captures;
mod conf;
mod event;
mod exports;
mod filter;
mod headers;
mod log;
mod peer;
mod pending;
mod request;
mod sys;
mod thread;
mod values;
mod zone;

pub use conf::{CommandArgs, Complex, Conf, Directive, Position, context, parse_msec, parse_size};
pub use event::{
    Msec, Posted, Timer, exiting, lives, now, pid, random, random_seed, strftime, unix_ms, version, worker,
};
pub use log::{Level, log};
pub use peer::{Address, Handler, Peer, Recv, Send};
pub use pending::Pending;
pub use request::{BodyPart, Handled, Method, OutOfMemory, Request};
pub use thread::ThreadPool;
