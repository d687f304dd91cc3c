//! The replies to MULTI, its commands and EXEC come in, one verdict on all of them goes out.
//!
//! Redis isolates the commands of a transaction but does not undo them: when one of them fails in EXEC, the others are done
//! (<https://redis.io/docs/latest/develop/using-commands/transactions/>).

use super::{Kind, Parser, Reply, Verdict};

/// A transaction whose replies come in.
#[derive(Debug, Default)]
pub struct Transaction {
    replies: u32,
    /// How many commands were done outside of it, for it was never opened.
    done: u32,
    /// The first error, which is why EXEC is refused.
    error: Option<(Verdict, Box<[u8]>)>,
}

impl Transaction {
    /// Takes the next one of `expected` replies; what all of them mean comes with the last one: the verdict, and the text
    /// of the error that decides, empty where there is none.
    pub fn take(&mut self, expected: u32, reply: &Reply) -> Option<(Verdict, Box<[u8]>)> {
        self.replies += 1;
        if self.replies < expected {
            match reply.error() {
                Some(text) if self.error.is_none() => self.error = Some((reply.verdict(), text.into())),
                None if self.replies > 1 && !reply.is_queued() => self.done += 1,
                _ => {}
            }
            return None;
        }
        let Transaction { done, error, .. } = std::mem::take(self);
        Some(match error {
            // Not a transaction, and yet something was done.
            Some((_, text)) if done > 0 => (Verdict::Unknown, text),
            Some(error) => error,
            None => exec(reply),
        })
    }
}

/// The verdict on a transaction by the reply to its EXEC.
fn exec(reply: &Reply) -> (Verdict, Box<[u8]>) {
    if let Some(text) = reply.error() {
        return (reply.verdict(), text.into());
    }
    if reply.kind() != Kind::Array || reply.bytes().starts_with(b"*-1") {
        return (Verdict::Unknown, Box::default());
    }
    let (mut done, mut worst, mut error) = (0, Verdict::Stored, &b""[..]);
    for element in elements(reply.bytes()) {
        let verdict = element.verdict();
        done += u32::from(verdict == Verdict::Stored);
        if severity(verdict) > severity(worst) {
            (worst, error) = (verdict, element.error().unwrap_or_default());
        }
    }
    if worst == Verdict::Unavailable && done > 0 {
        worst = Verdict::Unknown;
    }
    (worst, error.into())
}

fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Stored => 0,
        Verdict::Rejected => 1,
        Verdict::Refused => 2,
        Verdict::Unavailable => 3,
        Verdict::Unknown => 4,
    }
}

/// The elements of an array that is there whole, without attributes in front of it.
fn elements(array: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    let head = memchr::memchr(b'\n', array).map_or(array.len(), |end| end + 1);
    let mut rest = array.get(head..).unwrap_or_default();
    std::iter::from_fn(move || {
        let reply = Parser::new().next(rest).ok()??;
        rest = rest.get(reply.len()..)?;
        Some(reply)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(replies: &[&str]) -> (Verdict, String) {
        let mut transaction = Transaction::default();
        let expected = replies.len() as u32;
        let mut settled = None;
        for text in replies {
            assert!(settled.is_none());
            let reply = Parser::new().next(text.as_bytes()).unwrap().unwrap();
            settled = transaction.take(expected, &reply);
        }
        let (verdict, error) = settled.unwrap();
        (verdict, String::from_utf8(error.into()).unwrap())
    }

    const QUEUED: &str = "+QUEUED\r\n";

    #[test]
    fn the_elements_of_exec_decide() {
        use Verdict::*;
        for (exec, verdict, error) in [
            ("*2\r\n:1\r\n$2\r\nOK\r\n", Stored, ""),
            ("*2\r\n:1\r\n*1\r\n-ERR inside is no error of the command\r\n", Stored, ""),
            ("*2\r\n:1\r\n-WRONGTYPE x\r\n", Refused, "WRONGTYPE x"),
            ("*2\r\n-ERR value is not an integer or out of range\r\n-WRONGTYPE x\r\n", Refused, "WRONGTYPE x"),
            ("*2\r\n-OOM x\r\n-WRONGTYPE x\r\n", Unavailable, "OOM x"),
            ("*2\r\n:1\r\n-OOM x\r\n", Unknown, "OOM x"),
            ("*-1\r\n", Unknown, ""),
            ("+OK\r\n", Unknown, ""),
            (
                "-EXECABORT Transaction discarded because of previous errors.\r\n",
                Refused,
                "EXECABORT Transaction discarded because of previous errors.",
            ),
        ] {
            assert_eq!(settle(&["+OK\r\n", QUEUED, QUEUED, exec]), (verdict, error.to_owned()), "{exec}");
        }
    }

    #[test]
    fn the_first_error_is_why_nothing_was_done() {
        let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        let settled = settle(&["+OK\r\n", "-OOM no\r\n", QUEUED, "-WRONGTYPE no\r\n", abort]);
        assert_eq!(settled, (Verdict::Unavailable, "OOM no".to_owned()));
    }

    #[test]
    fn what_was_done_without_a_transaction_is_unknown() {
        let without = "-ERR EXEC without MULTI\r\n";
        assert_eq!(settle(&["-NOPERM x\r\n", ":1\r\n", without]), (Verdict::Unknown, "NOPERM x".to_owned()));
        assert_eq!(settle(&["-NOPERM x\r\n", "-OOM x\r\n", without]), (Verdict::Unavailable, "NOPERM x".to_owned()));
    }

    #[test]
    fn one_transaction_follows_another() {
        let mut transaction = Transaction::default();
        let reply = |text: &'static str| Parser::new().next(text.as_bytes()).unwrap().unwrap();
        for _ in 0..2 {
            assert_eq!(transaction.take(3, &reply("+OK\r\n")), None);
            assert_eq!(transaction.take(3, &reply("-OOM x\r\n")), None);
            assert_eq!(transaction.take(3, &reply("-EXECABORT x\r\n")).unwrap().0, Verdict::Unavailable);
        }
    }
}
