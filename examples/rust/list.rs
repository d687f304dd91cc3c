//! A worker on a list: takes events from the list that nginx-conf/queue.conf writes, one at a time, and adds up what each account did.
//!
//!     REDIS_URL=redis://127.0.0.1:6379/0 cargo run --no-default-features --example consumer-list -- worker-1
//!
//! Run as many as you like, each under a name of its own which it keeps when it is started again. What a worker takes moves to a list of
//! its own until it is done. Each worker is a reaper too: what one that died had in work goes back to the queue. Needs the crates `redis`
//! and `serde_json`, and Redis 6.2 or newer. An error of Redis ends it: let systemd start it again.

use redis::{Connection, RedisResult, cmd, pipe};
use serde_json::Value;
use std::time::{Duration, Instant};
use std::{env, process};

const QUEUE: &str = "jobs";
// The braces keep all keys in one slot of a Redis Cluster; "jobs" alone is in the same.
const WORKING: &str = "{jobs}:working:";
const ALIVE: &str = "{jobs}:alive:";
const WORKERS: &str = "{jobs}:workers";
const DEAD: &str = "{jobs}:dead";
const DONE: &str = "{jobs}:done";
const SEEN: &str = "{jobs}:seen:";

/// How long an id is remembered, in seconds: longer than a client, a queue or a spool may take to send an event again.
const REMEMBER: u64 = 7 * 24 * 3600;

/// The effect, the mark that it was done and the end of the work are one step: a worker that is killed has done all three or none.
/// A number goes through as text, for Lua would round it.
const FINISH: &str = "
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[2]) then
    redis.call('HINCRBY', KEYS[3], ARGV[3], ARGV[4])
end
return redis.call('LREM', KEYS[1], 1, ARGV[1])
";

/// What a dead worker had goes to the head of the queue, where it came from. Nothing, if the worker has come back meanwhile.
const REAP: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local count = 0
while redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do
    count = count + 1
end
return count
";

fn main() {
    let Some(name) = env::args().nth(1) else {
        eprintln!("usage: consumer-list NAME");
        process::exit(2);
    };
    if let Err(error) = run(&name) {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run(name: &str) -> RedisResult<()> {
    let url = env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379/0".into());
    // A worker that has not said for so long that it is alive is taken for dead, in milliseconds: longer than the slowest event needs.
    let lease: u64 = env::var("LEASE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_000);
    let quarter = Duration::from_millis(lease / 4);
    let mut redis = redis::Client::open(url)?.get_connection()?;
    let (working, alive) = (format!("{WORKING}{name}"), format!("{ALIVE}{name}"));

    // What it had when it was killed. Nobody else has this name, so this worker is dead until it says otherwise.
    cmd("DEL").arg(&alive).exec(&mut redis)?;
    reap(&mut redis, name)?;
    let mut reaped: Option<Instant> = None;

    loop {
        // Names are never taken out: they are few, and one that is not there would be reaped by nobody.
        pipe()
            .cmd("SADD")
            .arg(WORKERS)
            .arg(name)
            .cmd("SET")
            .arg(&alive)
            .arg(1)
            .arg("PX")
            .arg(lease)
            .exec(&mut redis)?;
        if reaped.is_none_or(|time| time.elapsed() > quarter) {
            reaped = Some(Instant::now());
            let names: Vec<String> = cmd("SMEMBERS").arg(WORKERS).query(&mut redis)?;
            for name in names {
                reap(&mut redis, &name)?;
            }
        }
        // It wakes up early enough to say again that it is alive.
        let mut take = cmd("BLMOVE");
        take.arg(QUEUE).arg(&working).arg("LEFT").arg("RIGHT").arg(quarter.as_secs_f64());
        if let Some(job) = take.query::<Option<String>>(&mut redis)? {
            handle(&mut redis, &working, &job)?;
        }
    }
}

fn reap(redis: &mut Connection, name: &str) -> RedisResult<()> {
    let mut reap = cmd("EVAL");
    reap.arg(REAP).arg(3).arg(format!("{ALIVE}{name}")).arg(format!("{WORKING}{name}")).arg(QUEUE);
    match reap.query::<u64>(redis)? {
        0 => {}
        count => eprintln!("{name} is gone, {count} back in the queue"),
    }
    Ok(())
}

/// Only an error of Redis is an error here. A list counts no deliveries, so an event that cannot be done is set aside at once.
fn handle(redis: &mut Connection, working: &str, job: &str) -> RedisResult<()> {
    let event: Value = serde_json::from_str(job).unwrap_or_default();
    // serde_json keeps every 64-bit integer; an f64 would round above 2^53.
    let (Some(id), Some(account), Some(cents)) =
        (event["id"].as_str(), event["account"].as_u64(), event["cents"].as_i64())
    else {
        eprintln!("{job}: not a job");
        return pipe().atomic().cmd("LREM").arg(working).arg(1).arg(job).cmd("RPUSH").arg(DEAD).arg(job).exec(redis);
    };
    let mut finish = cmd("EVAL");
    finish.arg(FINISH).arg(3).arg(working).arg(format!("{SEEN}{id}")).arg(DONE);
    finish.arg(job).arg(REMEMBER).arg(account).arg(cents).exec(redis)
}
