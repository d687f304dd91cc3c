//! A scene: a Redis that keeps what it acknowledges, a proxy before it, an nginx, and clients with a ledger; a trouble is what a test adds.

use super::*;
use crate::common::ledger::{Book, Counts, Ends, Ledger, Traffic};
use std::path::PathBuf;

/// A configuration, and what it promises.
#[derive(Clone)]
pub struct Variant {
    pub name: &'static str,
    /// Of `meteorit_redis`; `%SPOOL%` is a folder that outlives nginx.
    pub settings: &'static str,
    /// Of the location.
    pub location: &'static str,
    pub promise: Promise,
}

impl Variant {
    fn is_queued(&self) -> bool {
        self.location.contains("queued")
    }

    fn has_spool(&self) -> bool {
        self.settings.contains("spool")
    }

    /// For a trouble in which workers end before Redis has taken what they hold: what was queued may be lost, and they say so.
    pub fn after_a_loss(self) -> Variant {
        match self.is_queued() && !self.has_spool() {
            true => Variant { promise: self.promise.unless_told(), ..self },
            false => self,
        }
    }

    /// For a trouble in which Redis refuses for a while and takes the next command of the pipeline: what was queued, or replayed, and
    /// refused comes behind it.
    pub fn after_a_refusal(self) -> Variant {
        match self.is_queued() || self.has_spool() {
            true => Variant { promise: self.promise.in_any_order(), ..self },
            false => self,
        }
    }
}

/// Times so short that a test sees them pass.
const TIMES: &str = "timeout 600ms; stall_timeout 1200ms; connect_timeout 600ms;";

/// All of them, or the one that METEORIT_LEDGER_VARIANT names.
pub fn variants() -> Vec<Variant> {
    let wanted = std::env::var("METEORIT_LEDGER_VARIANT").ok();
    let variants = all_variants().into_iter().filter(|variant| wanted.as_ref().is_none_or(|name| name == variant.name));
    let variants: Vec<Variant> = variants.collect();
    assert!(!variants.is_empty(), "METEORIT_LEDGER_VARIANT={wanted:?} names none");
    variants
}

fn all_variants() -> Vec<Variant> {
    vec![
        Variant { name: "stored", settings: "", location: "", promise: Promise::stored() },
        Variant {
            name: "queued",
            // So little that the bound is met.
            settings: "max_pending 2000; drain 4s;",
            location: "meteorit_ack queued;",
            promise: Promise::queued(2000),
        },
        Variant { name: "stored, spool", settings: "spool %SPOOL%;", location: "", promise: Promise::spooled() },
        Variant {
            name: "queued, spool",
            settings: "max_pending 2000; drain 4s; spool %SPOOL%;",
            location: "meteorit_ack queued;",
            promise: Promise::queued(2000),
        },
    ]
}

pub struct Scene {
    pub variant: Variant,
    pub redis: Redis,
    pub proxy: Proxy,
    pub nginx: Nginx,
    builder: NginxBuilder,
    traffic: Traffic,
    // Before the rest: the clients stop first.
    ledger: Option<Ledger>,
}

impl Scene {
    /// For troubles of Redis and the network, where nginx has to answer each request.
    #[track_caller]
    pub fn start(variant: &Variant) -> Scene {
        Scene::with(variant, 1, Traffic::default(), "")
    }

    #[track_caller]
    pub fn with(variant: &Variant, workers: usize, traffic: Traffic, main: &str) -> Scene {
        Scene::of(variant, traffic, Nginx::builder().worker_processes(workers).main(main))
    }

