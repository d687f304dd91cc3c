//! What happens to nginx. A client whose worker ends may be left without an answer, and then knows nothing.

use super::*;
use crate::common::ledger::{Counts, Traffic};

#[track_caller]
fn start(variant: &Variant, workers: usize) -> Scene {
    Scene::with(variant, workers, Traffic { leave: true, ..Traffic::default() }, "")
}

#[track_caller]
fn assert_no_trouble(counts: &Counts) {
    // What is queued may come to its bound by itself.
    assert!(counts.of(202) > 0 || counts.of(503) == 0, "{counts}");
    assert_eq!((counts.of(502), counts.of(504)), (0, 0), "{counts}");
}

#[test]
fn f36_a_hundred_reloads_under_load_keep_the_promises() {
    for variant in variants() {
        let scene = start(&variant, 2);
        let mut old = Vec::new();
        // A hundred in all.
        for _ in 0..100 / variants().len() {
            old.extend(scene.nginx.reload());
            scene.ledger().wait_promised(20);
        }
        scene.nginx.wait_gone(&old);
        assert_no_trouble(&scene.end());
    }
}

#[test]
fn f34_reloads_while_redis_is_away_leave_no_worker_behind() {
    for variant in variants().into_iter().map(Variant::after_a_loss) {
        let scene = start(&variant, 2);
        scene.redis.pause();
        let mut old = Vec::new();
        for _ in 0..5 {
            old.extend(scene.nginx.reload());
            scene.is_answered();
        }
        scene.nginx.wait_gone(&old);
        scene.redis.resume();
        scene.goes_on();
        scene.end();
    }
}

#[test]
fn f37_a_killed_worker_of_four_keeps_the_promises() {
    for variant in variants() {
        let scene = start(&variant, 4);
        scene.nginx.allow_log("exited on signal 9");
        for _ in 0..5 {
            let worker = scene.nginx.worker_pids()[0];
            scene.nginx.signal(worker, libc::SIGKILL);
            scene.nginx.wait_respawn(&[worker]);
            scene.goes_on();
        }
        assert_no_trouble(&scene.end());
    }
}

#[test]
fn a_graceful_quit_keeps_the_promises() {
    for variant in variants() {
        for main in ["", "worker_shutdown_timeout 1s;"] {
            let scene = Scene::with(&variant, 2, Traffic::default(), main);
            scene.nginx.signal(scene.nginx.master_pid(), libc::SIGQUIT);
            assert_no_trouble(&scene.ended());
        }
    }
}

#[test]
fn a_graceful_quit_while_redis_stands_still_keeps_the_promises() {
    for variant in variants().into_iter().map(Variant::after_a_loss) {
        for main in ["", "worker_shutdown_timeout 100ms;"] {
            let scene = Scene::with(&variant, 2, Traffic::default(), main);
            scene.redis.pause();
            scene.nginx.signal(scene.nginx.master_pid(), libc::SIGQUIT);
            scene.nginx.wait_exit();
            scene.redis.resume();
            scene.ended();
        }
    }
}

#[test]
fn a_sigterm_keeps_the_promises() {
    for variant in variants().into_iter().map(Variant::after_a_loss) {
        for _ in 0..3 {
            let scene = start(&variant, 2);
            scene.nginx.signal(scene.nginx.master_pid(), libc::SIGTERM);
            assert_no_trouble(&scene.ended());
        }
    }
}

#[test]
fn an_upgrade_keeps_the_promises() {
    for variant in variants() {
        let traffic = Traffic { leave: true, ..Traffic::default() };
        let scene = Scene::of(&variant, traffic, Nginx::builder().worker_processes(2).daemon());
        let mut old = Vec::new();
        for _ in 0..3 {
            old.extend(scene.nginx.upgrade());
            scene.goes_on();
        }
        scene.nginx.wait_gone(&old);
        assert_no_trouble(&scene.end());
    }
}
