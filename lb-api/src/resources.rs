//! The kinds of resources beside VIPs. A kind is one line of the table below: what is made of it, REST, `lbctl`, the state
//! folder and `POST /config` find there.

pub(crate) mod bgp;
mod health_check;
mod metadata;
mod node;
mod pool;
pub(crate) mod routing;
mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use lb_api_types::bgp::Global;
use lb_api_types::peer::{Group, Peer};
use lb_api_types::policy::{Policy, Set};
use lb_api_types::resource::{Condition, Metadata, NamedHealthCheck, Node, Pool};
use lb_api_types::route::{Address, StaticRoute};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub(crate) use self::health_check::{read_check, read_kind};
pub(crate) use self::metadata::{read_metadata, read_tags};
pub(crate) use self::node::LOCAL;
pub(crate) use self::pool::Ranges;
pub use self::selector::Selector;
use crate::read::Cursor;

/// Resources of a kind at most.
pub const MAX_OF_A_KIND: usize = 4096;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($type:ty): $many:ident, $word:literal, $path:literal, $read:path;)*) => {
        /// A kind of resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        /// A resource of any of these kinds.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(clippy::large_enum_variant, reason = "there are some thousands, and they are seldom moved")]
        pub enum Resource { $($(#[$doc])* $kind($type),)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name, as documents say it: `HealthCheck`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// One of the kind, as people say it: `health check`.
            pub fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// Many of the kind, as the file says it: `health_checks`.
            pub fn many(self) -> &'static str {
                match self { $(Self::$kind => stringify!($many),)* }
            }

            /// Where REST has them, below `/api/v1/`: `health-checks`.
            pub fn path(self) -> &'static str {
                match self { $(Self::$kind => $path,)* }
            }

            /// Reads one.
            pub fn read(self, cursor: &Cursor<'_>) -> Option<Resource> {
                match self { $(Self::$kind => $read(cursor).map(Resource::$kind),)* }
            }

            /// The name of its schema, the schema, and those that it refers to.
            pub(crate) fn schemas(self) -> (String, Vec<(String, RefOr<Schema>)>) {
                match self { $(Self::$kind => {
                    let name = <$type as ToSchema>::name().into_owned();
                    let mut all = vec![(name.clone(), <$type as PartialSchema>::schema())];
                    <$type as ToSchema>::schemas(&mut all);
                    (name, all)
                })* }
            }
        }

        impl Resource {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// What it has in common with the others.
            pub fn metadata(&self) -> &Metadata {
                match self { $(Self::$kind(resource) => &resource.metadata,)* }
            }

            /// The same, to be changed.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self { $(Self::$kind(resource) => &mut resource.metadata,)* }
            }

            /// Takes away what a request says of the status.
            pub fn forget_status(&mut self) {
                match self { $(Self::$kind(resource) => resource.status = None,)* }
            }

            /// What its status says, where it has one.
            pub(crate) fn conditions(&self) -> &[Condition] {
                match self { $(Self::$kind(resource) => {
                    resource.status.as_ref().map_or(&[], |status| &status.conditions)
                })* }
            }

            /// Whether both ask for the same, whatever their revisions are.
            pub fn asks_the_same(&self, other: &Self) -> bool {
                let alike = |a: &Metadata, b: &Metadata| is_same_metadata(a, b);
                match (self, other) {
                    $((Self::$kind(a), Self::$kind(b)) => a.spec == b.spec && alike(&a.metadata, &b.metadata),)*
                    #[allow(unreachable_patterns, reason = "a table of one kind has no others")]
                    _ => false,
                }
            }
        }

        impl Resources {
            $($(#[$doc])* pub fn $many(&self) -> impl Iterator<Item = &$type> {
                self.of(Kind::$kind).filter_map(|resource| match resource {
                    Resource::$kind(resource) => Some(resource),
                    #[allow(unreachable_patterns, reason = "a table of one kind has no others")]
                    _ => None,
                })
            })*
        }
    };
}

kinds! {
    /// Addresses that VIPs are given.
    Pool(Pool): pools, "pool", "pools", pool::read;
    /// Health checks that VIPs name.
    HealthCheck(NamedHealthCheck): health_checks, "health check", "health-checks", health_check::read;
    /// This node.
    Node(Node): nodes, "node", "nodes", node::read;
    /// What BGP has in common for all neighbours.
    BgpGlobal(Global): bgp_global, "bgp global", "bgp/global", bgp::read_global;
    /// Sets that BGP policies name.
    Set(Set): sets, "set", "bgp/sets", bgp::read_set;
    /// BGP policies.
    Policy(Policy): policies, "policy", "bgp/policies", bgp::read_policy;
    /// What BGP neighbours have in common.
    PeerGroup(Group): peer_groups, "peer group", "bgp/peer-groups", bgp::read_group;
    /// BGP neighbours.
    Peer(Peer): peers, "peer", "bgp/peers", bgp::read_peer;
    /// Addresses of this host's interfaces.
    Address(Address): addresses, "address", "addresses", routing::read_address;
    /// Routes beside those of BGP.
    StaticRoute(StaticRoute): static_routes, "static route", "static-routes", routing::read_route;
}

