//! As much of HTTP/2 (RFC 9113) as it takes to choose the frames: streams side by side, DATA of any size, padding, resets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// What a stream may send before the peer says more.
const WINDOW: i64 = 65_535;

/// A connection by prior knowledge. It keeps to the window of each stream; that of the connection nginx opens wide at once.
pub struct Http2 {
    stream: TcpStream,
    next: u32,
    windows: HashMap<u32, i64>,
    answers: HashMap<u32, Vec<u8>>,
}

impl Http2 {
    #[track_caller]
    pub fn connect(port: u16) -> Http2 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut http = Http2 { stream, next: 1, windows: HashMap::new(), answers: HashMap::new() };
        http.frame(SETTINGS, 0, 0, b"");
        // Only the peer's own settings say how much each stream may send.
        while !matches!(http.read_frame(), (SETTINGS, flags, ..) if flags & ACK == 0) {}
        http.frame(SETTINGS, ACK, 0, b"");
        http
    }

    /// Sends the HEADERS of a request and gives its stream.
    #[track_caller]
    pub fn start(&mut self, method: &str, path: &str) -> u32 {
        self.start_with(method, path, None)
    }

    /// The same with a Content-Length.
    #[track_caller]
    pub fn announce(&mut self, method: &str, path: &str, length: usize) -> u32 {
        self.start_with(method, path, Some(length))
    }

    #[track_caller]
    fn start_with(&mut self, method: &str, path: &str, length: Option<usize>) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.windows.insert(stream, WINDOW);
        // RFC 7541, section 6.2.2: literals without indexing, the names by their number in the static table.
        let mut block = vec![0x86];
        for (name, value) in [(1, "localhost"), (2, method), (4, path)] {
            block.extend([name, value.len() as u8]);
            block.extend(value.as_bytes());
        }
        if let Some(length) = length {
            let length = length.to_string();
            // Number 28 does not fit into four bits: 15 there, 13 in the next byte (section 5.1).
            block.extend([0x0f, 13, length.len() as u8]);
            block.extend(length.as_bytes());
        }
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    #[track_caller]
    pub fn data(&mut self, stream: u32, bytes: &[u8], padding: Option<u8>, last: bool) {
        let end = if last { END_STREAM } else { 0 };
        let counted = bytes.len() as i64 + padding.map_or(0, |length| i64::from(length) + 1);
        while self.windows[&stream] < counted {
            // An answer may come instead of room; the peer then takes no more.
            if self.answers.contains_key(&stream) {
                return;
            }
            self.take_frame();
        }
        *self.windows.entry(stream).or_default() -= counted;
        match padding {
            None => self.frame(DATA, end, stream, bytes),
            Some(length) => {
                let payload = [&[length][..], bytes, &vec![0; length.into()]].concat();
                self.frame(DATA, end | PADDED, stream, &payload);
            }
        }
    }

    #[track_caller]
    pub fn reset(&mut self, stream: u32) {
        const CANCEL: u32 = 8;
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// The status of a stream's answer, waiting for it.
    #[track_caller]
    pub fn status(&mut self, stream: u32) -> u16 {
        while !self.answers.contains_key(&stream) {
            self.take_frame();
        }
        status_of(&self.answers[&stream])
    }

    #[track_caller]
    fn take_frame(&mut self) {
        match self.read_frame() {
            (HEADERS, _, stream, block) => drop(self.answers.insert(stream, block)),
            (WINDOW_UPDATE, _, stream, size) => {
                let size = u32::from_be_bytes(size.try_into().expect("four bytes"));
                *self.windows.entry(stream).or_default() += i64::from(size);
            }
            (RST_STREAM, _, stream, code) if !self.answers.contains_key(&stream) => {
                panic!("stream {stream} was reset: {code:?}")
            }
            (GOAWAY, _, _, payload) => panic!("the connection ends: {payload:?}"),
            _ => {}
        }
    }

    #[track_caller]
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes).expect("a frame to nginx");
    }

    #[track_caller]
    fn read_frame(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).expect("a frame from nginx");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).expect("a whole frame from nginx");
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
    }
}

/// nginx writes the status first, by its number in the static table or as three digits.
fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A change of the dynamic table's size may come before it.
    let block = block.iter().position(|byte| byte & 0xe0 != 0x20).map_or(&[][..], |at| &block[at..]);
    match block {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
        [_, 3, a, b, c, ..] => [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0')),
        _ => panic!("no status in {block:?}"),
    }
}
