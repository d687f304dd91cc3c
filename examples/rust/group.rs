//! A member of a consumer group: takes events from the stream that nginx-conf/queue.conf writes and adds up the revenue of each account.
//!
//!     REDIS_URL=redis://127.0.0.1:6379/0 cargo run --no-default-features --example consumer-group -- consumer-1
//!
//! Run as many as you like, each under a name of its own. Any of them may be killed at any time: what it had taken goes to another one,
//! and nothing is counted twice. Needs the crates `redis` and `serde_json`, and Redis 6.2 or newer. An error of Redis ends it: let systemd
//! start it again.

use redis::{Connection, RedisResult, cmd};
use serde_json::Value;
use std::collections::HashMap;
use std::{env, process};

const STREAM: &str = "orders";
const GROUP: &str = "billing";
// The braces keep all keys in one slot of a Redis Cluster; "orders" alone is in the same.
const DEAD: &str = "{orders}:dead";
const REVENUE: &str = "{orders}:revenue";
const SEEN: &str = "{orders}:seen:";

/// How long an id is remembered, in seconds: longer than a client, a queue or a spool may take to send an event again.
const REMEMBER: u64 = 7 * 24 * 3600;

/// The effect, the mark that it was done and the acknowledgement are one step: a consumer that is killed has done all three or none.
/// A number goes through as text, for Lua would round it.
const FINISH: &str = "
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[3]) then
    redis.call('HINCRBY', KEYS[3], ARGV[4], ARGV[5])
end
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
";

/// Whoever acknowledges it sets it aside, so that two who try leave one. What was trimmed meanwhile is gone.
const SET_ASIDE: &str = "
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 1 and entry then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'entry', ARGV[2], unpack(entry[2]))
end
";

/// An entry of a stream: its id and its fields.
type Entry = (String, HashMap<String, String>);

fn main() {
    let Some(name) = env::args().nth(1) else {
        eprintln!("usage: consumer-group NAME");
        process::exit(2);
    };
    if let Err(error) = run(&name) {
        eprintln!("{error}");
        process::exit(1);
    }
}

fn run(name: &str) -> RedisResult<()> {
    let url = env::var("REDIS_URL").unwrap_or("redis://127.0.0.1:6379/0".into());
    // How long an event may be in work before another consumer takes it over, in milliseconds: longer than the slowest needs.
    let idle = number("IDLE_MS", 60_000);
    // An event that was delivered so often and never finished is set aside.
    let deliveries = number("DELIVERIES", 5);
    let mut redis = redis::Client::open(url)?.get_connection()?;

    // From the beginning ("0"), not from now on ("$"): what came before the group is work too.
    let create = cmd("XGROUP").arg(&["CREATE", STREAM, GROUP, "0", "MKSTREAM"]).exec(&mut redis);
    create.or_else(|error| if error.code() == Some("BUSYGROUP") { Ok(()) } else { Err(error) })?;

    loop {
        set_aside(&mut redis, idle, deliveries)?;
        while take_over(&mut redis, name, idle)? {}
        // While there is nothing new, what others left is looked for once in a while.
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(name).arg("COUNT").arg(100).arg("BLOCK").arg(idle.min(5000));
        let streams: Option<Vec<(String, Vec<Entry>)>> = read.arg("STREAMS").arg(STREAM).arg(">").query(&mut redis)?;
        for (id, fields) in streams.into_iter().flatten().flat_map(|(_, entries)| entries) {
            handle(&mut redis, &id, &fields)?;
        }
    }
}

/// Sets aside what was delivered too often.
fn set_aside(redis: &mut Connection, idle: u64, deliveries: u64) -> RedisResult<()> {
    let mut pending = cmd("XPENDING");
    pending.arg(STREAM).arg(GROUP).arg("IDLE").arg(idle).arg("-").arg("+").arg(100);
    let pending: Vec<(String, String, u64, u64)> = pending.query(redis)?;
    for (id, _, _, delivered) in pending.into_iter().filter(|(_, _, _, delivered)| *delivered >= deliveries) {
        eprintln!("{id}: set aside after {delivered} deliveries");
        cmd("EVAL").arg(SET_ASIDE).arg(2).arg(STREAM).arg(DEAD).arg(GROUP).arg(&id).exec(redis)?;
    }
    Ok(())
}

/// Does one event that another consumer took and did not finish, or that failed; false when there is none. One at a time: an event that
/// kills its consumer adds to its own count of deliveries, and to no other's.
fn take_over(redis: &mut Connection, name: &str, idle: u64) -> RedisResult<bool> {
    let mut claim = cmd("XAUTOCLAIM");
    claim.arg(STREAM).arg(GROUP).arg(name).arg(idle).arg("0-0").arg("COUNT").arg(1);
    // What was trimmed meanwhile is forgotten by Redis 7, and nil before; its deliveries are counted then.
    let reply: Vec<redis::Value> = claim.query(redis)?;
    let entries = reply.into_iter().nth(1).unwrap_or(redis::Value::Nil);
    let entries: Vec<Option<Entry>> = redis::from_redis_value(entries)?;
    for (id, fields) in entries.iter().flatten() {
        handle(redis, id, fields)?;
    }
    Ok(!entries.is_empty())
}

/// Only an error of Redis is an error here. An event that cannot be done stays pending, and comes again: the trouble may be over by then.
fn handle(redis: &mut Connection, entry: &str, fields: &HashMap<String, String>) -> RedisResult<()> {
    let event: Value = fields.get("data").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
    // serde_json keeps every 64-bit integer; an f64 would round above 2^53.
    let (Some(id), Some(account), Some(cents)) = (fields.get("id"), event["account"].as_u64(), event["cents"].as_i64())
    else {
        eprintln!("{entry}: not an order");
        return Ok(());
    };
    let mut finish = cmd("EVAL");
    finish.arg(FINISH).arg(3).arg(STREAM).arg(format!("{SEEN}{id}")).arg(REVENUE);
    finish.arg(GROUP).arg(entry).arg(REMEMBER).arg(account).arg(cents).exec(redis)
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
