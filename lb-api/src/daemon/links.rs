//! Tells who watches events what becomes of the host's interfaces.

use std::collections::BTreeMap;

use lb_api_types::event::EventKind;
use lb_routing::Link;
use tokio::sync::watch;

use crate::events::Events;

/// Follows the interfaces until the router ends.
pub(super) fn spawn(mut links: watch::Receiver<Vec<Link>>, events: Events) {
    tokio::spawn(async move {
        let mut known = Known::default();
        loop {
            let now = links.borrow_and_update().clone();
            for (name, message) in known.changes(&now) {
                events.tell(EventKind::InterfaceState, name, message);
            }
            if links.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Each interface by its index, with its name and whether it was up, as told last; nothing before the kernel has told them.
#[derive(Debug, Default)]
struct Known(Option<BTreeMap<u32, (String, bool)>>);

impl Known {
    /// Names and sentences of those that have changed.
    fn changes(&mut self, links: &[Link]) -> Vec<(String, &'static str)> {
        let now: BTreeMap<_, _> =
            links.iter().map(|link| (link.ifindex, (link.name.clone(), link.up))).collect();
        if links.is_empty() && self.0.is_none() {
            return Vec::new();
        }
        let Some(before) = self.0.replace(now.clone()) else { return Vec::new() };
        let gone = before.iter().filter(|(index, _)| !now.contains_key(index));
        let gone = gone.map(|(_, (name, _))| (name.clone(), "the interface is gone"));
        let other = now.iter().filter_map(|(index, (name, up))| {
            let what = match (before.get(index), up) {
                (None, true) => "the interface is there, and up",
                (None, false) => "the interface is there, and down",
                (Some((_, true)), false) => "the interface is down",
                (Some((_, false)), true) => "the interface is up",
                (Some((old, _)), _) if old != name => "the interface has this name now",
                (Some(_), _) => return None,
            };
            Some((name.clone(), what))
        });
        gone.chain(other).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_an_interface_is_told_once_and_nothing_of_those_of_the_start() {
        let link = |ifindex, name: &str, up| {
            let (name, mac) = (name.to_owned(), [2, 0, 0, 0, 0, 1]);
            Link { ifindex, name, mac, mtu: 1500, up, ethernet: true, controller: None, vlan: None }
        };
        let mut known = Known::default();
        let mut told = |links: &[Link]| {
            let changes = known.changes(links).into_iter();
            changes.map(|(name, what)| format!("{name}: {what}")).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&[link(1, "lo", true), link(2, "eth0", true)]), [""; 0]);
        assert_eq!(
            told(&[link(1, "lo", true), link(2, "eth0", false)]),
            ["eth0: the interface is down"]
        );
        assert_eq!(told(&[link(1, "lo", true), link(2, "eth0", false)]), [""; 0]);
        let renamed = told(&[link(1, "lo", true), link(2, "wan0", false)]);
        assert_eq!(renamed, ["wan0: the interface has this name now"]);
        let other = told(&[link(1, "lo", true), link(3, "eth1", true)]);
        assert_eq!(other, ["wan0: the interface is gone", "eth1: the interface is there, and up"]);
    }
}
