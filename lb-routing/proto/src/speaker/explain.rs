//! Why a route is where it is: what `explain` shows of a prefix.

use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{PathStatus, Speaker};
use crate::fib::Install;
use crate::policy::{self, Importer, Rejection, Target, Withheld};
use crate::rib::{Path, PathEntry, PeerIndex, PrefixId, Step};
use crate::session::Negotiated;
use crate::wire;

/// What is known of a prefix, and who hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The prefix.
    pub prefix: IpNetwork,
    /// Its paths, the best one first.
    pub paths: Vec<PathStatus>,
    /// Each neighbour with a session, in the order of the configuration; none where there is no path.
    pub neighbours: Vec<Hearer>,
}

/// What is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// This very prefix.
    Prefix(IpNetwork),
    /// The longest prefix with paths that covers an address; the address alone where there is none.
    Address(IpAddr),
}

/// Whether a neighbour hears of the best path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearer {
    /// Its address.
    pub peer: IpAddr,
    /// Why it does not, in words; `None`: it does.
    pub withheld: Option<String>,
    /// How many other paths of the prefix it hears of (RFC 7911).
    pub others: usize,
}

impl Speaker {
    /// What was selected for every prefix, as [`Output::Routes`](super::Output::Routes) said it: its next hops in order, and
    /// which tables are to have them.
    pub fn selected(&self) -> impl Iterator<Item = (IpNetwork, Arc<[IpAddr]>, Install)> + '_ {
        self.rib.published()
    }

    /// Which paths a destination has, and what keeps the best one from which neighbour.
    pub fn explain(&self, what: Destination) -> Explanation {
        let prefix = &match what {
            Destination::Prefix(prefix) => prefix,
            Destination::Address(address) => {
                self.rib.covering(address).unwrap_or_else(|| address.into())
            }
        };
        let Some(id) = self.rib.find(prefix) else {
            return Explanation { prefix: *prefix, paths: Vec::new(), neighbours: Vec::new() };
        };
        let paths = self.explained(*prefix, id);
        let best = self.rib.best(id).map(|best| self.rib.path(best));
        let hearers = self.order.iter().filter_map(|&index| {
            let neighbour = self.neighbours.get(usize::from(index))?;
            let negotiated = &neighbour.channel.as_ref()?.up.negotiated;
            let peer = neighbour.session.config().address;
            let withheld = self.withheld(index, prefix, best.as_ref()?).map(|why| why.to_string());
            let several = negotiated.ids_sent.has(prefix.is_ipv6());
            let told = if several { self.told(index, *prefix, id).len() } else { 0 };
            let others = told.saturating_sub(usize::from(withheld.is_none()));
            Some(Hearer { peer, withheld, others })
        });
        Explanation { prefix: *prefix, paths, neighbours: hearers.collect() }
    }

    /// Which rule of its neighbour's import policy refuses a path, if one does.
    pub(super) fn refusal(&self, prefix: IpNetwork, path: &PathEntry) -> Option<String> {
        let neighbour = self.neighbours.get(usize::from(path.source.peer()?))?;
        if path.rejected() != Some(Rejection::Policy) {
            return None;
        }
        let importer = Importer::new(&self.config, neighbour.session.config());
        let next_hop = self.rib.next_hop_of(path.received)?;
        importer.refusal(&prefix, next_hop, &self.rib.attributes(path.received))
    }

    /// Every path of a prefix, and why it is where it is.
    fn explained(&self, prefix: IpNetwork, id: PrefixId) -> Vec<PathStatus> {
        let steps = self.rib.steps(id);
        let decided = steps.get(1).and_then(|(_, step)| *step);
        let mut paths: Vec<_> = self.path_statuses(prefix, id).collect();
        let cost = |path: &PathEntry| self.rib.cost(id, path).unwrap_or_default();
        for (path, entry) in paths.iter_mut().zip(self.rib.paths(id)) {
            let place = steps.iter().position(|(it, _)| it.origin() == entry.path.origin());
            let fell = place.and_then(|place| steps.get(place)?.1);
            path.why = Some(match (place, fell, decided) {
                (Some(0), _, None) => "the only one that can be used".to_owned(),
                (Some(0), _, Some(step)) => format!("won over the next one by: {step}"),
                (Some(_), Some(Step::Cost), _) if !path.multipath => format!(
                    "lost by: {} ({}, that of the best one {})",
                    Step::Cost,
                    cost(entry.path),
                    steps.first().map_or(0, |(best, _)| cost(best)),
                ),
                (Some(_), Some(step), _) if path.multipath => {
                    format!("as good as the best one, carries traffic; not the best by: {step}")
                }
                (Some(_), Some(step), _) => format!("lost by: {step}"),
                (None, ..) if entry.path.rejected().is_none() => {
                    let hop = path.next_hop.map_or_else(String::new, |hop| format!(" {hop}"));
                    format!(
                        "its next hop{hop} cannot be reached: no route leads there out of a link that is up, or only one to this very prefix"
                    )
                }
                (None, ..) | (Some(_), None, _) => {
                    let words = entry.path.rejected().map_or("", Rejection::words);
                    match self.refusal(prefix, entry.path) {
                        Some(rule) => format!("{words}: {rule}"),
                        None => words.to_owned(),
                    }
                }
            });
        }
        paths
    }

    fn withheld(&self, index: PeerIndex, prefix: &IpNetwork, best: &Path) -> Option<Withheld<'_>> {
        let neighbour = self.neighbours.get(usize::from(index))?;
        let config = neighbour.session.config();
        let up = &neighbour.channel.as_ref()?.up;
        let teller = self.rib.teller(best);
        let target = Target {
            index,
            config,
            our_as: config.our_as(&self.config),
            cluster_id: self.config.cluster_id(),
            local: up.local,
            families: &up.negotiated.families,
            ipv4_by_ipv6: up.negotiated.ipv4_by_ipv6,
        };
        let (told, next_hop) = match policy::told(prefix, best, teller, &target) {
            Ok(told) => told,
            Err(why) => return Some(why),
        };
        if next_hop == config.address.to_canonical() {
            return Some(Withheld::LeadsToIt);
        }
        let Negotiated { context, ids_sent, .. } = up.negotiated;
        let room = (ids_sent, up.negotiated.message_limit());
        let fits = wire::encode_attributes(&told, next_hop, context, room);
        fits.is_err().then_some(Withheld::TooLarge)
    }
}
