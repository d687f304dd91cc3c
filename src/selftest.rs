//! Self-test: makes the commands that write a value, read it back and delete it, and judges what Redis answers to them.
//!
//! Knows no nginx and sends nothing. The key is its own, has a random part, and expires by itself.

use crate::command::Commands;
use crate::reply::Verdict;

/// How long the key lives when it cannot be deleted, in seconds.
const EXPIRY: u32 = 10;

/// A test that waits for the replies to its three commands.
#[derive(Debug)]
pub struct SelfTest {
    value: String,
    /// What Redis answered so far, in order, as text.
    replies: Vec<String>,
    /// Why it has failed; the first reason.
    failure: Option<String>,
}

impl SelfTest {
    /// `name` and `value` are random and differ from those of any other test.
    pub fn begin(name: &str, value: &str) -> (SelfTest, Commands) {
        let key = format!("meteorit:selftest:{name}");
        let mut commands = Commands::new();
        for command in [
            redis::cmd("SET").arg(&key).arg(value).arg("EX").arg(EXPIRY),
            redis::cmd("GET").arg(&key),
            redis::cmd("DEL").arg(&key),
        ] {
            commands.push(&command.get_packed_command(), 1);
        }
        (SelfTest { value: value.to_owned(), replies: Vec::new(), failure: None }, commands)
    }

    /// Takes the verdict on the next command; `text` is what Redis answered, or why there is no answer.
    pub fn add(&mut self, verdict: Verdict, text: String) {
        match verdict {
            Verdict::Stored => self.replies.push(text),
            _ => self.fail(text),
        }
    }

    /// Lets the test fail for this reason, unless it has failed before.
    pub fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// The value that was written, read and deleted, or why that did not work; once each command has its verdict.
    pub fn result(self) -> Result<String, String> {
        let SelfTest { value, replies, failure } = self;
        match (failure, &replies[..]) {
            (Some(reason), _) => Err(reason),
            (None, [_, read, _]) if *read != value => {
                Err(format!("Redis gave back \"{read}\" and not \"{value}\", which was written"))
            }
            (None, [_, _, deleted]) if deleted != "1" => Err(format!("DEL of the one key gave \"{deleted}\"")),
            (None, [_, _, _]) => Ok(value),
            (None, _) => Err("nothing was answered".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(replies: &[(Verdict, &str)]) -> Result<String, String> {
        let mut test = SelfTest::begin("name", "value").0;
        replies.iter().for_each(|(verdict, text)| test.add(*verdict, (*text).to_owned()));
        test.result()
    }

    #[test]
    fn the_commands_write_read_and_delete_one_key_that_expires() {
        let commands = SelfTest::begin("name", "value").1;
        let text: Vec<u8> = commands.iter().collect::<Vec<_>>().concat();
        let words =
            text.split(|byte| *byte == b'\n').filter(|line| line.first().is_some_and(u8::is_ascii_alphanumeric));
        let words: Vec<_> = words.map(|line| String::from_utf8_lossy(line).trim().to_owned()).collect();
        let key = "meteorit:selftest:name";
        assert_eq!(words, ["SET", key, "value", "EX", "10", "GET", key, "DEL", key]);
    }

    #[test]
    fn only_the_value_itself_and_one_deleted_key_pass() {
        use Verdict::*;
        assert_eq!(judged(&[(Stored, "OK"), (Stored, "value"), (Stored, "1")]), Ok("value".into()));
        for replies in [
            &[(Stored, "OK"), (Stored, "other"), (Stored, "1")][..],
            &[(Stored, "OK"), (Stored, ""), (Stored, "1")],
            &[(Stored, "OK"), (Stored, "value"), (Stored, "0")],
            &[(Stored, "OK"), (Stored, "value")],
            &[],
        ] {
            assert!(judged(replies).is_err(), "{replies:?}");
        }
        let refused = judged(&[(Unavailable, "READONLY"), (Stored, ""), (Refused, "second")]);
        assert_eq!(refused, Err("READONLY".into()), "the first reason stands");
    }
}
