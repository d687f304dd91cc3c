//! Why events were rejected or could not be taken, as far as that is counted.

/// Why an event was rejected: what its problem's `type` ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    MethodNotAllowed,
    UnsupportedMediaType,
    UnsupportedCoding,
    ForeignOrigin,
    BrokenCoding,
    NotAForm,
    NotJson,
    InvalidEvent,
    Schema,
    InvalidKey,
    InvalidField,
    EventTooLarge,
    BodyTooLarge,
    BatchTooLarge,
    InvalidBatch,
    RejectedByRedis,
}

impl Cause {
    pub const ALL: [Cause; 16] = [
        Cause::MethodNotAllowed,
        Cause::UnsupportedMediaType,
        Cause::UnsupportedCoding,
        Cause::ForeignOrigin,
        Cause::BrokenCoding,
        Cause::NotAForm,
        Cause::NotJson,
        Cause::InvalidEvent,
        Cause::Schema,
        Cause::InvalidKey,
        Cause::InvalidField,
        Cause::EventTooLarge,
        Cause::BodyTooLarge,
        Cause::BatchTooLarge,
        Cause::InvalidBatch,
        Cause::RejectedByRedis,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Cause::MethodNotAllowed => "method-not-allowed",
            Cause::UnsupportedMediaType => "unsupported-media-type",
            Cause::UnsupportedCoding => "unsupported-coding",
            Cause::ForeignOrigin => "foreign-origin",
            Cause::BrokenCoding => "broken-coding",
            Cause::NotAForm => "not-a-form",
            Cause::NotJson => "not-json",
            Cause::InvalidEvent => "invalid-event",
            Cause::Schema => "schema",
            Cause::InvalidKey => "invalid-key",
            Cause::InvalidField => "invalid-field",
            Cause::EventTooLarge => "event-too-large",
            Cause::BodyTooLarge => "body-too-large",
            Cause::BatchTooLarge => "batch-too-large",
            Cause::InvalidBatch => "invalid-batch",
            Cause::RejectedByRedis => "rejected-by-redis",
        }
    }
}

/// Why an event got a 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Redis was known to be away.
    Away,
    /// `backlog` or `max_pending` was reached.
    BacklogFull,
    /// A rejected event could not be set aside.
    NotSetAside,
    /// nginx lacks memory, or cannot read its temporary file.
    NoResources,
    /// Redis said so or went away, or the spool did not take the event.
    Redis,
}

impl Lack {
    pub const ALL: [Lack; 5] = [Lack::Away, Lack::BacklogFull, Lack::NotSetAside, Lack::NoResources, Lack::Redis];

    pub fn name(self) -> &'static str {
        match self {
            Lack::Away => "away",
            Lack::BacklogFull => "backlog-full",
            Lack::NotSetAside => "not-set-aside",
            Lack::NoResources => "no-resources",
            Lack::Redis => "redis",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place_in_the_list() {
        assert!(Cause::ALL.iter().enumerate().all(|(at, cause)| *cause as usize == at));
        assert!(Lack::ALL.iter().enumerate().all(|(at, lack)| *lack as usize == at));
    }
}
