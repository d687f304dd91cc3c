//! How fast a replay is: faster than events can come, and yet not in their way.

use super::*;

#[test]
fn a_replay_catches_up_with_events_that_come_as_fast_as_they_can() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "segment=256k", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    let load = Load::start(site.nginx.port(), 8, Until::Elapsed(SOON * 4), |id| {
        Request::post("/", format!(r#"{{"n":{id}}}"#)).to_bytes()
    });
    load.wait_more(5000);
    redis.restart();
    site.nginx.wait_log("the spool is empty");
    load.wait_more(100);
    let sent = load.stop();
    site.wait_empty();
    assert_eq!(spooled(&site.dir).0, 0);
    assert!(sent.iter().all(|sent| sent.has_status(202) || sent.has_status(204)), "of one that was up and then down");
    let mut seen: Vec<usize> = list(&redis).iter().map(|n| n.parse().unwrap()).collect();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..sent.len()), "{} of {} events, each of them once", seen.len(), sent.len());
}

#[test]
fn many_events_are_on_their_way_to_a_redis_that_is_far_away() {
    let (fake, site) = far_away("");
    // One has proved that Redis takes them.
    fake.wait_held(2999);
    assert_eq!(post(site.nginx.port(), "/", r#"{"n":3000}"#).status, 202);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.release_all(Action::reply(":1\r\n"));
    site.wait_empty();
    assert_eq!(texts(&fake.commands()), (0..=3000).map(|n| format!("ZINCRBY list 1 {n}")).collect::<Vec<_>>());
}

#[test]
fn a_replay_leaves_room_for_new_events_within_the_bounds() {
    let (fake, site) = far_away("max_pending 1000;");
    fake.wait_held(250);
    site.send(3000..3500, 202);
    assert_eq!(fake.held().len(), 250);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.release_all(Action::reply(":1\r\n"));
    site.wait_empty();
    assert_eq!(texts(&fake.commands()), (0..3500).map(|n| format!("ZINCRBY list 1 {n}")).collect::<Vec<_>>());
}

/// 3000 events in the spool, of which no two make one command, and a Redis that has come back and answers the first of them alone.
fn far_away(settings: &str) -> (FakeRedis, Site) {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    fake.stop_listening();
    let more = format!("{PATIENT} {settings}");
    let site = Site::with(
        &fake.url(),
        "",
        &more,
        "location / { PASS meteorit_command ZINCRBY list 1 $event_n; }",
        |builder| builder,
    );
    site.send(0..3000, 202);
    fake.set_handler(|_, command| match &command[3][..] {
        b"0" => Action::reply(":1\r\n"),
        _ => Action::Hold,
    });
    fake.resume_listening();
    (fake, site)
}
