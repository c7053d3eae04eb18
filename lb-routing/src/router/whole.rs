//! What the router has told the dataplane, whether that is what the speaker selected, and how it is told again as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use lb_routing_proto::fib::{Action, Fact, Install, ToldGroup, ToldRoute};
use tokio::sync::oneshot;

use super::task::Task;

/// What the dataplane was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterTable {
    /// Every route, in no particular order.
    pub routes: Vec<ToldRoute>,
    /// What the groups do that they name.
    pub groups: HashMap<u32, Action>,
    /// Where that does not follow from what the speaker selected.
    pub strays: Vec<Stray>,
}

/// A prefix that the router has other next hops for than the speaker selected, which it should have taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The destination.
    pub prefix: IpNetwork,
    /// What the speaker selected; empty: nothing.
    pub selected: Vec<IpAddr>,
    /// What the router has.
    pub has: Vec<IpAddr>,
}

/// All that the dataplane is to have: what it has beyond is none of the router's.
#[derive(Debug)]
pub struct Whole {
    /// Every group.
    pub groups: Vec<ToldGroup>,
    /// Every route.
    pub routes: Vec<ToldRoute>,
    /// To be told when the dataplane has it.
    pub taken: oneshot::Sender<()>,
}

/// What the speaker selected of a prefix.
struct Selected {
    prefix: IpNetwork,
    next_hops: Arc<[IpAddr]>,
    install: Install,
}

impl Task {
    pub(super) fn table(&self) -> RouterTable {
        let strays = self.strays().into_iter().map(|(selected, has)| {
            let Selected { prefix, next_hops, .. } = selected;
            Stray { prefix, selected: next_hops.to_vec(), has }
        });
        RouterTable {
            strays: strays.collect(),
            routes: self.fib.told().collect(),
            groups: self.fib.groups().map(|group| (group.id, group.action)).collect(),
        }
    }

    /// What the speaker selected and the resolver has otherwise, with what it has.
    fn strays(&self) -> Vec<(Selected, Vec<IpAddr>)> {
        // What the speaker has not told yet is none.
        if !self.forward || !self.settled {
            return Vec::new();
        }
        let mut has: HashMap<_, _> = self
            .fib
            .learned()
            .map(|(prefix, next_hops, install)| (prefix, (next_hops, install)))
            .collect();
        let mut strays = Vec::new();
        for (prefix, next_hops, install) in self.speaker.selected() {
            let there = has.remove(&prefix);
            let is_same =
                there.as_ref().is_some_and(|(hops, to)| *hops == next_hops && *to == install);
            if !is_same {
                let there = there.map(|(hops, _)| hops.to_vec()).unwrap_or_default();
                strays.push((Selected { prefix, next_hops, install }, there));
            }
        }
        strays.extend(has.into_iter().map(|(prefix, (hops, install))| {
            (Selected { prefix, next_hops: [].into(), install }, hops.to_vec())
        }));
        strays
    }

    /// Has the dataplane told all again, once what waits for it has gone.
    pub(super) fn tell_again(&mut self, taken: oneshot::Sender<()>) {
        for (Selected { prefix, next_hops, install }, _) in self.strays() {
            self.fib.handle(Fact::Bgp { prefix, next_hops, install });
        }
        self.fib.look_again();
        self.tell_whole.push(taken);
    }

    /// All of it, for whoever waits.
    pub(super) fn whole(&self, taken: oneshot::Sender<()>) -> Whole {
        Whole { groups: self.fib.groups().collect(), routes: self.fib.told().collect(), taken }
    }
}
