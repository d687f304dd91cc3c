//! RESP as a server sees it: complete command arrays out of a growing buffer, and the replies a test writes most.
//! Written apart from the module's own parser, so that one cannot hide the other's mistake.

/// Takes the first complete command off the buffer; `Ok(None)` when more bytes are needed.
pub fn take_command(buffer: &mut Vec<u8>) -> Result<Option<Vec<Vec<u8>>>, String> {
    let mut rest = buffer.as_slice();
    let Some(count) = take_number(&mut rest, b'*')? else {
        return Ok(None);
    };
    let mut args = Vec::new();
    for _ in 0..count {
        let Some(length) = take_number(&mut rest, b'$')? else {
            return Ok(None);
        };
        if rest.len() < length + 2 {
            return Ok(None);
        }
        if &rest[length..length + 2] != b"\r\n" {
            return Err(format!("no CRLF after an argument of {length} bytes: {}", shown(rest)));
        }
        args.push(rest[..length].to_vec());
        rest = &rest[length + 2..];
    }
    if args.is_empty() {
        return Err("an empty command".into());
    }
    let used = buffer.len() - rest.len();
    buffer.drain(..used);
    Ok(Some(args))
}

fn take_number(rest: &mut &[u8], mark: u8) -> Result<Option<usize>, String> {
    let Some(&first) = rest.first() else {
        return Ok(None);
    };
    if first != mark {
        return Err(format!("{:?} expected: {}", mark as char, shown(rest)));
    }
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
        return if rest.len() > 24 { Err(format!("a number without end: {}", shown(rest))) } else { Ok(None) };
    };
    let digits = &rest[1..end];
    let number = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number.and_then(|text| text.parse().ok()).ok_or_else(|| format!("not a number: {}", shown(rest)))?;
    *rest = &rest[end + 2..];
    Ok(Some(number))
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]))
}

/// What a Redis answers to the commands a client sends before its first event, by name in upper case; `None` for any other.
pub fn handshake_reply(command: &[Vec<u8>], connection: usize) -> Option<Vec<u8>> {
    let word =
        |i: usize| command.get(i).map(|arg| String::from_utf8_lossy(arg).to_ascii_uppercase()).unwrap_or_default();
    let reply = match word(0).as_str() {
        "AUTH" | "SELECT" => b"+OK\r\n".to_vec(),
        "PING" if command.len() > 1 => bulk(&command[1]),
        "PING" => b"+PONG\r\n".to_vec(),
        "CLIENT" if word(1) == "ID" => format!(":{}\r\n", connection + 1).into_bytes(),
        "CLIENT" => b"+OK\r\n".to_vec(),
        "HELLO" => hello(word(1) == "3", connection),
        _ => return None,
    };
    Some(reply)
}

fn hello(resp3: bool, connection: usize) -> Vec<u8> {
    let (head, proto) = if resp3 { ("%7", 3) } else { ("*14", 2) };
    let pairs: [(&str, Vec<u8>); 7] = [
        ("server", bulk(b"redis")),
        ("version", bulk(b"7.0.15")),
        ("proto", format!(":{proto}\r\n").into_bytes()),
        ("id", format!(":{}\r\n", connection + 1).into_bytes()),
        ("mode", bulk(b"standalone")),
        ("role", bulk(b"master")),
        ("modules", b"*0\r\n".to_vec()),
    ];
    let mut reply = format!("{head}\r\n").into_bytes();
    for (name, value) in pairs {
        reply.extend(bulk(name.as_bytes()));
        reply.extend(value);
    }
    reply
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("${}\r\n", bytes.len()).into_bytes();
    text.extend(bytes);
    text.extend(b"\r\n");
    text
}
