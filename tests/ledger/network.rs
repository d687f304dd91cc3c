//! What happens between nginx and Redis.

use super::scene::through;
use super::*;

#[test]
fn f05_a_half_open_connection_keeps_the_promises() {
    for loses in [Loses::Requests, Loses::Replies, Loses::Both] {
        let counts = through(|scene| {
            scene.proxy.lose(loses);
            scene.is_answered();
            scene.goes_on();
        });
        assert!(counts.of(504) > 0, "{counts}");
    }
}

#[test]
fn an_unreachable_redis_keeps_the_promises() {
    let counts = through(|scene| {
        scene.proxy.set_unreachable(true);
        scene.proxy.lose(Loses::Both);
        scene.is_answered();
        scene.proxy.set_unreachable(false);
    });
    assert!(counts.of(503) > 0 && counts.of(504) > 0, "{counts}");
}

#[test]
fn slow_and_partial_reads_keep_the_promises() {
    through(|scene| {
        scene.proxy.set_dribbling(true);
        scene.is_answered();
        scene.redis.cmd(&["CLIENT", "KILL", "TYPE", "normal"]);
        scene.is_answered();
        scene.proxy.cut();
        scene.is_answered();
        scene.proxy.set_dribbling(false);
    });
}

#[test]
fn broken_connections_keep_the_promises() {
    through(|scene| {
        for _ in 0..5 {
            scene.proxy.cut();
            scene.goes_on();
        }
    });
}
