//! The verdicts on the commands of one request become one outcome.

use crate::reply::Verdict;

/// What became of a request so far: a count of verdicts, and the words for the worst of them.
#[derive(Debug, Default)]
pub struct Outcome {
    stored: u32,
    rejected: u32,
    refused: u32,
    unavailable: u32,
    unknown: u32,
    /// Commands that are held here until Redis takes them.
    queued: u32,
    /// Commands that are in the spool until Redis takes them.
    spooled: u32,
    /// Commands that would be written, were this no dry run.
    dry: u32,
    /// Of the verdict that decides; the first one of its kind.
    reason: Option<Box<str>>,
    retry_after: u32,
}

/// What became of a request, as `$meteorit_status` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// All would be well, and nothing was written: `meteorit_dry_run` (204).
    DryRun,
    /// Every command succeeded (204).
    Stored,
    /// Held here until Redis takes it (202).
    Queued,
    /// In the spool until Redis takes it (202).
    Spooled,
    /// The event is at fault (4xx).
    Rejected,
    /// Redis refused for good (502).
    Refused,
    /// Nothing was written; a retry is safe (503).
    Unavailable,
    /// Unknown or partly written; a retry may write twice (504).
    Timeout,
}

impl Fate {
    pub const ALL: [Fate; 8] = [
        Fate::DryRun,
        Fate::Stored,
        Fate::Queued,
        Fate::Spooled,
        Fate::Rejected,
        Fate::Refused,
        Fate::Unavailable,
        Fate::Timeout,
    ];

    /// Whether the client need not send it again.
    pub fn is_accepted(self) -> bool {
        matches!(self, Fate::DryRun | Fate::Stored | Fate::Queued | Fate::Spooled)
    }

    /// The status that says so.
    pub fn status(self) -> u16 {
        match self {
            Fate::DryRun | Fate::Stored => 204,
            Fate::Queued | Fate::Spooled => 202,
            Fate::Rejected => 422,
            Fate::Refused => 502,
            Fate::Unavailable => 503,
            Fate::Timeout => 504,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Fate::DryRun => "dry_run",
            Fate::Stored => "stored",
            Fate::Queued => "queued",
            Fate::Spooled => "spooled",
            Fate::Rejected => "rejected",
            Fate::Refused => "refused",
            Fate::Unavailable => "unavailable",
            Fate::Timeout => "timeout",
        }
    }
}

impl Outcome {
    /// Of a command that is held here until Redis takes it.
    pub fn queued() -> Outcome {
        Outcome { queued: 1, ..Outcome::default() }
    }

    /// Of a command that would be written, were this no dry run.
    pub fn dry_run() -> Outcome {
        Outcome { dry: 1, ..Outcome::default() }
    }

    /// Counts a command that is in the spool until Redis takes it.
    pub fn spool(&mut self) {
        self.spooled += 1;
    }

    /// Counts one command's verdict; `reason` is asked for only when it decides the outcome.
    pub fn add(&mut self, verdict: Verdict, reason: impl FnOnce() -> String) {
        let before = self.fate();
        match verdict {
            Verdict::Stored => self.stored += 1,
            Verdict::Rejected => self.rejected += 1,
            Verdict::Refused => self.refused += 1,
            Verdict::Unavailable => self.unavailable += 1,
            Verdict::Unknown => self.unknown += 1,
        }
        if verdict != Verdict::Stored && (self.reason.is_none() || self.fate() > before) {
            self.reason = Some(reason().into());
        }
    }

    /// Lets a 503 say when to come again, in seconds.
    pub fn retry_after_at_least(&mut self, seconds: u32) {
        self.retry_after = self.retry_after.max(seconds);
    }

    /// At least 1 second.
    pub fn retry_after(&self) -> u32 {
        self.retry_after.max(1)
    }

    /// What is true of the request as a whole.
    pub fn fate(&self) -> Fate {
        match self {
            Outcome { unknown: 1.., .. } => Fate::Timeout,
            Outcome { unavailable: 1.., stored: 1.., .. } | Outcome { unavailable: 1.., spooled: 1.., .. } => {
                Fate::Timeout
            }
            Outcome { unavailable: 1.., .. } => Fate::Unavailable,
            Outcome { refused: 1.., .. } => Fate::Refused,
            Outcome { rejected: 1.., .. } => Fate::Rejected,
            Outcome { spooled: 1.., .. } => Fate::Spooled,
            Outcome { queued: 1.., .. } => Fate::Queued,
            Outcome { dry: 1.., .. } => Fate::DryRun,
            _ => Fate::Stored,
        }
    }

    /// The reason, and how much was written nonetheless.
    pub fn detail(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or("nothing was answered");
        let all = self.stored + self.spooled + self.rejected + self.refused + self.unavailable + self.unknown;
        match (self.fate(), self.stored) {
            (Fate::Unavailable, _) => format!("{reason}; nothing was written"),
            (_, 0) => reason.to_owned(),
            (_, stored) => format!("{reason}; {stored} of {all} commands were carried out"),
        }
    }
}
