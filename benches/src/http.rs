//! As much HTTP as a client of the peers needs.

use std::io::{self, Read, Write};
use std::net::TcpStream;

pub fn request(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The status of an answer that is there whole.
pub fn status_of(received: &[u8]) -> Option<u16> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&received[..end]).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    (received.len() >= end + length).then(|| head.get(9..12)?.parse().ok())?
}

/// Sends a request over a connection of its own; gives that and the status of the answer.
pub fn send(port: u16, body: &str) -> io::Result<(TcpStream, u16)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let status = call(&mut stream, &request(body))?;
    Ok((stream, status))
}

/// Sends a request so many times over one connection, each after the answer to the one before.
pub fn repeat(port: u16, body: &str, status: u16, times: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = request(body);
    for _ in 0..times {
        match call(&mut stream, &request)? {
            got if got == status => {}
            got => return Err(io::Error::other(format!("the answer is {got}, not {status}"))),
        }
    }
    Ok(())
}

fn call(stream: &mut TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut room = [0; 4096];
    loop {
        match stream.read(&mut room)? {
            0 => return Err(io::Error::other("the server closed the connection")),
            count => received.extend_from_slice(&room[..count]),
        }
        if let Some(status) = status_of(&received) {
            return Ok(status);
        }
    }
}
