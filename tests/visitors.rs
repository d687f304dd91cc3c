//! Visitors are told apart without being known: `$meteorit_masked_addr`, and the keyed hashes of `meteorit_hash`.

mod common;

use common::*;
use std::process::Command;

const KEY: &str = "0123456789abcdef-secret";

impl Site {
    fn start(text: &str) -> Site {
        Site::with(text, |builder| builder)
    }

    fn with(text: &str, change: impl FnOnce(NginxBuilder) -> NginxBuilder) -> Site {
        Site::of(change(Nginx::builder().log_format("$uri [$meteorit_masked_addr]")), text)
    }

    /// What an event adds to `list`.
    #[track_caller]
    fn listed(&self, request: &Request) -> Vec<String> {
        let response = Http::connect(self.nginx.port()).call(request);
        assert_eq!(response.status, 204, "{}", response.text());
        self.taken("list")
    }
}

#[test]
fn an_ipv4_address_keeps_its_first_24_bits() {
    let site = Site::start(
        "location / {
             meteorit_field addr $meteorit_masked_addr;
             meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_masked_addr $remote_addr $event;
             meteorit_command PFADD visitors:$meteorit_masked_addr x;
         }",
    );
    assert_eq!(site.listed(&Request::post("/", "{}")), ["127.0.0.0", "127.0.0.1", r#"{"addr":"127.0.0.0"}"#]);
    assert_eq!(site.redis.ask::<u64>(&["PFCOUNT", "visitors:127.0.0.0"]), 1);
    assert_eq!(get(site.nginx.port(), "/rejected").status, 405);
    assert_eq!(site.nginx.wait_access("/rejected"), "/rejected [127.0.0.0]");
}

#[test]
fn an_ipv6_address_keeps_its_first_48_bits() {
    let site = Site::start(
        "server {
             listen 127.0.0.1:%PORT%;
             listen [::1]:%PORT2%;
             listen [::]:%PORT3% ipv6only=off;
             location / { meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_masked_addr $remote_addr; }
         }",
    );
    let send = |host: &str, n: usize| {
        let url = format!("http://{host}:{}/", site.nginx.port_n(n));
        let response = curl(&["-g", "-H", "Content-Type: application/json", "-d", "{}", &url]);
        assert_eq!(response.status, 204, "{}", response.stderr);
        site.taken("list")
    };
    assert_eq!(send("[::1]", 2), ["::", "::1"]);
    assert_eq!(send("[::1]", 3), ["::", "::1"]);
    // A socket of both families gives IPv4 addresses this form.
    assert_eq!(send("127.0.0.1", 3), ["127.0.0.0", "::ffff:127.0.0.1"]);
}

#[test]
fn the_address_is_the_one_that_realip_finds() {
    let site = Site::start(
        "set_real_ip_from 127.0.0.1;
         real_ip_header X-Forwarded-For;
         location / { meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_masked_addr; }",
    );
    for (addr, masked) in [
        ("203.0.113.77", "203.0.113.0"),
        ("203.0.113.0", "203.0.113.0"),
        ("255.255.255.254", "255.255.255.0"),
        ("2001:db8:1:2::3", "2001:db8:1::"),
        ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", "2001:db8:1::"),
        ("2001:0db8:ABCD:0:0:0:0:1", "2001:db8:abcd::"),
        ("fe80::1", "fe80::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("198.51.100.1, 203.0.113.77", "203.0.113.0"),
        ("nonsense", "127.0.0.0"),
        ("unix:", "127.0.0.0"),
    ] {
        let request = Request::post("/", "{}").header("X-Forwarded-For", addr);
        assert_eq!(site.listed(&request), [masked], "{addr}");
    }
}

#[test]
fn a_client_of_a_unix_socket_has_no_address() {
    let site = Site::start(
        "server {
             listen 127.0.0.1:%PORT%;
             listen unix:%DIR%/http.sock;
             location / { meteorit_pass REDIS; meteorit_command RPUSH list \"[$meteorit_masked_addr]\"; }
         }",
    );
    let socket = site.nginx.dir().join("http.sock").display().to_string();
    let json = "Content-Type: application/json";
    assert_eq!(curl(&["--unix-socket", &socket, "-H", json, "-d", "{}", "http://localhost/"]).status, 204);
    assert_eq!(site.taken("list"), ["[]"]);
}

/// HMAC-SHA256 in hexadecimal, by Python.
#[track_caller]
fn hmac(key: &[u8], values: &[&str]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let script = "import hashlib, hmac, sys
key, text = map(bytes.fromhex, sys.argv[1:])
sys.stdout.write(hmac.new(key, text, hashlib.sha256).hexdigest())";
    let output = Command::new("python3")
        .args(["-c", script, &hex(key), &hex(values.join("\0").as_bytes())])
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn a_keyed_hash_is_the_hmac_of_the_values() {
    let site = Site::with(
        "location / {
             meteorit_hash $one key_file=%DIR%/visitor.key $event_user;
             meteorit_hash $two key_file=visitor.key $event_user $http_user_agent;
             meteorit_hash $literal key_file=visitor.key \"a b\" \"$event_user-$event_n\" \"\";
             meteorit_pass REDIS;
             meteorit_command RPUSH list $one $two $literal;
             meteorit_command SADD visitors:$one x;
         }",
        |builder| builder.file("visitor.key", format!("{KEY}\n")),
    );
    let hash = |values: &[&str]| hmac(KEY.as_bytes(), values);
    for (user, text) in [(r#""u1""#, "u1"), (r#""caf\u00e9 {x}\u0000y""#, "café {x}\0y"), ("17", "17"), ("null", "")] {
        let request = Request::post("/", format!("{{\"user\":{user},\"n\":1}}")).header("User-Agent", "agent/1");
        let expected = [hash(&[text]), hash(&[text, "agent/1"]), hash(&["a b", &format!("{text}-1"), ""])];
        assert_eq!(site.listed(&request), expected, "{user}");
        assert_eq!(site.redis.len(&format!("visitors:{}", expected[0])), 1);
    }
}

#[test]
fn where_one_value_ends_and_the_next_begins_matters() {
    let site = Site::with(
        "location / {
             meteorit_hash $visitor key_file=visitor.key $arg_a $arg_b;
             meteorit_pass REDIS; meteorit_command RPUSH list $visitor;
         }",
        |builder| builder.file("visitor.key", KEY),
    );
    let hashes = ["/?a=x&b=yz", "/?a=xy&b=z", "/?a=xyz", "/?b=xyz"].map(|path| site.listed(&Request::post(path, "{}")));
    for (n, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..n].contains(hash), "{hashes:?}");
    }
    assert_eq!(hashes[0], [hmac(KEY.as_bytes(), &["x", "yz"])]);
}

