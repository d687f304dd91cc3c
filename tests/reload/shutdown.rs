//! The end of nginx: by SIGQUIT, which answers what is in flight, and by SIGTERM, which does not.
//! That no socket was left open and nothing alarming logged is asserted when each nginx is dropped.

use super::*;

/// SIGQUIT has reached the worker, which takes no new connections from now on.
fn begin_to_quit(nginx: &Nginx) -> i32 {
    let worker = nginx.worker_pids()[0];
    nginx.signal(nginx.master_pid(), libc::SIGQUIT);
    eventually(SOON, || title(worker).contains("shutting down") || !is_running(worker));
    worker
}

#[test]
fn a_quit_answers_what_is_in_flight() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), LONG).start();
    let mut clients: Vec<Http> = (0..5).map(|_| Http::connect(nginx.port())).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send_raw(&event(i as u64));
        redis.wait_held(i + 1);
    }
    let worker = begin_to_quit(&nginx);
    assert!(is_running(worker), "it has clients to answer");
    for client in &mut clients {
        redis.release(0, Action::Default);
        assert_eq!(client.read_response().status, 204);
    }
    drop(clients);
    assert!(nginx.wait_exit().success());
    eventually(SOON, || redis.open_connections() == 0);
    nginx.stop();
}

#[test]
fn a_quit_answers_over_http2_too() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), LONG).http2().start();
    let url = format!("http://127.0.0.1:{}/events", nginx.h2_port());
    std::thread::scope(|scope| {
        let client = scope.spawn(|| curl(&["--http2-prior-knowledge", "--data", "{}", "-H", "Content-Type:", &url]));
        redis.wait_held(1);
        begin_to_quit(&nginx);
        redis.release(0, Action::Default);
        assert_eq!(client.join().unwrap().status, 204);
    });
    assert!(nginx.wait_exit().success());
    eventually(SOON, || redis.open_connections() == 0);
}

#[test]
fn a_quit_waits_for_a_connection_to_redis_that_is_being_made() {
    let redis = FakeRedis::builder().with_handshake().start(|_, args| match args[0].as_slice() {
        b"PING" => Action::Hold,
        _ => Action::Default,
    });
    let nginx = nginx_for(&redis.url(), LONG).start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&event(1));
    redis.wait_held(1);
    begin_to_quit(&nginx);
    redis.release(0, Action::reply("+PONG\r\n"));
    assert_eq!(client.read_response().status, 204);
    drop(client);
    assert!(nginx.wait_exit().success());
}

#[test]
fn a_quit_ends_with_the_deadline_when_redis_does_not_answer() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), "timeout 500ms; stall_timeout 1s;").start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&event(1));
    redis.wait_held(1);
    begin_to_quit(&nginx);
    assert_eq!(client.read_response().status, 504);
    drop(client);
    assert!(nginx.wait_exit().success());
}

#[test]
fn a_quit_does_not_wait_for_a_client_that_left() {
    // Its reply is still awaited, and never comes; what was sent is not taken back by leaving.
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), "timeout 500ms; stall_timeout 1s;").start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&event(1));
    redis.wait_held(1);
    client.abort();
    nginx.wait_access("499 POST /events");
    assert!(nginx.quit().success());
    assert_eq!(redis.commands().len(), 1);
}

#[test]
fn a_quit_with_an_idle_connection_waits_for_nothing() {
    // None of the times, all beyond the wait for the exit, may hold it up.
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), LONG).start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&event(1));
    assert_eq!(client.read_response().status, 204);
    assert!(nginx.quit().success());
    assert!(client.is_closed());
    eventually(SOON, || redis.info("connected_clients") == "1");
}

#[test]
fn a_quit_without_any_request_waits_for_nothing() {
    let redis = FakeRedis::start(|_, _| Action::Default);
    let nginx = nginx_for(&redis.url(), LONG).start();
    assert!(nginx.quit().success());
    assert_eq!(redis.connections(), 0, "nobody connects before there is an event");
}

#[test]
fn a_quit_while_redis_is_away_waits_for_nothing() {
    let nobody = Port::lease();
    let nginx = nginx_for(&format!("redis://127.0.0.1:{}", nobody.number()), LONG).start();
    assert_eq!(post(nginx.port(), "/events", r#"{"id":1}"#).status, 503);
    assert!(nginx.quit().success());
}

#[test]
fn a_quit_after_redis_went_away_waits_for_nothing() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), LONG).start();
    assert_eq!(post(nginx.port(), "/events", r#"{"id":1}"#).status, 204);
    redis.kill();
    nginx.wait_log("connection lost");
    assert!(nginx.quit().success());
}

#[test]
fn a_quit_after_a_request_was_lost_with_its_connection_waits_for_nothing() {
    // By a reset while the worker sends, and by a FIN while it waits: neither may leave the request's deadline behind.
    for action in [Action::Reset, Action::Close] {
        let redis = FakeRedis::start(move |_, _| action.clone());
        let nginx = nginx_for(&redis.url(), LONG).start();
        assert_eq!(post(nginx.port(), "/events", r#"{"id":1}"#).status, 504);
        assert!(nginx.quit().success());
    }
}

#[test]
fn worker_shutdown_timeout_ends_a_worker_whose_reply_never_comes() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), LONG).main("worker_shutdown_timeout 1s;").start();
    let mut clients: Vec<Http> = (0..3).map(|_| Http::connect(nginx.port())).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send_raw(&event(1));
        redis.wait_held(i + 1);
    }
    nginx.signal(nginx.master_pid(), libc::SIGQUIT);
    for client in &mut clients {
        // Whichever nginx closes first: the client, or Redis, of which the client is told.
        let answer = client.try_read_response().map(|response| response.status);
        assert!(matches!(answer, Err(_) | Ok(504)), "{answer:?}");
    }
    drop(clients);
    assert!(nginx.wait_exit().success());
    eventually(SOON, || redis.open_connections() == 0);
}

#[test]
fn sigterm_ends_a_worker_with_requests_in_flight() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), LONG).start();
    let mut clients: Vec<Http> = (0..5).map(|_| Http::connect(nginx.port())).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send_raw(&event(1));
        redis.wait_held(i + 1);
    }
    nginx.signal(nginx.master_pid(), libc::SIGTERM);
    assert!(nginx.wait_exit().success());
    assert!(clients.iter_mut().all(Http::is_closed));
    eventually(SOON, || redis.open_connections() == 0);
    assert_eq!(nginx.count_log("exited on signal"), 0);
}

#[test]
fn sigterm_under_load_writes_all_that_was_promised() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").worker_processes(2).start();
    let load = load_on(&nginx, 8);
    load.wait_more(200);
    nginx.signal(nginx.master_pid(), libc::SIGTERM);
    assert!(nginx.wait_exit().success());
    assert_kept(&load.stop(), &stored(&redis, "events"));
}