    #[track_caller]
    pub fn of(variant: &Variant, traffic: Traffic, nginx: NginxBuilder) -> Scene {
        let redis = Redis::with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--enable-debug-command",
            "yes",
            "--loading-process-events-interval-bytes",
            "1024",
        ]);
        let proxy = Proxy::start(redis.port());
        let Variant { settings, location, .. } = variant;
        let settings = settings.replace("%SPOOL%", &redis.dir().join("spool").display().to_string());
        let builder = nginx
            .http(&format!("meteorit_redis queue {{ server {}; {TIMES} {settings} }}", proxy.url()))
            .server(&format!(
                "meteorit_command RPUSH ledger $event;
                 client_max_body_size 1m;
                 add_header Worker $pid always;
                 location = /events {{ meteorit_pass queue; {location} }}
                 location = /batches {{ meteorit_pass queue; meteorit_batch all; meteorit_max_event_size 64k; {location} }}"
            ))
            .body_buffer("1m")
            .exit_timeout(Duration::from_secs(20));
        let nginx = builder.clone().start();
        nginx.allow_log("events that were accepted are lost");
        let ledger = Some(Ledger::open(nginx.port(), traffic.clone(), 0));
        let scene = Scene { variant: variant.clone(), redis, proxy, nginx, builder, traffic, ledger };
        scene.goes_on();
        scene
    }

    pub fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().expect("clients at work")
    }

    /// Events are taken.
    #[track_caller]
    pub fn goes_on(&self) {
        self.ledger().wait_promised(100);
    }

    /// Events have their answers, whatever they are.
    #[track_caller]
    pub fn is_answered(&self) {
        self.ledger().wait_answered(100);
    }

    /// Turns the page: stops the clients, compares, and sends them on with the numbers that follow.
    #[track_caller]
    pub fn turn(&mut self) -> Counts {
        let book = self.ledger.take().expect("clients at work").close();
        // Workers that are on their way out hand over what they hold.
        self.nginx.reload();
        self.nginx.wait_drained();
        self.wait_replayed(&book, &[]);
        self.settle();
        let counts = self.audit(&book, &[]);
        self.redis.cmd(&["DEL", "ledger"]);
        self.ledger = Some(Ledger::open(self.nginx.port(), self.traffic.clone(), book.next));
        counts
    }

    /// Ends nginx and compares.
    #[track_caller]
    pub fn end(self) -> Counts {
        self.end_with(&[])
    }

    /// Likewise; what is in these counts too, behind what is in the scene's own Redis.
    #[track_caller]
    pub fn end_with(mut self, others: &[&Redis]) -> Counts {
        let book = self.ledger.take().expect("clients at work").close();
        self.wait_replayed(&book, others);
        self.nginx.signal(self.nginx.master_pid(), libc::SIGQUIT);
        self.nginx.wait_exit();
        self.audit_with_heir(&book, others)
    }

    /// For an nginx that is to end by what the test has done.
    #[track_caller]
    pub fn ended(mut self) -> Counts {
        self.nginx.wait_exit();
        let book = self.ledger.take().expect("clients at work").close();
        self.audit_with_heir(&book, &[])
    }

    /// Another nginx takes over what this one has left behind in its spool.
    #[track_caller]
    fn audit_with_heir(self, book: &Book, others: &[&Redis]) -> Counts {
        if self.variant.has_spool() && spooled(&self.spool()).0 > 0 {
            let heir = self.builder.clone().start();
            self.wait_replayed(book, others);
            heir.stop();
        }
        self.audit_all(book, others)
    }

    /// Where there is a spool: waits until nothing is left in it, as long as it becomes less.
    #[track_caller]
    fn wait_replayed(&self, book: &Book, others: &[&Redis]) {
        if !self.variant.has_spool() {
            return;
        }
        let left = || spooled(&self.spool()).0;
        let mut least = u64::MAX;
        while least > 0 {
            let less = wait_for(SOON, || Some(left()).filter(|left| *left < least));
            least = less.unwrap_or_else(|| panic!("nothing more is replayed: {}", spooled(&self.spool()).1));
        }
        // What was queued may be on its way to Redis, or to the spool.
        let is_there = || book.try_audit(&self.stored(others), &self.variant.promise, &self.ends()).is_ok();
        if !within(SOON, is_there) {
            println!("the spool: {}", spooled(&self.spool()).1);
        }
    }

    fn spool(&self) -> PathBuf {
        self.redis.dir().join("spool")
    }

    fn stored(&self, others: &[&Redis]) -> Vec<Vec<u8>> {
        [&self.redis].into_iter().chain(others.iter().copied()).flat_map(|redis| redis.list("ledger")).collect()
    }

    fn ends(&self) -> Ends {
        Ends::of(self.nginx.killed(), &self.nginx.error_log())
    }

    #[track_caller]
    fn audit_all(self, book: &Book, others: &[&Redis]) -> Counts {
        [&self.redis].into_iter().chain(others.iter().copied()).for_each(wait_disconnected);
        self.audit(book, others)
    }

    #[track_caller]
    fn audit(&self, book: &Book, others: &[&Redis]) -> Counts {
        let counts = book.audit(&self.stored(others), &self.variant.promise, &self.ends());
        println!("{}: {counts}", self.variant.name);
        counts
    }

    /// Waits until Redis has run whatever was on its way to it.
    #[track_caller]
    fn settle(&self) {
        eventually(SOON, || {
            let clients = tcp_clients(&self.redis);
            let field = |client: &str, name: &str| {
                client.split(' ').find_map(|field| field.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or(0)
            };
            // Nobody sends any more: what has been idle for a second has nothing on its way.
            clients.iter().all(|client| field(client, "idle=") >= 1 && field(client, "qbuf=") == 0)
        });
    }
}

/// A connection that is gone has had its commands run, or never will.
#[track_caller]
fn wait_disconnected(redis: &Redis) {
    eventually(SOON, || tcp_clients(redis).is_empty());
}

/// The test's own are on the unix socket.
fn tcp_clients(redis: &Redis) -> Vec<String> {
    let clients: String = redis.ask(&["CLIENT", "LIST"]);
    clients.lines().filter(|client| client.contains("addr=127.0.0.1")).map(str::to_string).collect()
}

/// Runs a trouble for each variant, with one worker, and sees that nginx has answered every request.
#[track_caller]
pub fn through(trouble: impl Fn(&Scene)) -> Counts {
    through_each(variants(), trouble)
}

/// Likewise, for a trouble in which Redis refuses for a while.
#[track_caller]
pub fn through_refusals(trouble: impl Fn(&Scene)) -> Counts {
    through_each(variants().into_iter().map(Variant::after_a_refusal).collect(), trouble)
}

#[track_caller]
fn through_each(variants: Vec<Variant>, trouble: impl Fn(&Scene)) -> Counts {
    let mut all = Counts::default();
    for variant in variants {
        let scene = Scene::start(&variant);
        trouble(&scene);
        scene.goes_on();
        let counts = scene.end();
        assert_eq!(counts.cut(), 0, "{}: nginx left requests without an answer: {counts}", variant.name);
        all.add(&counts);
    }
    all
}