#[test]
fn the_line_end_of_a_key_file_is_no_part_of_the_key() {
    let inner = "binary \n\u{e9}\r\n key of 20".as_bytes();
    let files: [(&str, Vec<u8>); 5] = [
        ("bare", KEY.into()),
        ("unix", format!("{KEY}\n").into()),
        ("dos", format!("{KEY}\r\n").into()),
        ("blank", format!("{KEY} ").into()),
        ("inner", inner.into()),
    ];
    let location = |(name, _): &(&str, Vec<u8>)| {
        format!(
            "location /{name} {{ meteorit_hash $h key_file=keys/{name} x; meteorit_pass REDIS; meteorit_command RPUSH list $h; }}\n"
        )
    };
    let text: String = files.iter().map(location).collect();
    let site = Site::with(&text, |builder| {
        files.iter().fold(builder, |builder, (name, key)| builder.file(&format!("keys/{name}"), key.clone()))
    });
    let keys = [KEY.as_bytes(), KEY.as_bytes(), KEY.as_bytes(), &[KEY.as_bytes(), b" "].concat(), inner];
    for ((name, _), key) in files.iter().zip(keys) {
        assert_eq!(site.listed(&Request::post(&format!("/{name}"), "{}")), [hmac(key, &["x"])], "{name}");
    }
}

#[test]
fn a_hash_is_inherited_and_redefined() {
    let site = Site::with(
        "meteorit_hash $visitor key_file=a.key $event_user;
         server {
             listen 127.0.0.1:%PORT%;
             location /a { PUSH }
             location /b { meteorit_hash $visitor key_file=b.key $event_user; PUSH }
         }"
        .replace("PUSH", "meteorit_pass REDIS; meteorit_command RPUSH list $visitor;")
        .as_str(),
        |builder| builder.file("a.key", [b'a'; 16]).file("b.key", [b'b'; 16]),
    );
    let event = r#"{"user":"u1"}"#;
    assert_eq!(site.listed(&Request::post("/a", event)), [hmac(&[b'a'; 16], &["u1"])]);
    assert_eq!(site.listed(&Request::post("/b", event)), [hmac(&[b'b'; 16], &["u1"])]);
}

#[test]
fn mistakes_of_meteorit_hash_are_refused() {
    for (directive, message) in [
        ("meteorit_hash $h key_file=short.key $event_user;", "the key in \"short.key\" has less than 16 bytes"),
        ("meteorit_hash $h key_file=empty.key $event_user;", "the key in \"empty.key\" has less than 16 bytes"),
        ("meteorit_hash $h key_file=missing.key $event_user;", "No such file or directory"),
        ("meteorit_hash $h key_file=logs $event_user;", "cannot read \""),
        (
            "meteorit_hash $h key_file=good.key;",
            "\"meteorit_hash\" has nothing to hash: give a VALUE after the key_file",
        ),
        ("meteorit_hash $h $event_user;", "in \"meteorit_hash\" directive: expected key_file=FILE"),
        ("meteorit_hash $h;", "in \"meteorit_hash\" directive"),
        ("meteorit_hash h key_file=good.key $event_user;", "invalid variable name \"h\""),
        ("meteorit_hash $uri key_file=good.key $event_user;", "the duplicate \"uri\" variable"),
        ("meteorit_hash $h key_file=good.key $nothing_at_all;", "unknown \"nothing_at_all\" variable"),
    ] {
        let test = Nginx::builder()
            .file("short.key", "0123456789abcde\n\n\n")
            .file("empty.key", "")
            .file("good.key", KEY)
            .server(&format!(
                "location / {{\n{directive}\nmeteorit_pass redis://127.0.0.1;\nmeteorit_command PING;\n}}"
            ))
            .test();
        match directive.contains("$nothing_at_all") {
            // nginx finds an unknown variable when it has read everything.
            true => assert!(!test.ok && test.output.contains(message), "{}", test.output),
            false => test.assert_refused(message, directive),
        }
        assert!(!test.output.contains("0123456789"), "the key is shown:\n{}", test.output);
    }
}
