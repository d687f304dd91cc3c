//! In whatever form a body reaches nginx, Redis gets its bytes, all of them and no others.

mod common;
// Beside this file it would be a test of its own.
#[path = "bodies/http2.rs"]
mod http2;

use common::*;
use http2::Http2;
use std::time::Duration;

/// client_body_buffer_size of most tests here, in bytes.
const BUFFER: usize = 8 * 1024;
const MAX_EVENT: usize = 256 * 1024;
const MAX_BODY: usize = 512 * 1024;

/// The events go where a list and a stream can each tell what they got.
const COMMANDS: &str =
    "meteorit_pass REDIS; meteorit_command RPUSH list $event; meteorit_command XADD stream * data $event;";
/// What nginx logs when a body does not fit into memory.
const BUFFERED: &str = "a client request body is buffered to a temporary file";

impl Site {
    fn start() -> Site {
        Site::with("")
    }

    /// With more directives in the location.
    fn with(directives: &str) -> Site {
        let location = format!(
            "client_max_body_size {MAX_BODY};\nmeteorit_max_event_size {MAX_EVENT};\n\
             location /events {{ {COMMANDS} {directives} }}"
        );
        Site::of(Nginx::builder().http2().body_buffer(&BUFFER.to_string()), &location)
    }

    /// What was stored since the last look, in order.
    #[track_caller]
    fn take(&self) -> Vec<Vec<u8>> {
        let list = self.redis.list("list");
        let stream = self.redis.stream("stream").into_iter().map(|(_, fields)| fields);
        let expected = list.iter().map(|event| vec![b"data".to_vec(), event.clone()]);
        assert!(stream.eq(expected), "the stream and the list differ");
        self.redis.cmd(&["DEL", "list", "stream"]);
        list
    }

    #[track_caller]
    fn assert_stored(&self, events: &[impl AsRef<[u8]>]) {
        let stored = self.take();
        assert_eq!(stored.len(), events.len(), "the number of events");
        for (stored, event) in stored.iter().zip(events) {
            let event = event.as_ref();
            let differs = stored.iter().zip(event).position(|(a, b)| a != b);
            assert!(stored == event, "{} bytes became {}, first other at {differs:?}", event.len(), stored.len());
        }
    }
}

/// An event of exactly this many bytes, no two parts of which are alike.
fn event_of(size: usize) -> Vec<u8> {
    let (head, tail) = (br#"{"text":""#, br#""}"#);
    let room = size.checked_sub(head.len() + tail.len()).expect("a size above 11");
    let numbers = (0u32..).flat_map(|n| format!("{n:x}.").into_bytes()).take(room);
    head.iter().copied().chain(numbers).chain(tail.iter().copied()).collect()
}

#[test]
fn a_body_that_came_with_its_header() {
    let site = Site::start();
    let event = event_of(300);
    assert_eq!(site.http().post("/events", &event).status, 204);
    site.assert_stored(&[event]);
}

#[test]
fn a_body_that_comes_after_its_header() {
    let site = Site::start();
    for size in [12, 900, BUFFER, 3 * BUFFER] {
        let event = event_of(size);
        let mut http = site.http();
        http.send_raw(format!("POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").as_bytes());
        assert!(http.is_silent(Duration::from_millis(30)));
        http.send_raw(&event);
        assert_eq!(http.read_response().status, 204);
        site.assert_stored(&[event]);
    }
}

#[test]
fn a_body_cut_in_two_anywhere() {
    let site = Site::start();
    let mut http = site.http();
    let event = event_of(40);
    let bytes = Request::post("/events", &event).to_bytes();
    for cut in 1..bytes.len() {
        http.send_raw(&bytes[..cut]);
        http.send_raw(&bytes[cut..]);
        assert_eq!(http.read_response().status, 204, "cut at {cut}");
    }
    site.assert_stored(&vec![event; bytes.len() - 1]);
}

#[test]
fn a_body_of_any_size_around_the_buffers() {
    let site = Site::start();
    let mut http = site.http();
    // 1 kB is client_header_buffer_size; nginx takes up to a quarter more than the buffer into memory.
    let edges = [1024, BUFFER, BUFFER + BUFFER / 4, 2 * BUFFER, 4 * BUFFER, 65536, MAX_EVENT - 1];
    for size in edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]) {
        let event = event_of(size);
        assert_eq!(http.post("/events", &event).status, 204, "{size} bytes");
        site.assert_stored(&[event]);
    }
}

