//! Routes of others that were told, and which next-hop objects they name.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use lb_routing_proto::fib::{KernelRouteKind, RouteKey};

use crate::kernel::decode;

/// A route that was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The next-hop object that it names, and what it says itself of the largest packet.
    pub(super) object: Option<u32>,
    pub(super) mtu: Option<u32>,
    /// A hash of what it does; `None` where that is the kernel's business.
    pub(super) print: Option<u64>,
}

impl Seen {
    pub(super) fn of(found: &decode::Route) -> Self {
        Self { object: found.object, mtu: found.mtu, print: print(&found.route.kind) }
    }
}

/// Routes that were told, and how many name each next-hop object.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) seen: HashMap<RouteKey, Seen>,
    by_object: HashMap<u32, usize>,
}

impl Routes {
    /// Notes a route; whether it was not there.
    pub(super) fn insert(&mut self, key: RouteKey, seen: Seen) -> bool {
        if let Some(object) = seen.object {
            *self.by_object.entry(object).or_default() += 1;
        }
        let before = self.seen.insert(key, seen);
        let is_new = before.is_none();
        self.no_longer(before);
        is_new
    }

    /// Forgets a route.
    pub(super) fn remove(&mut self, key: &RouteKey) {
        let before = self.seen.remove(key);
        self.no_longer(before);
    }

    fn no_longer(&mut self, before: Option<Seen>) {
        if let Some(object) = before.and_then(|seen| seen.object)
            && let Some(count) = self.by_object.get_mut(&object)
        {
            *count -= 1;
            if *count == 0 {
                self.by_object.remove(&object);
            }
        }
    }

    /// The routes that name one of these objects. Looks at all routes if there are any.
    pub(super) fn of(&self, objects: &[u32]) -> Vec<(RouteKey, Seen)> {
        if !objects.iter().any(|object| self.by_object.contains_key(object)) {
            return Vec::new();
        }
        let names = |seen: &Seen| seen.object.is_some_and(|object| objects.contains(&object));
        let routes = self.seen.iter().filter(|(_, seen)| names(seen));
        routes.map(|(key, seen)| (*key, *seen)).collect()
    }
}

/// A hash of what a route does, unless that is the kernel's business.
pub(super) fn print(kind: &KernelRouteKind) -> Option<u64> {
    match kind {
        KernelRouteKind::Unicast(hops) => {
            let mut hasher = DefaultHasher::new();
            hops.hash(&mut hasher);
            Some(hasher.finish())
        }
        KernelRouteKind::Blackhole => Some(0),
        // Of two that refuse, one may be `unreachable` and the other `prohibit`.
        KernelRouteKind::Reject | KernelRouteKind::Kernel => None,
    }
}