impl Kind {
    /// One of the kind in one word, as the command line says it: `health-check`.
    pub fn noun(self) -> String {
        self.word().replace(' ', "-")
    }

    /// The name of the only one, where it is always there and REST has it at the kind's own path.
    pub fn only(self) -> Option<&'static str> {
        (self == Self::BgpGlobal).then_some(bgp::GLOBAL)
    }

    /// Where a whole configuration has them, as a JSON pointer without its `/`: `pools`, `bgp/peers`. What there is one of
    /// stands in its section itself.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::BgpGlobal => "bgp",
            Self::Set => "bgp/sets",
            Self::Policy => "bgp/policies",
            Self::PeerGroup => "bgp/peer_groups",
            Self::Peer => "bgp/peers",
            Self::Pool | Self::HealthCheck | Self::Node | Self::Address | Self::StaticRoute => {
                self.many()
            }
        }
    }

    /// Where REST has one, below `/api/v1/`, by its name in a path's form.
    pub fn place(self, name: &str) -> String {
        match self.only() {
            Some(_) => self.path().to_owned(),
            None => format!("{}/{name}", self.path()),
        }
    }
}

/// Which one it is; displayed as `pool internal`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Kind, pub String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.word(), self.1)
    }
}

impl Resource {
    /// Which one it is.
    pub fn key(&self) -> Key {
        Key(self.kind(), self.metadata().name.clone())
    }
}

/// Whether both ask for the same, whatever their revisions are.
pub(crate) fn is_same_metadata(a: &Metadata, b: &Metadata) -> bool {
    a.name == b.name && a.labels == b.labels && a.owner == b.owner
}

/// Something that does not fit together: whose it is, the field in it, and what is wrong in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Whose it is.
    pub key: Key,
    /// The field, as a JSON pointer.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Resources by kind and name; a copy costs nothing until one of the two changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources(Arc<BTreeMap<Key, Arc<Resource>>>);

impl Resources {
    /// The one with a key.
    pub fn get(&self, key: &Key) -> Option<&Resource> {
        self.0.get(key).map(|resource| &**resource)
    }

    /// Every one of a kind, by name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        let all = self.0.range(Key(kind, String::new())..);
        all.take_while(move |(key, _)| key.0 == kind).map(|(_, resource)| &**resource)
    }

    /// Every one, by kind and name.
    pub fn all(&self) -> impl Iterator<Item = &Resource> {
        self.0.values().map(|resource| &**resource)
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    /// Whether nothing has changed since one became a copy of the other.
    pub fn is_copy_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Adds one, or replaces the one of its key.
    pub fn insert(&mut self, resource: Resource) {
        Arc::make_mut(&mut self.0).insert(resource.key(), Arc::new(resource));
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &Key) -> Option<Resource> {
        Arc::make_mut(&mut self.0).remove(key).map(Arc::unwrap_or_clone)
    }

    /// What BGP has in common for all neighbours.
    pub(crate) fn global(&self) -> Option<&Global> {
        self.bgp_global().next()
    }

    /// Whether BGP is to say that this node is about to go.
    pub(crate) fn is_drained(&self) -> bool {
        self.nodes().any(|node| node.spec.drain)
    }

    /// Whether BGP is to advertise nothing.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.nodes().any(|node| node.spec.withdraw)
    }

    /// A pool.
    pub(crate) fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools().find(|pool| pool.metadata.name == name)
    }

    /// A health check.
    pub(crate) fn health_check(&self, name: &str) -> Option<&NamedHealthCheck> {
        self.health_checks().find(|check| check.metadata.name == name)
    }

    /// As documents have them: a list for each kind that there is any of.
    pub(crate) fn to_value(&self) -> serde_json::Result<Value> {
        let mut lists: BTreeMap<&str, Vec<&Resource>> = BTreeMap::new();
        for resource in self.all() {
            lists.entry(resource.kind().many()).or_default().push(resource);
        }
        serde_json::to_value(lists)
    }
}

/// What there is at the start.
pub(crate) struct Started {
    pub(crate) all: Resources,
    /// What only the file changes.
    pub(crate) of_file: BTreeSet<Key>,
    /// What is kept and does not count, since the file has it, too.
    pub(crate) shadowed: Resources,
}

/// What the file says, and what is kept of what was made over REST. Of what BGP has in common, each field is the file's
/// where it says it.
pub(crate) fn started(file: &Resources, kept: &Resources) -> Started {
    let keys = file.keys().filter(|key| key.0.only().is_none());
    let of_file: BTreeSet<Key> = keys.cloned().collect();
    let (mut all, mut shadowed) = (file.clone(), Resources::default());
    for mut kept in kept.all().cloned() {
        if let (Resource::BgpGlobal(kept), Some(said)) = (&mut kept, file.global()) {
            kept.spec = said.spec.over(kept.spec);
        }
        if of_file.contains(&kept.key()) {
            shadowed.insert(kept);
        } else {
            all.insert(kept);
        }
    }
    Started { all, of_file, shadowed }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(all: I) -> Self {
        let mut resources = Self::default();
        all.into_iter().for_each(|resource| resources.insert(resource));
        resources
    }
}

#[cfg(test)]
mod tests;
