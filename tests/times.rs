//! When an event was received: `$meteorit_received`, and `meteorit_time` in the words of a format.

mod common;

use common::*;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn texts(list: Vec<Vec<u8>>) -> Vec<String> {
    list.into_iter().map(|element| String::from_utf8(element).unwrap()).collect()
}

/// What Python makes of a time and a format, in the time zone `TZ` or, without one, in UTC.
#[track_caller]
fn formatted(ms: u64, format: &str, zone: Option<&str>) -> String {
    let script = "import sys, time
convert = time.localtime if sys.argv[3] else time.gmtime
sys.stdout.write(time.strftime(sys.argv[2], convert(int(sys.argv[1]) // 1000)))";
    let output = Command::new("python3")
        .args(["-c", script, &ms.to_string(), format, zone.unwrap_or_default()])
        .env("TZ", zone.unwrap_or("UTC0"))
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn an_event_is_received_once() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = Nginx::builder()
        .log_format("$uri [$meteorit_received]")
        .server(
            &"location / {
                  meteorit_field received $meteorit_received json;
                  meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_received $event \"$meteorit_received\";
              }
              location /other { return 200 x; }"
                .replace("REDIS", &fake.url()),
        )
        .start();
    let before = unix_ms();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&Request::post("/a", "{}").to_bytes());
    fake.wait_held(1);
    let after = unix_ms();
    let args: Vec<String> = texts(fake.commands()[0].args.clone());
    let received: u64 = args[2].parse().expect("milliseconds");
    assert!((before..=after).contains(&received), "{before} {received} {after}");
    assert_eq!(args[3..], [format!("{{\"received\":{received}}}"), received.to_string()]);
    // The answer comes later than that, and the time stays.
    eventually(Duration::from_secs(5), || unix_ms() > received + 20);
    fake.release(0, Action::reply(":1\r\n"));
    assert_eq!(client.read_response().status, 204);
    assert_eq!(client.get("/other").status, 200);
    drop(client);
    assert_eq!(nginx.wait_access("/a"), format!("/a [{received}]"));
    assert_eq!(nginx.wait_access("/other"), "/other [-]");
    nginx.stop();
}

#[test]
fn an_event_is_received_when_its_body_is_there() {
    let redis = Redis::start();
    let nginx = Nginx::start(&format!(
        "location / {{ meteorit_pass {}; meteorit_command RPUSH list $meteorit_received; }}",
        redis.url()
    ));
    let mut client = Http::connect(nginx.port());
    client.start_chunked(&Request::post("/", ""));
    client.send_chunk(b"{");
    let begun = unix_ms();
    eventually(Duration::from_secs(5), || unix_ms() > begun + 30);
    let ended = unix_ms();
    client.send_chunk(b"}");
    client.end_chunks();
    assert_eq!(client.read_response().status, 204);
    let received: u64 = texts(redis.list("list"))[0].parse().unwrap();
    assert!((ended..=unix_ms()).contains(&received), "{ended} {received}");
}

/// Formats with the zone each is to be read in, as directives of one location.
const FORMATS: [(&str, &str); 6] = [
    ("$day %Y-%m-%d", "%Y-%m-%d"),
    ("$hour \"%Y-%m-%dT%H utc\" utc", "%Y-%m-%dT%H utc"),
    ("$week %G-W%V", "%G-W%V"),
    ("$literal day-%j-100%%", "day-%j-100%%"),
    ("$minute %H:%M:%S", "%H:%M:%S"),
    ("$unpadded %-d.%-m.%y", "%-d.%-m.%y"),
];

#[test]
fn a_time_is_in_utc_unless_said_otherwise() {
    let zone = "<+1230>-12:30";
    let redis = Redis::start();
    let mut directives: String = FORMATS.iter().map(|(words, _)| format!("meteorit_time {words};\n")).collect();
    directives += "meteorit_time $local \"%Y-%m-%d %H:%M:%S %z\" local; meteorit_time $zone %z;\n";
    let nginx = Nginx::builder()
        .env("TZ", zone)
        .server(&format!(
            "location / {{
                 {directives}
                 meteorit_pass {};
                 meteorit_command RPUSH list $meteorit_received $day $hour $week $literal $minute $unpadded $local $zone;
                 meteorit_command INCR day:$day;
             }}",
            redis.url()
        ))
        .start();
    assert_eq!(post(nginx.port(), "/", "{}").status, 204);
    let list = texts(redis.list("list"));
    let received: u64 = list[0].parse().unwrap();
    let mut expected: Vec<String> = FORMATS.iter().map(|(_, format)| formatted(received, format, None)).collect();
    expected.push(formatted(received, "%Y-%m-%d %H:%M:%S %z", Some(zone)));
    expected.push("+0000".into());
    assert_eq!(list[1..], expected);
    assert!(list[7].ends_with(" +1230"), "{}", list[7]);
    assert_eq!(redis.get(&format!("day:{}", list[1])).unwrap(), b"1");
}

#[test]
fn a_time_moves_on_and_is_inherited() {
    let redis = Redis::start();
    let nginx = Nginx::start(
        &"meteorit_time $t %S;
          server {
              listen 127.0.0.1:%PORT%;
              meteorit_time $u server-%Y;
              location / { PUSH }
              location /own { meteorit_time $t own-%Y; PUSH }
          }"
        .replace(
            "PUSH",
            &format!("meteorit_pass {}; meteorit_command RPUSH list $t $u $meteorit_received;", redis.url()),
        ),
    );
    let send = |path: &str| {
        redis.cmd(&["DEL", "list"]);
        assert_eq!(post(nginx.port(), path, "{}").status, 204);
        let list = texts(redis.list("list"));
        (list[0].clone(), list[1].clone(), list[2].parse::<u64>().unwrap())
    };
    let (own, server, received) = send("/own");
    let year = formatted(received, "%Y", None);
    assert_eq!((own, server), (format!("own-{year}"), format!("server-{year}")));
    let (mut second, _, first_at) = send("/");
    assert_eq!(second, formatted(first_at, "%S", None));
    eventually(Duration::from_secs(5), || {
        let (now, _, at) = send("/");
        assert_eq!(now, formatted(at, "%S", None));
        std::mem::replace(&mut second, now.clone()) != now
    });
}

#[test]
fn mistakes_of_meteorit_time_are_refused() {
    let expected = "expected a format of strftime that gives 1 to 255 bytes";
    let long = format!("meteorit_time $day {};", "x".repeat(256));
    for (directive, message) in [
        ("meteorit_time $day \"\";", format!("invalid value \"\" in \"meteorit_time\" directive: {expected}")),
        (&*long, expected.to_owned()),
        (
            "meteorit_time $day %Y gmt;",
            "invalid value \"gmt\" in \"meteorit_time\" directive: expected \"utc\" or \"local\"".into(),
        ),
        ("meteorit_time day %Y;", "invalid variable name \"day\"".into()),
        ("meteorit_time $day;", "invalid number of arguments in \"meteorit_time\" directive".into()),
        ("meteorit_time $uri %Y;", "the duplicate \"uri\" variable".into()),
    ] {
        let text = format!("location / {{\n{directive}\nmeteorit_pass redis://127.0.0.1;\nmeteorit_command PING;\n}}");
        Nginx::test(&text).assert_refused(&message, directive);
    }
    Nginx::test(&format!("location / {{ meteorit_time $day {}; }}", "x".repeat(255))).assert_ok();
    Nginx::test("location / {\nmeteorit_time $day %Y;\nmeteorit_set $day /day;\n}")
        .assert_refused("the variable \"$day\" is defined twice here", "meteorit_set");
}
