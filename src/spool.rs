//! Spool: events that Redis cannot take now are kept in files, and replayed in their order when it can.
//!
//! ```text
//! DIR/                                    the directive's, mode 0700
//!     1764086400123-4711/                 a lane: the files of one worker, locked by it while it lives
//!         00000001-a1b2c3d4e5f60718.seg   a segment: records, oldest first
//!         00000002-18f6e5d4c3b2a107.seg
//!         cursor                          how far the replay got
//!     rejected                            what Redis refused for good, a record each
//! ```
//!
//! [`record`] is the format of a segment, [`Reader`] finds what is intact in one, both without any file; [`files`] is the
//! folder above, by blocking calls: a worker makes them at its start and its end, and in nginx's threads otherwise. Nothing
//! here knows Redis, a pool or nginx. The page docs/spool-format.md says the same for those who read the files themselves.

pub mod disk;
pub mod files;
mod reader;
pub mod record;

pub use files::{Adoption, Contents, Cursor, Lane, LaneName, Rejected, Segment, SegmentFile, SegmentName};
pub use reader::{Part, Reader, Unreadable};
pub use record::{Command, Marker, Record};
