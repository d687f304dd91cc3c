//! A long batch gives way: others are served while it is worked on, its client may leave, and the worker may be told to quit.

use super::*;

/// So many that the worker is busy with them for hundreds of turns.
const LONG: usize = 20_000;
/// So many that a client has the time to do something meanwhile.
const VERY_LONG: usize = 300_000;

fn nginx_for(url: &str) -> Nginx {
    Nginx::builder()
        .http(&format!(
            "client_max_body_size 16m; meteorit_redis queue {{ server {url}; backlog 64m; max_pending 1000000; timeout 60s; stall_timeout 60s; }}"
        ))
        .server(
            "location /batch {
                 meteorit_pass queue; meteorit_batch all max=1000000; meteorit_response json;
                 meteorit_command RPUSH list $event_n;
             }
             location /small { meteorit_pass queue; meteorit_command RPUSH list small-$event_n; }",
        )
        .body_buffer("16m")
        .log_format("$status $uri")
        .exit_timeout(SOON)
        .start()
}

fn batch(count: usize) -> Vec<u8> {
    let body: String = (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    lines_request("/batch", &body).to_bytes()
}

fn small(n: usize) -> Vec<u8> {
    Request::post("/small", format!("{{\"n\":{n}}}")).to_bytes()
}

/// Sends all but the last byte of the batch, waits until nginx has read that, and then lets it find at once the last byte
/// and, behind it, a small request on each of the other connections.
fn send_together(nginx: &Nginx, count: usize, others: usize) -> (Http, Vec<Http>) {
    let bytes = batch(count);
    let (last, most) = bytes.split_last().expect("a request");
    let mut long = Http::connect(nginx.port());
    let mut small_ones: Vec<Http> = (0..others).map(|_| Http::connect(nginx.port())).collect();
    long.send_raw(most);
    for http in &mut small_ones {
        http.send_raw(&small(1000));
        assert_eq!(http.read_response().status, 204);
    }
    eventually(SOON, || nothing_is_on_its_way(nginx.port()));
    let worker = stop(nginx);
    long.send_raw(&[*last]);
    for (n, http) in small_ones.iter_mut().enumerate() {
        http.send_raw(&small(n));
    }
    nginx.signal(worker, libc::SIGCONT);
    (long, small_ones)
}

/// Everything sent to this port, or from it, has been read by the other side.
fn nothing_is_on_its_way(port: u16) -> bool {
    let port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let mut connections = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    connections.all(|fields| match fields[..] {
        [_, local, remote, "01", queues, ..] if local.ends_with(&port) || remote.ends_with(&port) => {
            queues == "00000000:00000000"
        }
        _ => true,
    })
}

/// Stops the worker; on return it does nothing any more.
fn stop(nginx: &Nginx) -> i32 {
    let worker = nginx.worker_pids()[0];
    nginx.signal(worker, libc::SIGSTOP);
    let state = || std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
    eventually(SOON, || state().contains(") T "));
    worker
}

/// The client of a batch that the worker, stopped now, has begun to work on, and nothing of which is written yet.
fn in_the_middle(nginx: &Nginx, redis: &Redis) -> (Http, i32) {
    for _ in 0..10 {
        let (mut long, mut small_ones) = send_together(nginx, VERY_LONG, 1);
        // It stood behind the batch.
        assert_eq!(small_ones[0].read_response().status, 204);
        let worker = stop(nginx);
        if redis.list("list").iter().all(|element| element.starts_with(b"small-")) {
            return (long, worker);
        }
        nginx.signal(worker, libc::SIGCONT);
        long.read_response();
        redis.cmd(&["DEL", "list"]);
    }
    panic!("each time the batch was through before the worker could be stopped");
}

#[test]
fn others_are_answered_while_a_long_batch_is_worked_on() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let nginx = nginx_for(&fake.url());
    let (mut long, mut small_ones) = send_together(&nginx, LONG, 8);
    for http in &mut small_ones {
        assert_eq!(http.read_response().status, 204);
    }
    assert_report(&long.read_response(), 200, LONG, 0);
    let commands = fake.commands();
    assert!(commands.iter().all(|command| command.args[..2] == [b"RPUSH".to_vec(), b"list".to_vec()]));
    // Of neighbours that share a command, each by itself.
    let values = commands.iter().flat_map(|command| &command.args[2..]);
    let values: Vec<String> = values.map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    assert_eq!(values.len(), LONG + 16);
    // They came later, and reached Redis earlier.
    let mut first: Vec<&str> = values[8..16].iter().map(String::as_str).collect();
    first.sort_unstable();
    assert!(first.iter().enumerate().all(|(n, text)| *text == format!("small-{n}")), "{first:?}");
    // The batch itself is one uninterrupted pipeline.
    assert!(values[16..].iter().enumerate().all(|(n, text)| *text == n.to_string()));
}

#[test]
fn two_long_batches_share_the_worker() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url());
    let mut clients: Vec<Http> = (0..2).map(|_| Http::connect(nginx.port())).collect();
    clients.iter_mut().for_each(|http| http.send_raw(&batch(LONG)));
    for http in &mut clients {
        let report = assert_report(&http.read_response(), 200, LONG, 0);
        let mut ids: Vec<String> = serde_json::from_value(report["ids"].clone()).expect("strings");
        assert!(ids.is_sorted());
        ids.dedup();
        assert_eq!(ids.len(), LONG);
    }
    let list = redis.list("list");
    assert_eq!(list.len(), 2 * LONG);
    assert_eq!(list[..LONG], list[LONG..], "each in order and by itself");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_long_batch_leaves_nothing() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url());
    let mut sizes = Vec::new();
    let mut descriptors = 0;
    for round in 0..6 {
        let (long, worker) = in_the_middle(&nginx, &redis);
        if round % 2 == 0 {
            long.abort()
        } else {
            drop(long)
        }
        nginx.signal(worker, libc::SIGCONT);
        eventually(SOON, || nginx.access_log().matches("499 /batch").count() == round + 1);
        // The next event shows that nothing of it was still to come.
        assert_eq!(post(nginx.port(), "/small", "{\"n\":7}").status, 204);
        assert!(redis.list("list").iter().all(|element| element.starts_with(b"small-")), "a part of it was written");
        if round == 1 {
            descriptors = nginx.worker_fds();
        }
        sizes.push(nginx.worker_rss_kb());
    }
    eventually(SOON, || nginx.worker_fds() <= descriptors);
    // What one of them holds is some ten megabytes.
    assert!(sizes[5] < sizes[1] + 16 * 1024, "resident memory in kB, round by round: {sizes:?}");
}

#[test]
fn a_worker_that_quits_finishes_a_long_batch_first() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url());
    let (mut long, worker) = in_the_middle(&nginx, &redis);
    nginx.signal(nginx.master_pid(), libc::SIGQUIT);
    nginx.wait_log("signal 3 (SIGQUIT) received");
    nginx.signal(worker, libc::SIGCONT);
    nginx.wait_log("gracefully shutting down");
    long.set_timeout(SOON);
    assert_report(&long.read_response(), 200, VERY_LONG, 0);
    assert!(nginx.wait_exit().success());
    assert_eq!(redis.len("list"), VERY_LONG + 2);
}
