//! Meteorit: an nginx location that takes events by HTTP and writes them to Redis.
#![deny(unsafe_code)]

pub mod command;
pub mod event;
pub mod reply;
pub mod window;
