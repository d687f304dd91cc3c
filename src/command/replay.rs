//! What of an encoded command may be sent a second time, or later than its time: all but PUBLISH, whose subscribers would
//! take it for news.

use std::borrow::Cow;

use super::resp;

/// The command, or transaction of `replies` replies, without what must not be sent again; None when nothing is left.
pub fn repeatable(command: &[u8], replies: u32) -> Option<(Cow<'_, [u8]>, u32)> {
    if replies == 1 {
        return (!is_publish(command)).then_some((Cow::Borrowed(command), 1));
    }
    let commands: Vec<&[u8]> = split(command).collect();
    let kept: Vec<&[u8]> = commands.iter().copied().filter(|command| !is_publish(command)).collect();
    match kept.len() {
        // MULTI and EXEC
        ..=2 => None,
        count if count == commands.len() => Some((Cow::Borrowed(command), replies)),
        count => Some((Cow::Owned(kept.concat()), count as u32)),
    }
}

fn is_publish(command: &[u8]) -> bool {
    let name = resp::number(command, 0).and_then(|(_, at)| resp::argument(command, at));
    let name = name.map_or(&b""[..], |(name, _)| name);
    name.eq_ignore_ascii_case(b"PUBLISH") || name.eq_ignore_ascii_case(b"SPUBLISH")
}

/// Each of the commands that stand one behind the other.
fn split(commands: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = commands;
    std::iter::from_fn(move || {
        let (command, after) = rest.split_at_checked(resp::length(rest)?)?;
        rest = after;
        Some(command)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Commands;

    fn encode(args: &[&str]) -> Vec<u8> {
        redis::cmd(args[0]).arg(&args[1..]).get_packed_command()
    }

    fn transaction(commands: &[&[&str]]) -> (Vec<u8>, u32) {
        let mut out = Commands::new();
        commands.iter().for_each(|args| out.push(&encode(args), 1));
        out.wrap(0);
        let (bytes, replies) = out.entries().next().unwrap();
        (bytes.to_vec(), replies)
    }

    #[test]
    fn a_command_is_repeated_unless_it_publishes() {
        let push = encode(&["RPUSH", "list", "*1\r\n$7\r\nPUBLISH\r\n"]);
        assert_eq!(repeatable(&push, 1), Some((Cow::Borrowed(&push[..]), 1)));
        for name in ["PUBLISH", "publish", "SPUBLISH"] {
            assert_eq!(repeatable(&encode(&[name, "channel", "x"]), 1), None, "{name}");
        }
    }

    #[test]
    fn a_transaction_goes_on_without_what_it_publishes() {
        let incr: &[&str] = &["INCR", "n\r\n$1"];
        let publish: &[&str] = &["PUBLISH", "c", "x"];
        let (whole, replies) = transaction(&[incr, incr]);
        assert_eq!(repeatable(&whole, replies), Some((Cow::Borrowed(&whole[..]), 4)));
        let (mixed, replies) = transaction(&[publish, incr, publish, incr]);
        assert_eq!((replies, repeatable(&mixed, replies)), (6, Some((Cow::Owned(whole), 4))));
        let (nothing, replies) = transaction(&[publish]);
        assert_eq!(repeatable(&nothing, replies), None);
    }
}
