//! The consumers in examples/: killed with their hands full they lose nothing, and what comes twice counts once.

mod common;

use common::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Above 2^53, and odd: a double would make it another.
const FIRST_ACCOUNT: u64 = (1 << 53) + 1;

#[test]
fn a_group_in_python_loses_and_doubles_nothing_when_its_consumers_are_killed() {
    GROUP.is_killed(python("group.py"));
}

#[test]
fn a_group_in_rust_loses_and_doubles_nothing_when_its_consumers_are_killed() {
    GROUP.is_killed(rust("consumer-group"));
}

#[test]
fn a_list_in_python_loses_and_doubles_nothing_when_its_workers_are_killed() {
    LIST.is_killed(python("list.py"));
}

#[test]
fn a_list_in_rust_loses_and_doubles_nothing_when_its_workers_are_killed() {
    LIST.is_killed(rust("consumer-list"));
}

#[test]
fn an_event_that_a_group_can_never_do_is_set_aside_after_its_deliveries() {
    for program in [python("group.py"), rust("consumer-group")] {
        let (redis, nginx, _consumers) = GROUP.with_one_that_is_bad(&program);
        redis.wait_len("{orders}:dead", 1);
        let (_, fields) = redis.stream("{orders}:dead").remove(0);
        let fields: Vec<String> = fields.into_iter().map(|text| String::from_utf8(text).unwrap()).collect();
        assert_eq!((fields[0].as_str(), fields[2].as_str(), fields[3].as_str()), ("entry", "id", "bad"));
        assert!(fields[5].contains(r#""account":"nobody""#), "{fields:?}");
        assert_eq!(
            redis.hash("{orders}:revenue"),
            BTreeMap::from([("7".into(), "2".into()), ("8".into(), "1".into())])
        );
        eventually(SOON, || GROUP.is_done(&redis));
        drop(nginx);
    }
}

#[test]
fn an_event_that_a_list_can_never_do_is_set_aside_at_once() {
    for program in [python("list.py"), rust("consumer-list")] {
        let (redis, nginx, _consumers) = LIST.with_one_that_is_bad(&program);
        redis.wait_len("{jobs}:dead", 1);
        assert!(String::from_utf8_lossy(&redis.list("{jobs}:dead")[0]).contains(r#""account":"nobody""#));
        assert_eq!(redis.hash("{jobs}:done"), BTreeMap::from([("7".into(), "2".into()), ("8".into(), "1".into())]));
        eventually(SOON, || LIST.is_done(&redis));
        drop(nginx);
    }
}

/// A way to hand events to programs.
struct Way {
    path: &'static str,
    /// The hash that adds up what was done.
    effect: &'static str,
    /// How many events this consumer has taken and not finished.
    in_work: fn(&Redis, &str) -> usize,
    /// How many events nobody has finished, or even taken.
    left: fn(&Redis) -> usize,
}

const GROUP: Way = Way {
    path: "/orders",
    effect: "{orders}:revenue",
    in_work: |redis, name| {
        let pending: Vec<(String, String, u64, u64)> =
            redis.ask(&["XPENDING", "orders", "billing", "-", "+", "1000", name]);
        pending.len()
    },
    left: |redis| redis.ask(&["EVAL", LEFT_IN_GROUP, "0"]),
};

const LIST: Way = Way {
    path: "/jobs",
    effect: "{jobs}:done",
    in_work: |redis, name| redis.len(&format!("{{jobs}}:working:{name}")),
    left: |redis| redis.ask(&["EVAL", LEFT_IN_LIST, "0"]),
};

// In one step each, for events move meanwhile.
const LEFT_IN_GROUP: &str = "
    local group = redis.call('XINFO', 'GROUPS', 'orders')[1]
    local at = 1
    while group[at] ~= 'last-delivered-id' do at = at + 1 end
    return redis.call('XPENDING', 'orders', 'billing')[1] + #redis.call('XRANGE', 'orders', '(' .. group[at + 1], '+', 'COUNT', 1)";
const LEFT_IN_LIST: &str = "
    local count = redis.call('LLEN', 'jobs')
    for _, key in ipairs(redis.call('KEYS', '{jobs}:working:*')) do count = count + redis.call('LLEN', key) end
    return count";

impl Way {
    fn is_killed(&self, program: Program) {
        let redis = Redis::start();
        let nginx = NginxBuilder::example("queue.conf", &redis).start();
        // Every tenth event comes twice, as from a client that never got its answer.
        let number = |id: u64| id - u64::from(id % 10 == 9);
        let load = Load::start(nginx.port(), 2, Until::Elapsed(SOON), {
            let path = self.path;
            move |id| Request::post(path, event(number(id))).to_bytes()
        });
        let mut consumers = ["a", "b"].map(|name| program.start(name, &redis, "50"));
        for round in 0..6 {
            let consumer = &mut consumers[round % 2];
            consumer.kill_in_work(self, &redis);
            // Under its own name, or under another, and then somebody else has to take over what it had.
            let name = if round < 4 { consumer.name.clone() } else { format!("{}-{round}", consumer.name) };
            *consumer = program.start(&name, &redis, "50");
        }
        let sent = load.stop();
        assert!(sent.iter().all(|sent| sent.has_status(204)), "not every event was stored");
        let expected: BTreeMap<String, String> =
            sent.iter().map(|sent| number(sent.id)).map(|n| (account(n).to_string(), cents(n).to_string())).collect();
        assert!(expected.len() < sent.len(), "no event came twice");
        eventually(SOON, || self.is_done(&redis));
        let effect = redis.hash(self.effect);
        let wrong: Vec<_> = expected.iter().filter(|(account, cents)| effect.get(*account) != Some(cents)).collect();
        assert!(wrong.is_empty(), "{} of {} are lost or doubled: {:?}", wrong.len(), expected.len(), wrong[0]);
        assert_eq!(effect.len(), expected.len(), "something that was never sent");
    }

    fn is_done(&self, redis: &Redis) -> bool {
        (self.left)(redis) == 0
    }

    /// One event that nobody can do between three that are fine, two of them the same account's.
    fn with_one_that_is_bad(&self, program: &Program) -> (Redis, Nginx, Consumer) {
        let redis = Redis::start();
        let nginx = NginxBuilder::example("queue.conf", &redis).start();
        let consumer = program.start("a", &redis, "3");
        for (id, account) in [("x", "7"), ("bad", r#""nobody""#), ("y", "7"), ("z", "8")] {
            let event = format!(r#"{{"id":"{id}","account":{account},"cents":1}}"#);
            assert_eq!(post(nginx.port(), self.path, event).status, 204);
        }
        eventually(SOON, || redis.hash(self.effect).values().map(|sum| sum.parse::<u64>().unwrap()).sum::<u64>() == 3);
        (redis, nginx, consumer)
    }
}

fn account(number: u64) -> u64 {
    FIRST_ACCOUNT + number
}

fn cents(number: u64) -> u64 {
    number % 100 + 1
}

fn event(number: u64) -> String {
    format!(r#"{{"id":"e-{number}","account":{},"cents":{}}}"#, account(number), cents(number))
}

struct Program(Vec<PathBuf>);

/// By the distribution's interpreter, which knows the distribution's redis-py.
fn python(file: &str) -> Program {
    let python = std::env::var_os("METEORIT_TEST_PYTHON").unwrap_or("/usr/bin/python3".into());
    let knows = Command::new(&python).args(["-c", "import redis"]).stderr(Stdio::null()).status();
    assert!(
        knows.is_ok_and(|status| status.success()),
        "{python:?} has no redis-py: packaging/env/install-build.sh installs the package python3-redis"
    );
    Program(vec![python.into(), Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python").join(file)])
}

fn rust(name: &str) -> Program {
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(2).expect("the profile's folder").join("examples").join(name);
    assert!(path.is_file(), "no {}: `cargo build --examples` makes it", path.display());
    Program(vec![path])
}

impl Program {
    fn start(&self, name: &str, redis: &Redis, deliveries: &str) -> Consumer {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).arg(name).env("REDIS_URL", redis.url());
        // Short, so that what is left is soon taken over.
        command.env("IDLE_MS", "300").env("LEASE_MS", "1000").env("DELIVERIES", deliveries);
        let child = spawn(command, libc::SIGKILL).expect("a consumer");
        Consumer { name: name.to_owned(), child }
    }
}

struct Consumer {
    name: String,
    child: Child,
}

impl Consumer {
    /// kill -9, while it has taken something and not finished it.
    fn kill_in_work(&mut self, way: &Way, redis: &Redis) {
        let pid = self.child.id() as i32;
        eventually(SOON, || {
            assert!(self.child.try_wait().expect("its state").is_none(), "the consumer {} has ended", self.name);
            // What it holds stands still while it does.
            kill(pid, libc::SIGSTOP).expect("SIGSTOP");
            let holds = redis.try_ask::<String>(&["TYPE", way.effect]).is_ok_and(|kind| kind == "hash")
                && (way.in_work)(redis, &self.name) > 0;
            kill(pid, if holds { libc::SIGKILL } else { libc::SIGCONT }).expect("a signal");
            holds
        });
        self.child.wait().expect("its end");
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
