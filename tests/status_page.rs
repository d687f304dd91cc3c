//! The page of `meteorit_status` in a real Chromium: what it says while nothing comes in, under load, while Redis is away, while the
//! spool is replayed and after it; on a phone, in the dark, by keyboard. Pictures of it are left in target/tmp.

mod common;

use common::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

const TAB: char = '\u{E004}';
const ARROW_DOWN: char = '\u{E015}';

const LONG: &str =
    "= /a/location/with_quite_a_long_name_that_nobody_could_want_to_break_in_the_middle/of/a/small/screen";

struct Site {
    /// The first to end: its open connections would keep nginx.
    browser: Browser,
    nginx: Nginx,
    /// What leads nginx to Redis.
    proxy: Proxy,
    redis: Redis,
}

impl Site {
    /// With so many workers and these settings of its Redis. The page is open, and has its first answer.
    #[track_caller]
    fn start(workers: usize, settings: &str) -> Site {
        let redis = Redis::start();
        let proxy = Proxy::start(redis.port());
        let nginx = Nginx::builder()
            .worker_processes(workers)
            .http(&format!("meteorit_redis queue {{ server {}; {settings} }}", proxy.url()))
            .server(&format!(
                "server_name intake.example;
                 location = /status {{ meteorit_status; access_log off; }}
                 location = /events {{ meteorit_pass queue; meteorit_command RPUSH list $event; }}
                 location {LONG} {{ meteorit_pass queue; meteorit_command INCR n; }}"
            ))
            .allow_log("redis \"queue\"")
            .start();
        let site = Site { browser: Browser::start(), nginx, proxy, redis };
        site.browser.set_screen(1200, 900, "light");
        site.browser.open(&site.nginx.url("/status"));
        site.wait_headline("Ready. No events come in.");
        site
    }

    /// Sends so many events, which all get this status.
    #[track_caller]
    fn send(&self, count: usize, event: &str, status: u16) {
        let mut http = Http::connect(self.nginx.port());
        (0..count).for_each(|_| assert_eq!(http.post("/events", event).status, status));
    }

    #[track_caller]
    fn text(&self, script: &str) -> String {
        self.browser.run(&format!("return String({script})")).as_str().expect("text").to_owned()
    }

    #[track_caller]
    fn headline(&self) -> String {
        self.text("document.getElementById('headline').textContent")
    }

    #[track_caller]
    fn wait_headline(&self, part: &str) {
        let is_said = within(SOON, || self.headline().contains(part));
        assert!(is_said, "{:?} does not say {part:?}", self.headline());
    }

    /// What stands under a title in the first row of a table.
    #[track_caller]
    fn cell(&self, table: &str, title: &str) -> String {
        self.text(&format!("document.querySelector('#{table} td[data-label=\"{title}\"]')?.textContent"))
    }

    #[track_caller]
    fn wait_cell(&self, table: &str, title: &str, value: &str) {
        let is_there = within(SOON, || self.cell(table, title) == value);
        assert!(is_there, "{title} in {table} is {:?}, not {value:?}", self.cell(table, title));
    }

