//! Which commands can share one: `RPUSH key a` and `RPUSH key b` do what `RPUSH key a b` does, for one reply.
//!
//! Only such where any number of values is right, each is carried out as if it had come alone, and either all are or none
//! is: an error of the whole is the error of each. HSET is none of them: two wrong ones can make a right one.

use super::resp;

/// `NAME KEY VALUE ...`.
const VARIADIC: [&str; 8] = ["RPUSH", "LPUSH", "SADD", "PFADD", "RPUSHX", "LPUSHX", "SREM", "ZREM"];

/// Where an encoded command can be divided, so that its values can be added to those of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// How many arguments there are, with the name and the key.
    pub arguments: usize,
    /// Where the name begins, behind the number of arguments.
    pub name: usize,
    /// Where the values begin, behind the key.
    pub values: usize,
}

/// The arguments of a command that are not values.
pub const FIXED: usize = 2;

/// Where the command can be divided; None where it cannot.
pub fn divide(command: &[u8]) -> Option<Division> {
    let (arguments, name) = resp::number(command, 0)?;
    if arguments <= FIXED {
        return None;
    }
    let (text, key) = resp::argument(command, name)?;
    if !VARIADIC.iter().any(|name| text.eq_ignore_ascii_case(name.as_bytes())) {
        return None;
    }
    let (_, values) = resp::argument(command, key)?;
    Some(Division { arguments, name, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(args: &[&str]) -> Option<(usize, String, String)> {
        let command = redis::cmd(args[0]).arg(&args[1..]).get_packed_command();
        let Division { arguments, name, values } = divide(&command)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Some((arguments, text(&command[name..values]), text(&command[values..])))
    }

    #[test]
    fn a_list_is_divided_behind_its_key() {
        let expected = (4, "$5\r\nrpush\r\n$3\r\nk\r\n\r\n".into(), "$1\r\na\r\n$4\r\nb\r\nc\r\n".into());
        assert_eq!(divided(&["rpush", "k\r\n", "a", "b\r\nc"]), Some(expected));
    }

    #[test]
    fn what_may_not_share_a_command_is_not_divided() {
        for args in [&["RPUSH", "key"][..], &["XADD", "s", "*", "a", "b"], &["HSET", "h", "f", "v"], &["PING"]] {
            assert_eq!(divided(args), None, "{args:?}");
        }
        for broken in
            ["", "*", "*3", "*3\r\n$5\r\nRPUSH", "*3\r\n$9\r\nRPUSH\r\n", "*99999999999999999999\r\n", "RPUSH"]
        {
            assert_eq!(divide(broken.as_bytes()), None, "{broken:?}");
        }
    }
}
