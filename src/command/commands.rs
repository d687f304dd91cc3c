//! The commands of one request: their bytes come in one behind the other and go out each by itself.
//!
//! Made to be used again for the next request. Never holds a part of a command.

/// Bytes that [`Commands::clear`] keeps allocated: enough for all but unusual requests.
const RETAINED: usize = 1024 * 1024;
/// Commands whose ends it keeps allocated, at 8 bytes each.
const RETAINED_ENDS: usize = 16 * 1024;

const MULTI: &[u8; 15] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Encoded commands, in order.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    bytes: Vec<u8>,
    ends: Vec<End>,
    /// Room for one key while it is put together.
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    /// Where in the bytes the command ends.
    at: usize,
    /// How many replies Redis gives to it.
    replies: u32,
}

impl Commands {
    pub fn new() -> Self {
        Self::default()
    }

    /// With room for about so many bytes of about so many commands.
    pub fn with_capacity(bytes: usize, commands: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(commands), key: Vec::new() }
    }

    /// Bytes of all commands together.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many commands; a transaction is one.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Each command's bytes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.entries().map(|(command, _)| command)
    }

    /// Each command's bytes, and how many replies Redis gives to it.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&[u8], u32)> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let command = self.bytes.get(start..end.at).unwrap_or_default();
            start = end.at;
            (command, end.replies)
        })
    }

    /// Adds a command that is encoded already, with the number of replies that Redis gives to it.
    pub fn push(&mut self, command: &[u8], replies: u32) {
        self.bytes.extend_from_slice(command);
        self.ends.push(End { at: self.bytes.len(), replies });
    }

    /// Makes one transaction (MULTI ... EXEC) of all commands but the first `count`; of none it makes none.
    pub fn wrap(&mut self, count: usize) {
        let wrapped = self.ends.len().saturating_sub(count);
        if wrapped == 0 {
            return;
        }
        let start = count.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| end.at);
        self.bytes.splice(start..start, *MULTI);
        self.bytes.extend_from_slice(EXEC);
        self.ends.truncate(count);
        self.ends.push(End { at: self.bytes.len(), replies: wrapped as u32 + 2 });
    }

    /// Forgets the commands and keeps what was allocated for them, up to 1 MB.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(RETAINED);
        self.ends.clear();
        self.ends.shrink_to(RETAINED_ENDS);
    }

    /// Forgets all commands but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.bytes.truncate(self.ends.last().map_or(0, |end| end.at));
    }

    /// Adds what `write` appends to the first vector as one command; if it appends nothing or fails, none. The second is
    /// room to work in.
    pub(super) fn append<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let written = write(&mut self.bytes, &mut self.key);
        if written.is_err() {
            self.bytes.truncate(start);
        } else if self.bytes.len() > start {
            self.ends.push(End { at: self.bytes.len(), replies: 1 });
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(commands: &mut Commands, bytes: &[u8]) {
        let written: Result<(), ()> = commands.append(|out, _| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        written.unwrap();
    }

    #[test]
    fn commands_come_out_as_they_went_in() {
        let mut commands = Commands::new();
        assert!(commands.is_empty());
        add(&mut commands, b"one");
        add(&mut commands, b"");
        add(&mut commands, b"three");
        assert_eq!(commands.iter().collect::<Vec<_>>(), [&b"one"[..], b"three"]);
        assert_eq!((commands.count(), commands.len(), commands.iter().len()), (2, 8, 2));
        commands.clear();
        assert!(commands.is_empty());
        assert_eq!((commands.len(), commands.iter().count()), (0, 0));
    }

    #[test]
    fn the_commands_of_an_event_become_one_transaction() {
        let mut commands = Commands::new();
        add(&mut commands, b"one");
        commands.wrap(1);
        assert_eq!(commands.count(), 1, "nothing to wrap");
        add(&mut commands, b"two");
        add(&mut commands, b"three");
        commands.wrap(1);
        let transaction = [&MULTI[..], b"twothree", EXEC].concat();
        assert_eq!(commands.entries().collect::<Vec<_>>(), [(&b"one"[..], 1), (&transaction[..], 4)]);
        commands.truncate(1);
        assert_eq!(commands.iter().collect::<Vec<_>>(), [b"one"]);
        commands.push(b"again", 1);
        commands.wrap(0);
        let transaction = [&MULTI[..], b"oneagain", EXEC].concat();
        assert_eq!(commands.entries().collect::<Vec<_>>(), [(&transaction[..], 4)]);
    }

    #[test]
    fn keeps_its_memory_after_a_usual_request_and_gives_it_back_after_a_large_one() {
        let mut commands = Commands::new();
        add(&mut commands, &[b'x'; 1000]);
        let usual = (commands.bytes.capacity(), commands.ends.capacity());
        commands.clear();
        assert_eq!((commands.bytes.capacity(), commands.ends.capacity()), usual);

        add(&mut commands, &vec![b'x'; 3 * RETAINED]);
        for _ in 0..3 * RETAINED_ENDS {
            add(&mut commands, b"x");
        }
        commands.clear();
        assert!(commands.bytes.capacity() < 2 * RETAINED);
        assert!(commands.ends.capacity() < 2 * RETAINED_ENDS);
    }
}
