//! curl, for what the plain client does not speak: HTTP/2 (`--http2-prior-knowledge`), multipart forms, TLS.

use super::message::parse_head;
use std::process::Command;

#[derive(Debug)]
pub struct CurlOutput {
    /// 0 when there was no response.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// curl's own exit code and message.
    pub exit: i32,
    pub stderr: String,
}

impl CurlOutput {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON in a {}: {error}: {:?}", self.status, self.text()))
    }
}

/// One transfer, with no configuration of the user's and bounded to 30 s.
#[track_caller]
pub fn curl(args: &[&str]) -> CurlOutput {
    let output = Command::new("curl")
        .args(["-q", "-sS", "-i", "--noproxy", "*", "--max-time", "30"])
        .args(args)
        .output()
        .expect("curl runs");
    let mut rest = output.stdout.as_slice();
    let (mut status, mut headers) = (0, Vec::new());
    // The heads of 1xx responses come first.
    while status < 200 {
        let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
            break;
        };
        let Some(head) = parse_head(&String::from_utf8_lossy(&rest[..end])) else {
            break;
        };
        (status, headers) = head;
        rest = &rest[end + 4..];
    }
    CurlOutput {
        status,
        headers,
        body: rest.to_vec(),
        exit: output.status.code().unwrap_or(-1),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
