//! What most tests of events begin with: an nginx with this module, and the Redis that it writes to.

use super::{Http, Nginx, NginxBuilder, Redis};

/// A test's own file adds what it asks of it.
pub struct Site {
    pub nginx: Nginx,
    pub redis: Redis,
}

impl Site {
    /// With these locations, or whole servers. `PASS` in them stands for a meteorit_pass with one command, which pushes the event to
    /// `list`, and `REDIS` for the URL.
    #[track_caller]
    pub fn of(builder: NginxBuilder, text: &str) -> Site {
        let redis = Redis::start();
        let text = text.replace("PASS", "meteorit_pass REDIS; meteorit_command RPUSH list $event;");
        let nginx = builder.text(&text.replace("REDIS", &redis.url())).start();
        Site { nginx, redis }
    }

    #[track_caller]
    pub fn http(&self) -> Http {
        Http::connect(self.nginx.port())
    }

    /// The texts of a list, in order.
    #[track_caller]
    pub fn list(&self, key: &str) -> Vec<String> {
        self.redis.list(key).into_iter().map(|element| String::from_utf8(element).expect("text")).collect()
    }

    /// The same, of what has been added since the last time.
    #[track_caller]
    pub fn taken(&self, key: &str) -> Vec<String> {
        let list = self.list(key);
        self.redis.cmd(&["DEL", key]);
        list
    }
}
