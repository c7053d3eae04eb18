//! What leads to a next hop of the speaker's without its own routes, and what that costs: the longest match among others'
//! routes in the kernel, routes of the configuration and VIPs, of one prefix the one that counts.
//!
//! The cost is the interior cost of RFC 4271 §9.1.2.2 e: nothing where the next hop is on a link of ours, else the metric of
//! the route, and most where that is a default route.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::kernel::KernelTable;
use super::statics::{Entry, StaticTable};
use super::{BGP_METRIC, Fib, KernelNextHop, KernelRouteKind, Link, Reach, StaticKind, bits, host};

/// What routes are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) kernel: &'a KernelTable,
    pub(super) statics: &'a StaticTable,
    pub(super) vips: &'a BTreeSet<IpAddr>,
    pub(super) links: &'a BTreeMap<u32, Link>,
}

/// What leads to a next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// Gateways on links that are up; none: nothing does, or only the kernel knows how.
    pub(super) hops: Arc<[KernelNextHop]>,
    /// The interior cost; `None`: it cannot be reached.
    pub(super) cost: Option<u32>,
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
const fn priced(len: u8, cost: u32) -> u32 {
    if len == 0 { u32::MAX } else { cost }
}

impl<'a> Tables<'a> {
    /// What leads to a next hop, and how long a route of the speaker's must be at least to count before it.
    pub(super) fn way(self, next_hop: IpAddr) -> (Way, u8) {
        let (lead, from) = self.lead(next_hop);
        let (way, is_near) = self.follow(next_hop, &lead);
        // On a link of ours it is where it is, whatever a neighbour tells of its address. By a default route out of a link
        // that could be anywhere.
        let is_neighbour = is_near && from > 1;
        (way, if is_neighbour { bits(next_hop) + 1 } else { from })
    }

    fn lead(self, next_hop: IpAddr) -> (Lead<'a>, u8) {
        let never = bits(next_hop) + 1;
        if self.kernel.is_hidden(host(next_hop)) {
            // This host itself: another daemon of it speaks BGP, too.
            return (Lead::Kernel(0), never);
        }
        let (lead, from) = self.longest(next_hop);
        // Behind others' routes to the very address.
        let is_vip = from < never && self.vips.contains(&next_hop);
        if is_vip { (Lead::Nowhere, never) } else { (lead, from) }
    }

    fn longest(self, next_hop: IpAddr) -> (Lead<'a>, u8) {
        let foreign = self.kernel.longest(next_hop);
        let fixed = self.statics.longest(next_hop);
        match (foreign, fixed) {
            (Some((len, metric, kind)), fixed)
                if fixed.is_none_or(|(other, than, _)| {
                    other < len || (other == len && than >= metric)
                }) =>
            {
                let lead = match kind {
                    KernelRouteKind::Unicast(hops) => Lead::Out(priced(len, metric), hops),
                    KernelRouteKind::Kernel => Lead::Kernel(priced(len, metric)),
                    KernelRouteKind::Blackhole | KernelRouteKind::Reject => Lead::Nowhere,
                };
                (lead, len + 1)
            }
            (_, Some((len, metric, Entry { kind, resolved }))) => {
                let lead = match kind {
                    StaticKind::Forward(_) => Lead::Out(priced(len, metric), resolved),
                    StaticKind::Blackhole | StaticKind::Unreachable | StaticKind::Prohibit => {
                        Lead::Nowhere
                    }
                };
                // The speaker's come before those that stand behind them.
                (lead, len + u8::from(metric < BGP_METRIC))
            }
            (_, None) => (Lead::Nowhere, 0),
        }
    }

    /// The way, and whether the next hop is on a link that is up. An MTU of the route that leads there is not one of the
    /// routes that name it.
    fn follow(self, next_hop: IpAddr, lead: &Lead<'_>) -> (Way, bool) {
        let (metric, hops) = match *lead {
            Lead::Out(metric, hops) => (metric, hops),
            Lead::Kernel(metric) => return (Way { cost: Some(metric), ..Way::default() }, false),
            Lead::Nowhere => return (Way::default(), false),
        };
        let is_up = |hop: &&KernelNextHop| self.links.get(&hop.ifindex).is_some_and(|it| it.up);
        let up = || hops.iter().filter(is_up);
        let is_near = up().any(|hop| hop.gateway.is_none());
        let straight = |hop: &KernelNextHop| KernelNextHop {
            gateway: hop.gateway.or(Some(next_hop)),
            mtu: None,
            ..*hop
        };
        let hops: Arc<[_]> = up().map(straight).collect();
        let cost = (!hops.is_empty()).then_some(if is_near { 0 } else { metric });
        (Way { hops, cost }, is_near)
    }
}

impl Fib {
    /// How far a next hop of the speaker's is; from now on each change of it is an output.
    pub fn watch(&mut self, next_hop: IpAddr) -> Reach {
        let Self { kernel, statics, vips, links, bgp, book, .. } = self;
        bgp.watch((Tables { kernel, statics, vips, links }, book), next_hop)
    }

    /// No path of the speaker's has this next hop any more.
    pub fn unwatch(&mut self, next_hop: IpAddr) {
        self.bgp.unwatch(next_hop);
    }

    /// Resolves next hops again that something was said of, some of them.
    pub(super) fn settle(&mut self) {
        let Self { kernel, statics, vips, links, bgp, book, groups, .. } = self;
        for set in bgp.settle((Tables { kernel, statics, vips, links }, book)) {
            for is_apart in [false, true] {
                groups.mark_key(&super::Key::Bgp { set, is_apart });
            }
            bgp.mark(book, set);
        }
    }
}
