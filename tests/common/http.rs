//! An HTTP/1.1 client over a plain socket that can do what well-behaved ones cannot: malformed, pipelined, chunked in any size, slow,
//! half-closed, aborted. Whatever takes longer than its timeout (10 s) fails the test and says what had arrived by then.

use super::message::{Request, Response, parse_head};
use super::system;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// One request on a connection of its own.
#[track_caller]
pub fn post(port: u16, path: &str, body: impl AsRef<[u8]>) -> Response {
    Http::connect(port).post(path, body)
}

#[track_caller]
pub fn get(port: u16, path: &str) -> Response {
    Http::connect(port).get(path)
}

pub struct Http {
    stream: TcpStream,
    /// What has arrived and is not part of a response yet.
    buffer: Vec<u8>,
    timeout: Duration,
}

impl Http {
    #[track_caller]
    pub fn connect(port: u16) -> Http {
        Http::try_connect(port).unwrap_or_else(|error| panic!("no connection to port {port}: {error}"))
    }

    pub fn try_connect(port: u16) -> io::Result<Http> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut http = Http { stream, buffer: Vec::new(), timeout: Duration::ZERO };
        http.set_timeout(Duration::from_secs(10));
        Ok(http)
    }

    /// For one read or write that makes no progress.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.stream.set_read_timeout(Some(timeout)).expect("a timeout above zero");
        self.stream.set_write_timeout(Some(timeout)).expect("a timeout above zero");
    }

    #[track_caller]
    pub fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.call(&Request::post(path, body))
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.call(&Request::get(path))
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        let request =
            headers.iter().fold(Request::new(method, path), |request, (name, value)| request.header(name, value));
        self.call(&request.body(body))
    }

    #[track_caller]
    pub fn call(&mut self, request: &Request) -> Response {
        self.send_raw(&request.to_bytes());
        self.read_response_to(&request.method)
    }

    pub fn try_call(&mut self, request: &Request) -> io::Result<Response> {
        self.stream.write_all(&request.to_bytes())?;
        self.try_read_response_to(&request.method)
    }

    /// Writes all of them before it reads the first response (from another thread, so that neither side waits for the other).
    #[track_caller]
    pub fn pipeline(&mut self, requests: &[Request]) -> Vec<Response> {
        let bytes: Vec<u8> = requests.iter().flat_map(Request::to_bytes).collect();
        let mut writer = self.stream.try_clone().expect("the connection");
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&bytes).expect("pipelined requests"));
            requests.iter().map(|request| self.read_response_to(&request.method)).collect()
        })
    }

    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("bytes to nginx");
    }

    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// `size` bytes at a time with a pause between them.
    #[track_caller]
    pub fn send_slowly(&mut self, bytes: &[u8], size: usize, pause: Duration) {
        for part in bytes.chunks(size) {
            self.send_raw(part);
            std::thread::sleep(pause);
        }
    }

    /// A request whose body goes out as these chunks.
    #[track_caller]
    pub fn post_chunked(&mut self, path: &str, chunks: &[&[u8]]) -> Response {
        self.start_chunked(&Request::post(path, ""));
        for chunk in chunks {
            self.send_chunk(chunk);
        }
        self.end_chunks();
        self.read_response()
    }

    /// The head of a request with `Transfer-Encoding: chunked`; [`Http::send_chunk`] and [`Http::end_chunks`] follow.
    #[track_caller]
    pub fn start_chunked(&mut self, request: &Request) {
        self.send_raw(&request.clone().header("Transfer-Encoding", "chunked").head());
    }

    /// An empty one would end the body and is left out.
    #[track_caller]
    pub fn send_chunk(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend(bytes);
            chunk.extend(b"\r\n");
            self.send_raw(&chunk);
        }
    }

    #[track_caller]
    pub fn end_chunks(&mut self) {
        self.send_raw(b"0\r\n\r\n");
    }

    /// Sends the head with `Expect: 100-continue`, and the body once nginx asks for it; a final response may come instead.
    #[track_caller]
    pub fn call_expecting_continue(&mut self, request: &Request) -> Response {
        self.send_raw(&request.clone().header("Expect", "100-continue").head());
        let (status, headers) = self.read_head().unwrap_or_else(|error| self.fail(error));
        if status >= 200 {
            let body = self.read_body(status, &headers, &request.method).unwrap_or_else(|error| self.fail(error));
            return Response { status, headers, body, interim: Vec::new() };
        }
        self.send_raw(&request.body);
        let mut response = self.read_response_to(&request.method);
        response.interim.insert(0, status);
        response
    }

    /// The next response, to anything but HEAD.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("POST")
    }

    #[track_caller]
    pub fn read_response_to(&mut self, method: &str) -> Response {
        self.try_read_response_to(method).unwrap_or_else(|error| self.fail(error))
    }

    /// An error when the connection ends or nothing comes in time.
    pub fn try_read_response(&mut self) -> io::Result<Response> {
        self.try_read_response_to("POST")
    }

    fn try_read_response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.read_head()?;
            if status < 200 {
                interim.push(status);
                continue;
            }
            let body = self.read_body(status, &headers, method)?;
            return Ok(Response { status, headers, body, interim });
        }
    }

    /// Nothing more arrives and the connection ends, by FIN or RST.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().is_err_and(|error| !is_timeout(&error))
    }

    /// Nothing arrives for this long, and the connection stays.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        let before = self.timeout;
        self.set_timeout(time);
        let silent = self.buffer.is_empty() && self.fill().is_err_and(|error| is_timeout(&error));
        self.set_timeout(before);
        silent
    }

    /// FIN; responses can still be read.
    pub fn half_close(&mut self) {
        match self.stream.shutdown(Shutdown::Write) {
            // nginx may have reset it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => {}
            done => done.expect("an open connection"),
        }
    }

    /// RST, and the connection is gone.
    pub fn abort(self) {
        system::reset(self.stream.as_fd());
    }

    #[track_caller]
    fn fail(&self, error: io::Error) -> ! {
        let arrived = String::from_utf8_lossy(&self.buffer);
        if is_timeout(&error) {
            panic!("no whole response within {:?}; so far {arrived:?}", self.timeout);
        }
        panic!("no whole response: {error}; so far {arrived:?}");
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let end = self.find(b"\r\n\r\n")?;
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        parse_head(&String::from_utf8_lossy(&head)).ok_or_else(|| malformed(&head))
    }

    fn read_body(&mut self, status: u16, headers: &[(String, String)], method: &str) -> io::Result<Vec<u8>> {
        let header = |name: &str| {
            headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        };
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(Vec::new());
        }
        if header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks();
        }
        if let Some(length) = header("Content-Length") {
            let length = length.parse().map_err(|_| malformed(length.as_bytes()))?;
            return self.read_exactly(length);
        }
        loop {
            match self.fill() {
                Ok(()) => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.find(b"\r\n")?;
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let size = std::str::from_utf8(&line[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let size = size.ok_or_else(|| malformed(&line))?;
            let chunk = self.read_exactly(size + 2)?;
            if !chunk.ends_with(b"\r\n") {
                return Err(malformed(&chunk));
            }
            if size == 0 {
                return Ok(body);
            }
            body.extend(&chunk[..size]);
        }
    }

    fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn find(&mut self, mark: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(at);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let n = self.stream.read(&mut chunk)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "nginx closed the connection"));
        }
        self.buffer.extend(&chunk[..n]);
        Ok(())
    }
}

fn malformed(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a response: {:?}", String::from_utf8_lossy(bytes)))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
