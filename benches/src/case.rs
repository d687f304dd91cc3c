//! What there is to measure.

use crate::peer::{LUA, PEERS, Peer, RETURN, WAYS, peer};

/// A kind of question, by the name that ONLY knows it by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Every peer, with the same load.
    Peers,
    /// Larger events.
    Sizes,
    /// Fewer and more clients.
    Connections,
    /// Other ways to reach Redis.
    Ways,
    /// Many locations, and clients that are silent.
    Growth,
}

impl Group {
    pub const ALL: [Group; 5] = [Group::Peers, Group::Sizes, Group::Connections, Group::Ways, Group::Growth];

    pub fn name(self) -> &'static str {
        match self {
            Group::Peers => "peers",
            Group::Sizes => "sizes",
            Group::Connections => "connections",
            Group::Ways => "ways",
            Group::Growth => "growth",
        }
    }
}

#[derive(Clone, Copy)]
pub struct Case {
    pub group: Group,
    pub peer: &'static Peer,
    /// Of an event, in bytes.
    pub size: usize,
    /// Clients that send all the time.
    pub connections: usize,
    /// Other locations of the same kind.
    pub locations: usize,
    /// Clients that have sent one event and are silent since.
    pub idle: usize,
}

impl Case {
    fn of(group: Group, peer: &'static Peer) -> Case {
        Case { group, peer, size: 300, connections: 64, locations: 0, idle: 0 }
    }

    /// As a row of a table begins.
    pub fn title(&self) -> String {
        let title = self.peer.title;
        match self.group {
            Group::Peers | Group::Ways => title.to_owned(),
            Group::Sizes => format!("{title}, {} bytes", self.size),
            Group::Connections => format!("{title}, {} connections", self.connections),
            Group::Growth if self.locations > 0 => {
                format!("{title}, among {} locations", self.locations)
            }
            Group::Growth if self.idle > 0 => format!("{title}, {} silent clients", self.idle),
            Group::Growth => title.to_owned(),
        }
    }

    /// Whether the other is the same load.
    pub fn is_beside(&self, other: &Case) -> bool {
        self.group == other.group && self.size == other.size && self.connections == other.connections
    }
}

/// All of them, or those of which `only` has the group or the peer: names, separated by commas or blanks.
pub fn cases(only: &str) -> Result<Vec<Case>, String> {
    let beside = PEERS.iter().filter(|peer| !WAYS.contains(&peer.name));
    let mut cases: Vec<Case> = beside.map(|peer| Case::of(Group::Peers, peer)).collect();
    let some = [RETURN, LUA, "stored", "queued"].map(peer);
    for size in [1000, 10_000] {
        cases.extend(some.map(|peer| Case { size, ..Case::of(Group::Sizes, peer) }));
    }
    for connections in [1, 16, 256] {
        cases.extend(some.map(|peer| Case { connections, ..Case::of(Group::Connections, peer) }));
    }
    let ways = [RETURN, LUA, "stored"].into_iter().chain(WAYS).map(peer);
    cases.extend(ways.map(|peer| Case::of(Group::Ways, peer)));
    let stored = Case::of(Group::Growth, peer("stored"));
    cases.extend([stored, Case { locations: 1000, ..stored }, Case { idle: 10_000, ..stored }]);

    let words: Vec<&str> = only.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    let is_group = |word: &&&str| Group::ALL.iter().any(|group| group.name() == **word);
    let (groups, peers): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| is_group(word));
    if let Some(unknown) = peers.iter().find(|name| PEERS.iter().all(|peer| peer.name != **name)) {
        let known: Vec<&str> = Group::ALL.map(Group::name).into_iter().chain(PEERS.map(|peer| peer.name)).collect();
        return Err(format!("ONLY does not know \"{unknown}\"; it knows {}", known.join(", ")));
    }
    cases.retain(|case| groups.is_empty() || groups.contains(&case.group.name()));
    cases.retain(|case| peers.is_empty() || peers.contains(&case.peer.name));
    Ok(cases)
}