#[test]
fn a_body_larger_than_the_buffer_goes_through_a_temporary_file() {
    let site = Site::start();
    let mut http = site.http();
    let small = event_of(BUFFER);
    assert_eq!(http.post("/events", &small).status, 204);
    assert_eq!(site.nginx.count_log(BUFFERED), 0);
    let (large, chunked) = (event_of(2 * BUFFER), event_of(2 * BUFFER + 1));
    assert_eq!(http.post("/events", &large).status, 204);
    assert_eq!(site.nginx.count_log(BUFFERED), 1);
    assert_eq!(http.post_chunked("/events", &[&chunked]).status, 204);
    assert_eq!(site.nginx.count_log(BUFFERED), 2);
    site.assert_stored(&[small, large, chunked]);
}

#[test]
fn a_body_in_a_file_only() {
    for (mode, files) in [("on", 5), ("clean", 0)] {
        let site = Site::with(&format!("client_body_in_file_only {mode};"));
        let mut http = site.http();
        let events: Vec<Vec<u8>> = [12, 300, BUFFER, 3 * BUFFER].map(event_of).into();
        for event in &events {
            assert_eq!(http.post("/events", event).status, 204);
        }
        let chunked = event_of(500);
        assert_eq!(http.post_chunked("/events", &[&chunked[..7], &chunked[7..]]).status, 204);
        assert_eq!(site.nginx.count_log(BUFFERED), 5);
        site.assert_stored(&[&events[..], &[chunked]].concat());
        drop(http);
        let left = || std::fs::read_dir(site.nginx.dir().join("temp/client_body")).unwrap().count();
        eventually(Duration::from_secs(5), || left() == files);
    }
}

#[test]
fn chunks_of_one_byte() {
    let site = Site::start();
    let event = event_of(700);
    let chunks: Vec<&[u8]> = event.chunks(1).collect();
    let mut http = site.http();
    assert_eq!(http.post_chunked("/events", &chunks).status, 204);
    // The same in one write, so that nginx finds them all at once.
    let mut request = b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunks.iter().for_each(|chunk| request.extend([b"1\r\n", *chunk, b"\r\n"].concat()));
    request.extend(b"0\r\n\r\n");
    http.send_raw(&request);
    assert_eq!(http.read_response().status, 204);
    site.assert_stored(&[event.clone(), event]);
}

#[test]
fn chunks_of_odd_sizes() {
    let site = Site::start();
    let mut http = site.http();
    let event = event_of(5 * BUFFER + 3);
    let odd = [2, 3, 7, 129, 1000, 1023, 1025, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER + 1, 5 * BUFFER];
    for size in odd {
        let chunks: Vec<&[u8]> = event.chunks(size).collect();
        assert_eq!(http.post_chunked("/events", &chunks).status, 204, "chunks of {size}");
        site.assert_stored(&[&event]);
    }
    let mut rest = event.as_slice();
    let mut growing = Vec::new();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(growing.len() + 1));
        growing.push(chunk);
        rest = after;
    }
    assert_eq!(http.post_chunked("/events", &growing).status, 204);
    site.assert_stored(&[&event]);
}

