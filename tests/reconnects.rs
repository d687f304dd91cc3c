//! How often and how many: attempts to connect are few whatever Redis does to them, log lines too, and there are never more
//! connections than configured.

mod common;

use common::*;
use std::collections::HashSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// Delays grow from half a second by half each: the attempts at 0, 0.5, 1.2 and 2.3 s, and jitter.
const LOAD: Duration = Duration::from_secs(3);
const MOST: usize = 6;

fn nginx(server: &str, settings: &str) -> Nginx {
    builder(server, settings).start()
}

fn builder(server: &str, settings: &str) -> NginxBuilder {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {server}; {settings} }}"))
        .server("location / { meteorit_pass queue; meteorit_command RPUSH list $arg_id; }")
        .log_format("$arg_id $status $meteorit_status $meteorit_redis_time")
}

fn under_load(nginx: &Nginx) -> Vec<Sent> {
    load(nginx.port(), 8, Until::Elapsed(LOAD), |id| Request::post(&format!("/?id={id}"), "{}").to_bytes())
}

fn complaints(nginx: &Nginx) -> usize {
    ["[warn]", "[error]"].iter().map(|level| nginx.count_log(level)).sum()
}

/// Under a load that never lets up, with a Redis that does `action` to what it is sent.
#[track_caller]
fn assert_bounded(what: &str, greets: bool, action: Action, statuses: &[u16]) {
    for connections in [1, 3] {
        let fake = FakeRedis::builder().with_handshake().start({
            let action = action.clone();
            move |_, command| if greets && command[0] == b"PING" { Action::Default } else { action.clone() }
        });
        let nginx = nginx(&fake.url(), &format!("connections {connections};"));
        let sent = under_load(&nginx);
        let attempts = fake.connections();
        assert!(sent.len() > 100, "{what}: {} events", sent.len());
        let other = sent.iter().find(|sent| !statuses.iter().any(|status| sent.has_status(*status)));
        assert!(other.is_none(), "{what}: {other:?}");
        assert!((2..=MOST * connections).contains(&attempts), "{what}: {attempts} connections in {LOAD:?}");
        // With READONLY each attempt is one lost connection and at most one reply a second.
        assert!(complaints(&nginx) <= 2 * MOST * connections, "{what}:\n{}", nginx.error_log());
        fake.set_handler(|_, _| Action::Default);
        eventually(SOON, || post(nginx.port(), "/?id=back", "{}").status == 204);
    }
}

#[test]
fn a_redis_that_closes_at_once_is_tried_a_few_times() {
    assert_bounded("closed at the hand-shake", false, Action::Close, &[503]);
}

#[test]
fn a_redis_that_resets_at_once_is_tried_a_few_times() {
    assert_bounded("reset at the hand-shake", false, Action::Reset, &[503]);
}

#[test]
fn a_redis_that_closes_at_the_first_event_is_tried_a_few_times() {
    assert_bounded("closed at the first event", true, Action::Close, &[503, 504]);
}

#[test]
fn a_replica_is_tried_a_few_times() {
    let reply = Action::reply("-READONLY You can't write against a read only replica.\r\n");
    assert_bounded("READONLY", true, reply, &[503, 504]);
}

#[test]
fn a_full_redis_is_tried_a_few_times() {
    let reply = Action::CloseAfter(b"-ERR max number of clients reached\r\n".to_vec());
    assert_bounded("max number of clients", false, reply, &[503]);
}

#[test]
fn a_redis_that_speaks_nonsense_is_tried_a_few_times() {
    assert_bounded("nonsense", true, Action::reply("nonsense\r\n"), &[503, 504]);
}

#[test]
fn a_refused_port_is_tried_without_a_line_for_each_attempt() {
    let port = Port::lease();
    let nginx = nginx(&format!("redis://127.0.0.1:{}", port.number()), "connections 3;");
    let sent = under_load(&nginx);
    assert!(sent.iter().all(|sent| sent.has_status(503)));
    assert!((1..=3).contains(&complaints(&nginx)), "{}", nginx.error_log());
}

#[test]
fn lost_connections_leave_no_descriptors_behind() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let nginx = nginx(&fake.url(), "");
    assert_eq!(post(nginx.port(), "/?id=first", "{}").status, 204);
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/?id=open", "{}").status, 204);
    let before = nginx.worker_fds();
    for round in 1..=4 {
        let connections = fake.connections();
        fake.close_all(round % 2 == 0);
        eventually(SOON, || nginx.count_log("connection lost") >= round);
        eventually(SOON, || http.post("/?id=next", "{}").status == 204);
        assert_eq!(fake.connections(), connections + 1);
    }
    eventually(SOON, || nginx.worker_fds() == before);
    assert_eq!(fake.open_connections(), 1);
}

#[test]
fn there_are_never_more_connections_than_configured() {
    for (workers, connections) in [(1, 1), (1, 4), (2, 4)] {
        let fake = FakeRedis::start(|_, _| Action::after(Duration::from_millis(3), Action::reply(":1\r\n")));
        let nginx = builder(&fake.url(), &format!("connections {connections};")).worker_processes(workers).start();
        let sent = load(nginx.port(), 60, Until::PerConnection(20), |id| {
            Request::post(&format!("/?id={id}"), "{}").to_bytes()
        });
        assert!(sent.iter().all(|sent| sent.has_status(204)));
        let most = workers * connections;
        assert!(fake.connections() <= most, "{} connections of {most}", fake.connections());
        if workers == 1 {
            assert_eq!(fake.connections(), connections, "all are used when there is enough to do");
        }
    }
}

#[test]
fn events_go_to_the_connection_with_the_least_to_do() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake.url(), "connections 4; timeout 20s;");
    let mut clients = Vec::new();
    for id in 0..8 {
        let mut http = Http::connect(nginx.port());
        http.send_raw(&Request::post(&format!("/?id={id}"), "{}").to_bytes());
        fake.wait_held(id + 1);
        clients.push(http);
    }
    let order: Vec<usize> = fake.commands().iter().map(|command| command.connection).collect();
    for half in order.chunks(4) {
        assert_eq!(half.iter().collect::<HashSet<_>>().len(), 4, "{order:?}");
    }
    fake.release_all(Action::reply(":1\r\n"));
    assert!(clients.iter_mut().all(|http| http.read_response().status == 204));
}

#[test]
fn no_connection_is_made_before_the_first_event() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let nginx = builder(&fake.url(), "connections 4;").worker_processes(2).start();
    assert_eq!(post(nginx.port(), "/?id=broken", "{").status, 400);
    assert_eq!(fake.connections(), 0);
    assert_eq!(post(nginx.port(), "/?id=first", "{}").status, 204);
    assert_eq!(fake.connections(), 1);
}