    /// Pictures of the page as it is now, and that it fits on each screen, with nothing for the console to complain of.
    #[track_caller]
    fn photograph(&self, name: &str) {
        for (screen, width, height, scheme) in
            [("phone", 320, 640, "light"), ("dark", 1200, 900, "dark"), ("light", 1200, 900, "light")]
        {
            self.browser.set_screen(width, height, scheme);
            let hidden = self.text("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(hidden, "0", "{name} on {screen}");
            self.browser.photograph(&format!("status-{name}-{screen}"));
        }
        assert_eq!(self.browser.complaints(), [""; 0]);
    }
}

#[test]
fn it_says_what_becomes_of_events_before_in_and_after_an_outage() {
    let site = Site::start(1, "spool spool; timeout 60s; stall_timeout 60s;");
    assert_eq!(site.cell("redis", "State"), "not used yet");
    site.photograph("idle");

    let (mut stored, mut rejected, mut spooled) = (0, 3, 0);
    site.send(rejected, "{", 400);
    site.wait_headline("Many events are rejected");
    // Until the curves have a few points.
    let load = || {
        site.send(1, "{", 400);
        site.send(20, r#"{"page":"/home"}"#, 204);
        (stored, rejected) = (stored + 20, rejected + 1);
        site.headline().contains("All good events are stored")
            && site.browser.run("return samples.length >= 12") == true
    };
    eventually(SOON, load);
    site.photograph("load");
    site.wait_cell("locations", "Stored", &site.text(&format!("whole.format({stored})")));
    assert_eq!(site.cell("locations", "Location"), "intake.example = /events");
    let rejected = site.text(&format!("whole.format({rejected})"));
    assert_eq!(site.cell("locations", "Rejected"), rejected);
    assert_eq!((site.cell("causes", "Cause"), site.cell("causes", "Events")), ("rejected: not json".into(), rejected));
    assert_eq!(site.cell("redis", "State"), "connected");
    assert_eq!(site.cell("spool", "Records left"), "0");
    let chart = site.text("document.getElementById('rate').getAttribute('aria-label')");
    assert!(chart.starts_with("Events a second, now: "), "{chart}");

    site.redis.stop();
    // Nobody knows of the first whether it was done.
    eventually(SOON, || post(site.nginx.port(), "/events", "{}").status == 202);
    let outage = || {
        site.send(20, r#"{"page":"/home"}"#, 202);
        spooled += 20;
        let headline = site.headline();
        headline.contains("Redis queue is away for ") && headline.contains(": events go to the spool") && spooled >= 200
    };
    eventually(SOON, outage);
    site.photograph("outage");
    let all: usize = site.text("samples.at(-1).doc.locations[0].events.spooled").parse().expect("a number");
    assert!(all <= spooled + 10, "{all}");
    eventually(SOON, || {
        let left = site.text("samples.at(-1).doc.redis[0].spool.records").parse::<usize>().expect("a number");
        left > spooled && site.cell("spool", "Records left") == site.text(&format!("whole.format({left})"))
    });
    assert!(site.cell("redis", "State").starts_with("away for "));

    // Redis is back, and takes its time.
    let nowhere = Port::lease();
    site.proxy.lead_to(nowhere.number());
    site.redis.restart();
    site.redis.cmd(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    site.proxy.lead_to(site.redis.port());
    site.wait_headline("Replaying the spool: ");
    site.photograph("recovery");
    site.redis.cmd(&["CLIENT", "UNPAUSE"]);
    site.wait_cell("spool", "Records left", "0");
    eventually(SOON, || {
        site.send(1, "{}", 204);
        site.headline().contains("events are stored")
    });
    site.photograph("recovered");
    assert!(site.redis.len("list") > spooled);
}

#[test]
fn it_says_that_events_are_refused_where_there_is_no_spool() {
    let site = Site::start(1, "");
    site.redis.stop();
    eventually(SOON, || {
        post(site.nginx.port(), "/events", "{}");
        let headline = site.headline();
        headline.contains("Redis queue is away for ") && headline.contains(": events are refused (503)")
    });
    // A screen reader tells it once, not with each second.
    assert!(site.text("spoken.textContent").starts_with("Redis queue is away for "));
    site.browser.run("window.told = 0; new MutationObserver(() => told += 1).observe(spoken, {childList: true})");
    let headline = site.headline();
    eventually(SOON, || {
        post(site.nginx.port(), "/events", "{}");
        site.headline() != headline && site.browser.run("return samples.length > 15") == true
    });
    assert_eq!(site.text("told"), "0");
    site.wait_cell("causes", "Cause", "unavailable: away");
    site.photograph("refused");
    site.redis.restart();
    eventually(SOON, || {
        post(site.nginx.port(), "/events", "{}");
        site.headline().contains("All events are stored")
    });
}

#[test]
fn a_redis_is_away_although_a_worker_that_nothing_came_to_has_not_tried_it() {
    let site = Site::start(2, "spool spool;");
    site.redis.stop();
    let mut http = Http::connect(site.nginx.port());
    eventually(SOON, || {
        http.post("/events", "{}");
        site.headline().contains("Redis queue is away for ")
    });
    assert_eq!(site.text("samples.at(-1).doc.redis[0].breaker.closed"), "1");
    assert!(site.headline().contains(": events go to the spool"), "{}", site.headline());
    site.redis.restart();
    eventually(SOON, || {
        http.post("/events", "{}");
        site.headline().contains("All events are stored")
    });
}

#[test]
fn it_says_that_nginx_does_not_answer_and_since_when() {
    let site = Site::start(1, "");
    site.nginx.quit();
    site.wait_headline("No answer from nginx for ");
    assert_eq!(site.cell("redis", "Name").split(' ').next(), Some("queue"), "what was last known stays");
}

#[test]
fn a_keyboard_reaches_and_works_everything() {
    let site = Site::start(1, "");
    site.send(1, "{}", 204);
    site.wait_cell("locations", "Stored", "1");
    site.browser.press(TAB);
    assert_eq!(site.text("document.activeElement.id"), "where");
    assert_eq!(site.text("getComputedStyle(document.activeElement).outlineStyle"), "solid");
    site.browser.press(ARROW_DOWN);
    site.browser.press(ARROW_DOWN);
    let chosen = site.text("document.activeElement.selectedOptions[0].textContent");
    assert_eq!(chosen, format!("intake.example {LONG} to queue"));
    // Nothing came in there.
    let words = || site.text("document.getElementById('verdicts').textContent");
    eventually(SOON, || words().starts_with("stored 0/s"));
    let reachable = site.text("document.querySelectorAll('a, button, input, select, [tabindex]').length");
    assert_eq!(reachable, "1", "what is new to reach has to be tried here");
}
