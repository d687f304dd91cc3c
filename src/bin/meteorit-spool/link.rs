//! A connection to Redis that blocks: commands go out, and what the module's own step `reply` makes of the answers comes back.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ngx_http_meteorit_module::reply::{Parser, Reply, Transaction, Verdict, printable};
use ngx_http_meteorit_module::url::{self, Server};

use crate::Result;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a reply, and for sending: a command may take its time, but not for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read at a time, in bytes.
const CHUNK: usize = 16 * 1024;

pub struct Link {
    stream: Box<dyn Stream>,
    parser: Parser,
    /// What was received and is not read begins at `start`.
    received: Vec<u8>,
    start: usize,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Link {
    /// Connects, and signs in as the URL tells.
    pub fn open(url: &str) -> Result<Link> {
        // Told as nginx tells it, and never with the URL.
        let server = url::parse(url.as_bytes()).map_err(|e| format!("the URL behind --to {e}"))?;
        let stream = connect(&server.endpoint).map_err(|e| format!("cannot connect to {}: {e}", server.endpoint))?;
        let mut link = Link { stream, parser: Parser::new(), received: Vec::new(), start: 0 };
        link.sign_in(&server).map_err(|reason| format!("{} does not take us: {reason}", server.endpoint))?;
        Ok(link)
    }

    fn sign_in(&mut self, server: &Server) -> std::result::Result<(), String> {
        let mut commands = Vec::new();
        if let Some(password) = &server.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(server.username.as_ref()).arg(password);
            commands.push(auth);
        }
        if server.database != 0 {
            commands.push(redis::cmd("SELECT").arg(server.database).to_owned());
        }
        for command in commands {
            self.send(&command.get_packed_command()).map_err(|e| e.to_string())?;
            let (verdict, text) = self.answer(1)?;
            if verdict != Verdict::Stored {
                return Err(text);
            }
        }
        Ok(())
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads what answers a command of so many replies: the verdict, and the text of the error that decides, fit for a log.
    /// An error says why there is no answer, nor will be.
    pub fn answer(&mut self, replies: u16) -> std::result::Result<(Verdict, String), String> {
        let mut transaction = Transaction::default();
        loop {
            let settled = self.next(|reply| match replies {
                1 => Some((reply.verdict(), reply.error().unwrap_or_default().into())),
                _ => transaction.take(replies.into(), reply),
            })?;
            if let Some((verdict, text)) = settled {
                return Ok((verdict, printable(&text)));
            }
        }
    }

    fn next<T>(&mut self, take: impl FnOnce(&Reply) -> T) -> std::result::Result<T, String> {
        loop {
            let rest = self.received.get(self.start..).unwrap_or_default();
            if let Some(reply) = self.parser.next(rest).map_err(|e| e.to_string())? {
                let taken = take(&reply);
                self.start += reply.len();
                return Ok(taken);
            }
            self.received.drain(..self.start);
            self.start = 0;
            let mut chunk = [0; CHUNK];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the connection was closed".into()),
                Ok(count) => self.received.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

fn connect(endpoint: &str) -> io::Result<Box<dyn Stream>> {
    if let Some(path) = endpoint.strip_prefix("unix:") {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        return Ok(Box::new(stream));
    }
    let mut error = io::ErrorKind::NotFound.into();
    for address in endpoint.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(e) => error = e,
        }
    }
    Err(error)
}
