//! Why a route is where it is: what `explain` shows of a prefix.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{PathStatus, Speaker};
use crate::policy::{self, Target, Withheld};
use crate::rib::{Path, PeerIndex};

/// What is known of a prefix, and who hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its paths, the best one first.
    pub paths: Vec<PathStatus>,
    /// Each neighbour with a session, in the order of the configuration; none where there is no path.
    pub neighbours: Vec<Hearer>,
}

/// Whether a neighbour hears of the best path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearer {
    /// Its address.
    pub peer: IpAddr,
    /// Why it does not, in words; `None`: it does.
    pub withheld: Option<String>,
}

impl Speaker {
    /// Which paths a prefix has, and what keeps the best one from which neighbour.
    pub fn explain(&self, prefix: &IpNetwork) -> Explanation {
        let Some(id) = self.rib.find(prefix) else {
            return Explanation { paths: Vec::new(), neighbours: Vec::new() };
        };
        let paths = self.path_statuses(*prefix, id).collect();
        let best = self.rib.best(id).map(|best| self.rib.path(best));
        let hearers = self.order.iter().filter_map(|&index| {
            let neighbour = self.neighbours.get(usize::from(index))?;
            neighbour.channel.as_ref()?;
            let peer = neighbour.session.config().address;
            let withheld = self.withheld(index, prefix, best.as_ref()?).map(|why| why.to_string());
            Some(Hearer { peer, withheld })
        });
        Explanation { paths, neighbours: hearers.collect() }
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
        if let Err(why) = policy::check_export(prefix, best, teller, &target) {
            return Some(why);
        }
        let said = match policy::export(prefix, best, teller, &target) {
            Ok(change) => change.and_then(|change| change.next_hop),
            Err(why) => return Some(why),
        };
        let sayable = policy::next_hop(prefix, best, said, &target).is_some();
        (!sayable).then_some(Withheld::NextHop)
    }
}
