//! What must hold for any input at all, one module for each fuzz target; each has a `check` that panics where it does not hold.
//!
//! The targets hand these functions what libFuzzer makes up, `tests/corpus.rs` what is in `corpus/`. Whatever has another implementation is
//! compared with it; the rest is compared with a second one here, slow and plain.

pub mod json;
pub mod rules;

pub mod batch;
pub mod enrich;
pub mod event;
pub mod fields;
pub mod form;
pub mod inflate;
pub mod reply;
pub mod spool;

/// A target: its name, which is that of its folder in `corpus/`, and its check.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 8] = [
    ("batch", batch::check),
    ("enrich", enrich::check),
    ("event", event::check),
    ("fields", fields::check),
    ("form", form::check),
    ("inflate", inflate::check),
    ("reply", reply::check),
    ("spool", spool::check),
];
