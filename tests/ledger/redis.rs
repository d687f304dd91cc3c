//! What happens to Redis.

use super::scene::{through, through_refusals};
use super::*;

#[test]
fn a_restart_of_redis_keeps_the_promises() {
    let counts = through(|scene| {
        for _ in 0..2 {
            scene.redis.restart();
            scene.goes_on();
        }
        scene.redis.stop();
        scene.is_answered();
        scene.redis.restart();
    });
    assert!(counts.of(503) > 0, "{counts}");
}

#[test]
fn a_killed_redis_keeps_the_promises() {
    let counts = through(|scene| {
        for _ in 0..3 {
            scene.redis.kill();
            scene.is_answered();
            scene.redis.restart();
            scene.goes_on();
        }
    });
    assert!(counts.of(503) > 0, "{counts}");
}

#[test]
fn a_stopped_redis_keeps_the_promises() {
    let counts = through(|scene| {
        scene.redis.pause();
        scene.is_answered();
        scene.redis.resume();
        scene.goes_on();
        // For shorter than any deadline: nobody notices.
        scene.redis.pause();
        scene.redis.resume();
    });
    assert!(counts.of(504) > 0 && counts.of(503) > 0, "{counts}");
}

#[test]
fn paused_writes_keep_the_promises() {
    let counts = through(|scene| {
        for (time, mode) in [("100", "WRITE"), ("1000", "WRITE"), ("2000", "ALL")] {
            scene.redis.cmd(&["CLIENT", "PAUSE", time, mode]);
            scene.is_answered();
            scene.goes_on();
        }
    });
    assert!(counts.of(504) > 0, "{counts}");
}

#[test]
fn a_full_memory_keeps_the_promises() {
    let counts = through_refusals(|scene| {
        // Less than what Redis has taken already.
        scene.redis.cmd(&["CONFIG", "SET", "maxmemory", "100kb"]);
        scene.is_answered();
        scene.redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    });
    assert!(counts.of(503) > 0, "{counts}");
}

#[test]
fn a_memory_that_is_full_now_and_then_keeps_the_promises() {
    through_refusals(|scene| {
        for _ in 0..100 {
            scene.redis.cmd(&["CONFIG", "SET", "maxmemory", "100kb"]);
            scene.ledger().wait_answered(10);
            scene.redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
            scene.ledger().wait_answered(30);
        }
    });
}

#[test]
fn a_loading_redis_keeps_the_promises() {
    let counts = through_refusals(|scene| reload_slowly(&scene.redis, || scene.is_answered()));
    assert!(counts.of(503) > 0, "{counts}");
}

/// Redis loads its data anew, for at least a second, in which it says LOADING.
pub fn reload_slowly(redis: &Redis, meanwhile: impl FnOnce()) {
    redis.cmd(&["DEBUG", "POPULATE", "1000", "bulk", "10"]);
    // In microseconds for each key.
    redis.cmd(&["CONFIG", "SET", "key-load-delay", "1000"]);
    let mut client = redis.client();
    client.set_read_timeout(None).expect("a connection");
    std::thread::scope(|scope| {
        let loading = scope.spawn(move || {
            ::redis::cmd("DEBUG").arg("RELOAD").query::<()>(&mut client).expect("DEBUG RELOAD");
        });
        meanwhile();
        loading.join().expect("DEBUG RELOAD");
    });
    redis.cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
}

#[test]
fn a_failover_keeps_the_promises() {
    for variant in variants().into_iter().map(Variant::after_a_refusal) {
        let scene = Scene::start(&variant);
        let promoted = Redis::start();
        scene.proxy.lead_to(promoted.port());
        // The replica of a master that nobody is at: what it has taken as a master stays there to be counted.
        scene.redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
        scene.goes_on();
        eventually(SOON, || promoted.len("ledger") >= 100);
        assert!(scene.redis.len("ledger") >= 100);
        let counts = scene.end_with(&[&promoted]);
        assert_eq!(counts.cut(), 0, "{counts}");
    }
}

#[test]
fn a_demoted_master_keeps_the_promises() {
    let counts = through_refusals(|scene| {
        scene.redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
        scene.is_answered();
        scene.redis.cmd(&["REPLICAOF", "NO", "ONE"]);
    });
    assert!(counts.of(503) > 0, "{counts}");
}

#[test]
fn too_many_clients_keep_the_promises() {
    let counts = through(|scene| crowd_out(&scene.redis, || scene.is_answered()));
    assert!(counts.of(503) > 0, "{counts}");
}

/// Redis has room for one client, which is not nginx.
pub fn crowd_out(redis: &Redis, meanwhile: impl FnOnce()) {
    let mut client = redis.client();
    let mut run = |args: &[&str]| {
        let mut command = ::redis::cmd(args[0]);
        command.arg(&args[1..]);
        command.query::<::redis::Value>(&mut client).expect("a reply");
    };
    run(&["CONFIG", "SET", "maxclients", "1"]);
    run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    meanwhile();
    run(&["CONFIG", "SET", "maxclients", "1000"]);
}

#[test]
fn killed_connections_keep_the_promises() {
    through(|scene| {
        for _ in 0..5 {
            scene.redis.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
            scene.goes_on();
        }
    });
}
