//! Everything that can happen, at random, two things at a time. METEORIT_LEDGER_SECONDS says for how long in all, METEORIT_LEDGER_SEED
//! in which order.

use super::of_redis::{crowd_out, reload_slowly};
use super::*;
use crate::common::ledger::{Counts, Traffic};
use std::time::Instant;

/// How long a page of the ledger is.
const PAGE: Duration = Duration::from_secs(30);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn all_troubles_at_random_keep_the_promises() {
    let time = Duration::from_secs(setting("METEORIT_LEDGER_SECONDS", 16)) / variants().len() as u32;
    let seed = setting("METEORIT_LEDGER_SEED", 1);
    println!("METEORIT_LEDGER_SEED={seed}");
    for variant in variants().into_iter().map(Variant::after_a_loss).map(Variant::after_a_refusal) {
        let mut random = Random(seed);
        let mut scene = Scene::of(
            &variant,
            Traffic { leave: true, seed, ..Traffic::default() },
            Nginx::builder().worker_processes(4).daemon(),
        );
        scene.nginx.allow_log("exited on signal 9");
        let mut counts = Counts::default();
        let mut troubles = 0;
        let started = Instant::now();
        while started.elapsed() < time {
            let page = Instant::now();
            while page.elapsed() < PAGE && started.elapsed() < time {
                of_redis(&scene, &mut random);
                scene.goes_on();
                troubles += 1;
            }
            counts.add(&scene.turn());
        }
        let leaked = scene.nginx.worker_fds();
        assert!(leaked < 4 * 40, "{leaked} descriptors in four workers");
        counts.add(&scene.end());
        println!("{}: {troubles} troubles, {counts}", variant.name);
        assert!(counts.promised() > 300 && counts.of(503) + counts.of(202) > 0, "{counts}");
    }
}

/// Something happens to Redis or to the way there, and in the midst of it, mostly, to nginx.
fn of_redis(scene: &Scene, random: &mut Random) {
    let Scene { redis, proxy, .. } = scene;
    let goes_on = random.below(3) == 0;
    let kind = random.below(13);
    let mut meanwhile = || {
        scene.ledger().wait_answered(random.below(300) as u64);
        of_nginx(scene, random);
        scene.ledger().wait_answered(random.below(300) as u64);
    };
    match kind {
        0 => redis.restart(),
        1 => {
            redis.stop();
            meanwhile();
            redis.restart();
        }
        2 => {
            redis.kill();
            meanwhile();
            redis.restart();
        }
        3 => {
            redis.pause();
            meanwhile();
            redis.resume();
        }
        4 => {
            redis.cmd(&["CLIENT", "PAUSE", if goes_on { "200" } else { "1500" }, "WRITE"]);
            meanwhile();
        }
        5 => {
            redis.cmd(&["CONFIG", "SET", "maxmemory", "100kb"]);
            meanwhile();
            redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        6 => reload_slowly(redis, meanwhile),
        7 => {
            redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
            meanwhile();
            redis.cmd(&["REPLICAOF", "NO", "ONE"]);
        }
        8 => crowd_out(redis, meanwhile),
        9 => {
            proxy.lose([Loses::Requests, Loses::Replies, Loses::Both][usize::from(goes_on)]);
            meanwhile();
        }
        10 => {
            proxy.set_unreachable(true);
            proxy.lose(Loses::Both);
            meanwhile();
            proxy.set_unreachable(false);
        }
        11 => {
            proxy.set_dribbling(true);
            meanwhile();
            proxy.set_dribbling(false);
        }
        _ => {
            proxy.cut();
            meanwhile();
        }
    }
}

fn of_nginx(scene: &Scene, random: &mut Random) {
    let nginx = &scene.nginx;
    match random.below(6) {
        0 | 1 => drop(nginx.reload()),
        2 => {
            let workers = nginx.worker_pids();
            let worker = workers[random.below(workers.len())];
            nginx.signal(worker, libc::SIGKILL);
            nginx.wait_respawn(&[worker]);
        }
        3 => drop(nginx.upgrade()),
        _ => {}
    }
}
