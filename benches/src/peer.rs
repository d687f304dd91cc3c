//! The peers: what is compared, each a location of an nginx of its own.

/// What an nginx has besides its own modules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Modules {
    None,
    Echo,
    Lua,
    Meteorit,
}

pub struct Peer {
    /// For ONLY, and for the names of files.
    pub name: &'static str,
    pub title: &'static str,
    pub modules: Modules,
    /// In http{}.
    pub http: &'static str,
    /// In the location.
    pub location: &'static str,
    /// Events in an array; None for a request that is one event.
    pub batch: Option<usize>,
    /// The status of every answer.
    pub status: u16,
}

/// The baselines that everything is put in relation to.
pub const RETURN: &str = "return-204";
pub const LUA: &str = "lua";
pub const LUA_LIST: &str = "lua-list";

const REDIS: &str = "meteorit_redis queue { server redis://127.0.0.1:@REDIS@/0; }";
const LARGE: &str = "meteorit_redis queue { server redis://127.0.0.1:@REDIS@/0; backlog 256m; }";
const AWAY: &str = "meteorit_redis queue { server redis://127.0.0.1:1/0; spool @DIR@/spool max_size=16g; }";
const XADD: &str = "meteorit_pass queue; meteorit_command XADD events MAXLEN ~ 100000 * event $event;";
const BATCH: &str =
    "meteorit_batch all; meteorit_pass queue; meteorit_command XADD events MAXLEN ~ 100000 * event $event;";

/// Those that reach Redis in another way than over one TCP connection.
pub const WAYS: [&str; 3] = ["unix-socket", "connections-2", "connections-4"];

pub const PEERS: [Peer; 17] = [
    Peer {
        name: RETURN,
        title: "nginx, return 204",
        modules: Modules::None,
        http: "",
        location: "return 204;",
        batch: None,
        status: 204,
    },
    Peer {
        name: "body-204",
        title: "nginx, reads the body, 204",
        modules: Modules::Echo,
        http: "",
        location: "echo_read_request_body; echo_status 204;",
        batch: None,
        status: 204,
    },
    Peer {
        name: LUA,
        title: "Lua, XADD",
        modules: Modules::Lua,
        http: "init_by_lua_block { redis_port = @REDIS@ }",
        location: "content_by_lua_file @BENCHES@/lua/xadd.lua;",
        batch: None,
        status: 204,
    },
    Peer {
        name: LUA_LIST,
        title: "Lua, RPUSH",
        modules: Modules::Lua,
        http: "init_by_lua_block { redis_port = @REDIS@ }",
        location: "content_by_lua_file @BENCHES@/lua/rpush.lua;",
        batch: None,
        status: 204,
    },
    Peer {
        name: "stored",
        title: "Meteorit, XADD",
        modules: Modules::Meteorit,
        http: REDIS,
        location: XADD,
        batch: None,
        status: 204,
    },
    Peer {
        name: "stored-list",
        title: "Meteorit, RPUSH",
        modules: Modules::Meteorit,
        http: REDIS,
        location: "meteorit_pass queue; meteorit_command RPUSH events $event;",
        batch: None,
        status: 204,
    },
    Peer {
        name: "queued",
        title: "Meteorit, XADD, queued",
        modules: Modules::Meteorit,
        http: REDIS,
        location: "meteorit_ack queued; meteorit_pass queue; meteorit_command XADD events MAXLEN ~ 100000 * event $event;",
        batch: None,
        status: 202,
    },
    Peer {
        name: "schema",
        title: "Meteorit, XADD, schema",
        modules: Modules::Meteorit,
        http: REDIS,
        location: "meteorit_schema @BENCHES@/schema.json; meteorit_pass queue; meteorit_command XADD events MAXLEN ~ 100000 * event $event;",
        batch: None,
        status: 204,
    },
    Peer {
        name: "counting",
        title: "Meteorit, four commands",
        modules: Modules::Meteorit,
        http: "meteorit_redis queue { server redis://127.0.0.1:@REDIS@/0; } meteorit_time $day %Y-%m-%d;",
        location: "meteorit_pass queue; \
                   meteorit_command XADD events MAXLEN ~ 100000 * event $event; \
                   meteorit_command HINCRBY visits:$day $event_page 1; \
                   meteorit_command PFADD visitors:$day $event_user; \
                   meteorit_command EXPIRE visits:$day 2678400;",
        batch: None,
        status: 204,
    },
    Peer {
        name: "batch-1",
        title: "Meteorit, an array of 1",
        modules: Modules::Meteorit,
        http: LARGE,
        location: BATCH,
        batch: Some(1),
        status: 204,
    },
    Peer {
        name: "batch-10",
        title: "Meteorit, batches of 10",
        modules: Modules::Meteorit,
        http: LARGE,
        location: BATCH,
        batch: Some(10),
        status: 204,
    },
    Peer {
        name: "batch-100",
        title: "Meteorit, batches of 100",
        modules: Modules::Meteorit,
        http: LARGE,
        location: BATCH,
        batch: Some(100),
        status: 204,
    },
    Peer {
        name: "batch-1000",
        title: "Meteorit, batches of 1000",
        modules: Modules::Meteorit,
        http: LARGE,
        location: BATCH,
        batch: Some(1000),
        status: 204,
    },
    Peer {
        name: "spool",
        title: "Meteorit, everything to the spool",
        modules: Modules::Meteorit,
        http: AWAY,
        location: XADD,
        batch: None,
        status: 202,
    },
    Peer {
        name: WAYS[0],
        title: "Meteorit, XADD, Unix socket",
        modules: Modules::Meteorit,
        http: "meteorit_redis queue { server redis+unix://@RUN@/redis.sock; }",
        location: XADD,
        batch: None,
        status: 204,
    },
    Peer {
        name: WAYS[1],
        title: "Meteorit, XADD, 2 connections",
        modules: Modules::Meteorit,
        http: "meteorit_redis queue { server redis://127.0.0.1:@REDIS@/0; connections 2; }",
        location: XADD,
        batch: None,
        status: 204,
    },
    Peer {
        name: WAYS[2],
        title: "Meteorit, XADD, 4 connections",
        modules: Modules::Meteorit,
        http: "meteorit_redis queue { server redis://127.0.0.1:@REDIS@/0; connections 4; }",
        location: XADD,
        batch: None,
        status: 204,
    },
];

pub fn peer(name: &str) -> &'static Peer {
    PEERS.iter().find(|peer| peer.name == name).expect("a peer of that name")
}
