//! What leads to a next hop, and what that costs: the longest match among others' routes in the kernel and routes of the
//! configuration, of one prefix the one that the kernel would choose.
//!
//! The cost is the interior cost of RFC 4271 §9.1.2.2 e: nothing where the next hop is on a link of ours, else the metric of
//! the route, and most where that is a default route. One that only a BGP route leads to is not reached.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::kernel::KernelTable;
use super::select::merge;
use super::statics::{Entry, StaticTable};
use super::{Fib, KernelNextHop, KernelRouteKind, Link, StaticKind, host};

/// What routes are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) kernel: &'a KernelTable,
    pub(super) statics: &'a StaticTable,
    pub(super) links: &'a BTreeMap<u32, Link>,
}

/// A route that leads to a next hop.
enum Lead<'a> {
    /// Out of one of these, at this metric.
    Out(u32, &'a [KernelNextHop]),
    /// The kernel knows how.
    Kernel(u32),
    Nowhere,
}

/// What a route's metric counts for: a default route leads to whatever nobody knows better, so it is dearest.
fn priced(len: u8, metric: u32) -> u32 {
    if len == 0 { u32::MAX } else { metric }
}

impl<'a> Tables<'a> {
    fn lead(self, next_hop: IpAddr) -> Lead<'a> {
        if self.kernel.is_hidden(host(next_hop)) {
            // This host itself: another daemon of it speaks BGP, too.
            return Lead::Kernel(0);
        }
        let foreign = self.kernel.longest(next_hop);
        let fixed = self.statics.longest(next_hop);
        match (foreign, fixed) {
            (Some((len, metric, kind)), fixed)
                if fixed.is_none_or(|(other, than, _)| {
                    other < len || (other == len && than >= metric)
                }) =>
            {
                match kind {
                    KernelRouteKind::Unicast(hops) => Lead::Out(priced(len, metric), hops),
                    KernelRouteKind::Kernel => Lead::Kernel(priced(len, metric)),
                    KernelRouteKind::Blackhole | KernelRouteKind::Reject => Lead::Nowhere,
                }
            }
            (_, Some((len, metric, Entry { kind: StaticKind::Forward(_), resolved }))) => {
                Lead::Out(priced(len, metric), resolved)
            }
            (_, Some(_) | None) => Lead::Nowhere,
        }
    }

    fn is_up(self, hop: &KernelNextHop) -> bool {
        self.links.get(&hop.ifindex).is_some_and(|link| link.up)
    }

    /// What the speaker's next hops resolve to: gateways on links that are up. An MTU of the route that leads to a next hop is
    /// not one of the routes that name it.
    pub(super) fn resolve(self, next_hops: &[IpAddr]) -> Arc<[KernelNextHop]> {
        merge(next_hops.iter().flat_map(|next_hop| {
            let hops = match self.lead(*next_hop) {
                Lead::Out(_, hops) => hops,
                Lead::Kernel(_) | Lead::Nowhere => &[],
            };
            let up = hops.iter().copied().filter(move |hop| self.is_up(hop));
            up.map(|hop| KernelNextHop {
                gateway: hop.gateway.or(Some(*next_hop)),
                mtu: None,
                ..hop
            })
        }))
    }

    /// The interior cost of a next hop; `None`: it cannot be reached.
    fn cost(self, next_hop: IpAddr) -> Option<u32> {
        let (metric, hops) = match self.lead(next_hop) {
            Lead::Out(metric, hops) => (metric, hops),
            Lead::Kernel(metric) => return Some(metric),
            Lead::Nowhere => return None,
        };
        let on_link = |hop: &KernelNextHop| hop.gateway.is_none();
        let mut up = hops.iter().filter(|hop| self.is_up(hop)).peekable();
        up.peek()?;
        Some(if up.any(on_link) { 0 } else { metric })
    }
}

/// Next hops whose cost the speaker is told of.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// What it was told.
    costs: BTreeMap<IpAddr, Option<u32>>,
    /// Those to look at.
    marked: BTreeSet<IpAddr>,
}

impl Watched {
    /// Remembers what the speaker is told of one.
    fn watch(&mut self, next_hop: IpAddr, cost: Option<u32>) {
        self.costs.insert(next_hop, cost);
        self.marked.remove(&next_hop);
    }

    fn unwatch(&mut self, next_hop: IpAddr) {
        self.costs.remove(&next_hop);
        self.marked.remove(&next_hop);
    }

    pub(super) fn mark(&mut self, addresses: RangeInclusive<IpAddr>) {
        self.marked.extend(self.costs.range(addresses).map(|(next_hop, _)| *next_hop));
    }

    /// The next one whose cost is another one than the speaker was told.
    fn next(&mut self, tables: Tables<'_>) -> Option<(IpAddr, Option<u32>)> {
        while let Some(next_hop) = self.marked.pop_first() {
            let cost = tables.cost(next_hop);
            let told = self.costs.get_mut(&next_hop)?;
            if std::mem::replace(told, cost) != cost {
                return Some((next_hop, cost));
            }
        }
        None
    }
}

impl Fib {
    /// The interior cost of a next hop of the speaker's, `None` where it cannot be reached; from now on each change of it is an
    /// output.
    pub fn watch(&mut self, next_hop: IpAddr) -> Option<u32> {
        let Self { kernel, statics, links, watched, .. } = self;
        let cost = Tables { kernel, statics, links }.cost(next_hop);
        watched.watch(next_hop, cost);
        cost
    }

    /// No path of the speaker's has this next hop any more.
    pub fn unwatch(&mut self, next_hop: IpAddr) {
        self.watched.unwatch(next_hop);
    }

    /// The next one whose cost has changed.
    pub(super) fn next_cost(&mut self) -> Option<(IpAddr, Option<u32>)> {
        let Self { kernel, statics, links, watched, .. } = self;
        watched.next(Tables { kernel, statics, links })
    }
}
