//! Why a route is where it is: what `explain` shows of a prefix.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::advertise::{target, teller};
use super::{PathStatus, Speaker};
use crate::policy::{self, Withheld};
use crate::rib::PeerIndex;

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
        let Some(entry) = self.rib.get(prefix) else {
            return Explanation { paths: Vec::new(), neighbours: Vec::new() };
        };
        let paths = self.path_statuses(*prefix, entry).collect();
        let hearers = (0..).zip(&self.neighbours).filter_map(|(index, neighbour)| {
            neighbour.channel.as_ref()?;
            let peer = neighbour.session.config().address;
            let withheld = self.withheld(index, prefix).map(|why| why.to_string());
            Some(Hearer { peer, withheld })
        });
        Explanation { paths, neighbours: hearers.collect() }
    }

    fn withheld(&self, index: PeerIndex, prefix: &IpNetwork) -> Option<Withheld<'_>> {
        let neighbour = self.neighbours.get(index as usize)?;
        let up = &neighbour.channel.as_ref()?.up;
        let best = self.rib.get(prefix)?.best()?;
        let teller = teller(&self.rib, best);
        let target = target(index, neighbour.session.config(), &self.config, up);
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