#[test]
fn chunks_with_extensions_and_a_trailer() {
    let site = Site::start();
    let mut http = site.http();
    http.send_raw(
        b"POST /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
          4;name=value\r\n{\"a\"\r\n00000003\r\n:1}\r\n0\r\nX-Trailer: yes\r\n\r\n",
    );
    assert_eq!(http.read_response().status, 204);
    assert_eq!(http.post("/events", "{}").status, 204);
    site.assert_stored(&[r#"{"a":1}"#, "{}"]);
}

#[test]
fn a_body_beyond_client_max_body_size_is_refused_by_nginx() {
    let site = Site::start();
    let event = event_of(MAX_BODY + 1);
    let by_length = site.http().post("/events", &event);
    let mut http = site.http();
    http.start_chunked(&Request::post("/events", ""));
    // nginx answers before it has read everything, and closes.
    for chunk in event.chunks(64 * 1024) {
        let chunk = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        if http.try_send_raw(&chunk).is_err() {
            break;
        }
    }
    let by_chunks = http.read_response();
    for response in [by_length, by_chunks] {
        assert_eq!((response.status, response.header("Content-Type")), (413, Some("text/html")));
    }
    assert_eq!(site.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_body_beyond_the_largest_event_is_refused_by_us() {
    let site = Site::start();
    let mut http = site.http();
    let (fits, too_large) = (event_of(MAX_EVENT), event_of(MAX_EVENT + 1));
    let chunks: Vec<&[u8]> = too_large.chunks(50_000).collect();
    for response in [http.post("/events", &too_large), http.post_chunked("/events", &chunks)] {
        assert_eq!((response.status, response.header("Content-Type")), (413, Some("application/problem+json")));
        assert!(response.json()["detail"].as_str().unwrap().contains(&MAX_EVENT.to_string()), "{}", response.text());
    }
    assert_eq!(http.post("/events", &fits).status, 204);
    let chunks: Vec<&[u8]> = fits.chunks(50_000).collect();
    assert_eq!(http.post_chunked("/events", &chunks).status, 204);
    site.assert_stored(&[&fits, &fits]);
}

#[test]
fn a_client_that_waits_to_be_told_to_continue() {
    let site = Site::start();
    let mut http = site.http();
    let events = [12, 500, 3 * BUFFER].map(event_of);
    for event in &events {
        let response = http.call_expecting_continue(&Request::post("/events", event));
        assert_eq!((response.status, response.interim), (204, vec![100]));
    }
    site.assert_stored(&events);
    for (size, media_type) in [(MAX_BODY + 1, "text/html"), (MAX_EVENT + 1, "application/problem+json")] {
        let response = site.http().call_expecting_continue(&Request::post("/events", event_of(size)));
        assert_eq!((response.status, response.header("Content-Type")), (413, Some(media_type)));
    }
    let wrong_type = Request::new("POST", "/events").header("Content-Type", "image/png").body(event_of(100));
    assert_eq!(site.http().call_expecting_continue(&wrong_type).status, 415);
    assert_eq!(site.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn twenty_requests_in_one_write_each_with_its_own_answer() {
    let site = Site::start();
    let (large, wide) = (event_of(2 * BUFFER), event_of(BUFFER));
    let kinds: [(&[u8], u16); 5] = [(b"{\"n\":%}", 204), (b"{\"n\":", 400), (&large, 204), (b"[%]", 422), (&wide, 204)];
    let (mut bytes, mut stored) = (Vec::new(), Vec::new());
    for n in 0..20 {
        let (body, status) = kinds[n % kinds.len()];
        let body = match body.len() {
            ..100 => String::from_utf8_lossy(body).replace('%', &n.to_string()).into_bytes(),
            _ => body.to_vec(),
        };
        bytes.extend(Request::post(&format!("/events?{n}"), &body).to_bytes());
        if status == 204 {
            stored.push(body);
        }
    }
    let mut http = site.http();
    http.send_raw(&bytes);
    for n in 0..20 {
        let (_, status) = kinds[n % kinds.len()];
        let response = http.read_response();
        assert_eq!(response.status, status, "answer {n}: {}", response.text());
    }
    assert!(http.is_silent(Duration::from_millis(20)));
    site.assert_stored(&stored);
}

#[test]
fn a_slow_sender() {
    let site = Site::start();
    let event = event_of(200);
    let mut http = site.http();
    http.send_slowly(&Request::post("/events", &event).to_bytes(), 1, Duration::from_millis(1));
    assert_eq!(http.read_response().status, 204);
    let large = event_of(3 * BUFFER);
    http.send_slowly(&Request::post("/events", &large).to_bytes(), 701, Duration::from_millis(1));
    assert_eq!(http.read_response().status, 204);
    site.assert_stored(&[event, large]);
}

#[test]
fn a_sender_that_closes_its_side_behind_the_body() {
    let site = Site::start();
    let event = event_of(100);
    let mut http = site.http();
    http.send_raw(&Request::post("/events", &event).to_bytes());
    http.half_close();
    assert_eq!(http.read_response().status, 204);
    site.assert_stored(&[event]);
}

#[test]
fn a_sender_that_breaks_off_stores_nothing() {
    let site = Site::start();
    let event = event_of(3 * BUFFER);
    let bytes = Request::post("/events", &event).to_bytes();
    for end in [bytes.len() - 1, bytes.len() / 2, bytes.len() - event.len()] {
        let mut http = site.http();
        http.send_raw(&bytes[..end]);
        http.abort();
    }
    eventually(Duration::from_secs(5), || site.nginx.access_log().lines().count() == 3);
    assert_eq!(site.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn an_empty_body_is_no_event() {
    let site = Site::start();
    let mut http = site.http();
    for raw in [
        "Content-Length: 0\r\n\r\n",
        "\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 4\r\n\r\n \t\r\n",
    ] {
        http.send_raw(format!("POST /events HTTP/1.1\r\nHost: a\r\n{raw}").as_bytes());
        let response = http.read_response();
        assert_eq!(response.status, 400, "{raw:?}");
        assert!(response.json()["detail"].as_str().unwrap().starts_with("empty body"), "{}", response.text());
    }
    assert_eq!(site.take(), Vec::<Vec<u8>>::new());
}

#[test]
fn white_space_around_the_object_is_kept() {
    let site = Site::start();
    let events = ["\n{}", "{} ", " \t\r\n{ \"a\" :\n[ ] , \"b\":\t1 }\r\n\r\n", "{}\n"];
    let mut http = site.http();
    for event in events {
        assert_eq!(http.post("/events", event).status, 204);
    }
    site.assert_stored(&events);
}

#[test]
fn every_byte_of_an_event_is_kept() {
    let site = Site::start();
    let events: [&[u8]; 18] = [
        b"{}",
        br#"{"escapes":"\"\\\/\b\f\n\r\t\u0041\u00e9"}"#,
        br#"{"nul":"a\u0000b","\u0000":0}"#,
        "{\"text\":\"caf\u{e9} \u{20ac} \u{1f680}\u{10ffff}\"}".as_bytes(),
        br#"{"pair":"\ud83d\ude80","upper":"\uD83D\uDE80"}"#,
        br#"{"max":9223372036854775807,"min":-9223372036854775808,"u":18446744073709551615}"#,
        br#"{"wide":123456789012345678901234567890.123456789012345678901234567890}"#,
        br#"{"a":1.0,"b":1e2,"c":1E+2,"d":-0,"e":-0.0,"f":0.10}"#,
        br#"{"array":[],"object":{},"nested":[[],[{}]]}"#,
        br#"{"z":1,"a":2,"10":3,"9":4,"Z":5}"#,
        br#"{ "a" : 1 ,   "b":[ 1,2 , 3 ]}"#,
        b"{\r\n\"$5\"\r\n:\r\n1\r\n}",
        br#"{"resp":"\r\n$5\r\nhello\r\n*1\r\n$8\r\nFLUSHALL\r\n"}"#,
        br#"{"resp":"+OK -ERR :1 $5 *3 $-1"}"#,
        br#"{"variables":"$event ${event} $arg_x % %s %%","html":"<a href='x'>&amp;</a>"}"#,
        "{\"del\":\"\u{7f}\u{80}\u{9f}\u{ad}\u{2028}\u{feff}\u{fffe}\"}".as_bytes(),
        br#"{"":"","a":null,"b":true,"c":false}"#,
        br#"{"a/b":1,"m~n":2,"a b":3,"'":4}"#,
    ];
    let mut http = site.http();
    for event in events {
        let response = http.post("/events", event);
        assert_eq!(response.status, 204, "{}: {}", String::from_utf8_lossy(event), response.text());
    }
    site.assert_stored(&events);
}

#[test]
fn put_stores_as_post_does() {
    let site = Site::start();
    let mut http = site.http();
    for size in [12, 3 * BUFFER] {
        let event = event_of(size);
        assert_eq!(http.request("PUT", "/events", &[("Content-Type", "application/json")], &event).status, 204);
        site.assert_stored(&[event]);
    }
}

#[test]
fn the_connection_is_usable_after_an_error() {
    let site = Site::start();
    let json = [("Content-Type", "application/json")];
    let large = event_of(5 * BUFFER);
    let too_large = event_of(MAX_EVENT + 1);
    let mut http = site.http();
    for (method, headers, body, status) in [
        ("POST", &json[..], &b"{\"a\":}"[..], 400),
        ("POST", &json, &large[1..], 400),
        ("POST", &json, &too_large, 413),
        ("POST", &[("Content-Type", "text/html")], b"<p>", 415),
        ("POST", &[("Content-Type", "text/html")], &large, 415),
        ("POST", &json, b"[]", 422),
        ("GET", &[], b"", 405),
        ("GET", &json, b"{}", 405),
        ("DELETE", &json, &large, 405),
        ("PATCH", &json, b"{}", 405),
        ("HEAD", &[], b"", 405),
    ] {
        let response = http.request(method, "/events", headers, body);
        assert_eq!((response.status, response.closes()), (status, false), "{method} {headers:?}");
        assert_eq!(http.post("/events", &large).status, 204, "after {status} to {method} {headers:?}");
        site.assert_stored(&[&large]);
    }
    // The same with chunks, and with the next request right behind the refused body.
    http.send_raw(
        b"DELETE /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\
          POST /events HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\
          POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!([405, 415, 204], [(); 3].map(|()| http.read_response().status));
    site.assert_stored(&["{}"]);
}

#[test]
fn http2_one_after_another() {
    let site = Site::start();
    let url = format!("http://127.0.0.1:{}/events", site.nginx.h2_port());
    let path = site.nginx.dir().join("event");
    for size in [12, 300, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER, MAX_EVENT] {
        let event = event_of(size);
        std::fs::write(&path, &event).unwrap();
        let data = format!("@{}", path.display());
        let output = curl(&["--http2-prior-knowledge", "--data-binary", &data, "-H", "Content-Type:", &url]);
        assert_eq!(output.status, 204, "{size} bytes: {output:?}");
        site.assert_stored(&[event]);
    }
}

#[test]
fn http2_many_at_once_on_one_connection() {
    let site = Site::start();
    let mut http = Http2::connect(site.nginx.h2_port());
    let events: Vec<Vec<u8>> = (0..40).map(|n| event_of(3 * BUFFER + n)).collect();
    let streams: Vec<u32> = events.iter().map(|_| http.start("POST", "/events")).collect();
    for part in 0..4 {
        for (stream, event) in streams.iter().zip(&events) {
            let frame = event.chunks(7000).nth(part).unwrap();
            http.data(*stream, frame, None, part == 3);
        }
    }
    for stream in streams {
        assert_eq!(http.status(stream), 204, "stream {stream}");
    }
    let mut stored = site.take();
    stored.sort_by_key(Vec::len);
    assert!(stored == events);
}

#[test]
fn http2_beyond_the_limits() {
    let site = Site::start();
    for size in [MAX_EVENT + 1, MAX_BODY + 1] {
        // By its announced length, before a byte of it is sent, and by what comes.
        let mut http = Http2::connect(site.nginx.h2_port());
        let announced = http.announce("POST", "/events", size);
        assert_eq!(http.status(announced), 413);
        let sent = http.start("POST", "/events");
        let event = event_of(size);
        let mut frames = event.chunks(10_000).peekable();
        while let Some(frame) = frames.next() {
            http.data(sent, frame, None, frames.peek().is_none());
        }
        assert_eq!(http.status(sent), 413);
        let next = http.start("POST", "/events");
        http.data(next, b"{}", None, true);
        assert_eq!(http.status(next), 204);
        site.assert_stored(&["{}"]);
        // The larger two are nginx's to refuse.
        assert_eq!(site.nginx.count_log("event-too-large"), 2);
    }
}

#[test]
fn http2_data_frames_of_any_size_interleaved() {
    let site = Site::start();
    let mut http = Http2::connect(site.nginx.h2_port());
    let events: Vec<Vec<u8>> = (0..10).map(|n| event_of(700 + n)).collect();
    let streams: Vec<u32> = events.iter().map(|_| http.start("POST", "/events")).collect();
    // Frames of 1, 2, 3, ... bytes, those of each stream among those of the others, some padded, some empty.
    for (turn, from) in (0..701usize).step_by(50).enumerate() {
        for (n, event) in events.iter().enumerate() {
            let part = &event[from.min(event.len())..(from + 50).min(event.len())];
            for (i, frame) in part.chunks(n + 1).enumerate() {
                http.data(streams[n], frame, if (turn + i) % 3 == 0 { Some(i as u8) } else { None }, false);
            }
            http.data(streams[n], b"", None, false);
        }
    }
    for (n, event) in events.iter().enumerate() {
        let rest = &event[event.len().min(750)..];
        http.data(streams[n], rest, None, true);
    }
    for stream in &streams {
        assert_eq!(http.status(*stream), 204, "stream {stream}");
    }
    let mut stored = site.take();
    stored.sort();
    let mut events = events;
    events.sort();
    assert_eq!(stored, events);
}

#[test]
fn http2_each_stream_gets_its_own_answer() {
    let site = Site::start();
    let mut http = Http2::connect(site.nginx.h2_port());
    let kinds = [("POST", "{}", 204), ("POST", "{", 400), ("GET", "", 405), ("PUT", "[]", 422), ("POST", "", 400)];
    let requests: Vec<_> = kinds.iter().cycle().take(50).collect();
    let streams: Vec<u32> = requests.iter().map(|(method, ..)| http.start(method, "/events")).collect();
    for (stream, (_, body, _)) in streams.iter().zip(&requests) {
        http.data(*stream, body.as_bytes(), None, true);
    }
    for (stream, (method, body, status)) in streams.iter().zip(&requests) {
        assert_eq!(http.status(*stream), *status, "{method} {body:?}");
    }
    site.assert_stored(&["{}"; 10]);
}

#[test]
fn http2_a_stream_that_is_reset_stores_nothing() {
    let site = Site::start();
    let mut http = Http2::connect(site.nginx.h2_port());
    let cut = http.start("POST", "/events");
    http.data(cut, b"{\"half\":", None, false);
    http.reset(cut);
    let whole = http.start("POST", "/events");
    http.data(whole, b"{}", None, true);
    assert_eq!(http.status(whole), 204);
    site.assert_stored(&["{}"]);
}
