//! Has who asks for a VIP's MAC answered on the links that the VIP names, and tells these links, unasked, when a VIP comes to them
//! or the MAC is another: ARP and neighbour discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_dataplane::Announcer;
use lb_routing::Link;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::attach;
use super::dataplane::{DataplaneHandle, sentence};

/// How often a link is told, and after what time again: a frame may be lost (RFC 4861 §7.2.6, §10).
const TIMES: u8 = 3;
const GAP: Duration = Duration::from_secs(1);
/// Frames at a time, and the pause after so many: a switch learns from each.
const AT_A_TIME: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);
/// For how long a VIP may have a link that fits and that the fast path is not attached to, before that is said: at the start, and
/// when an interface appears, it is about to be.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long what an earlier process had answered stays so, whatever health checks have not found yet.
const INHERITED: Duration = Duration::from_secs(10);

/// Patterns of the interfaces on whose links VIPs are announced.
pub(super) type OnLinks = BTreeMap<IpAddr, BTreeSet<String>>;

/// A VIP on the link of an interface.
type Pair = (u32, IpAddr);

/// Follows VIPs and links; one sentence for each VIP that is announced nowhere.
pub(super) fn spawn(
    links: watch::Receiver<Vec<Link>>,
    wanted: watch::Receiver<OnLinks>,
    dataplane: DataplaneHandle,
    interfaces: Vec<String>,
) -> Result<watch::Receiver<Vec<String>>> {
    let announcer = Announcer::open()
        .context("no socket for announcements of VIPs: run as root or with CAP_NET_RAW")?;
    let (troubles, told) = watch::channel(Vec::new());
    tokio::spawn(follow(links, wanted, dataplane, interfaces, announcer, troubles));
    Ok(told)
}

async fn follow(
    mut links: watch::Receiver<Vec<Link>>,
    mut wanted: watch::Receiver<OnLinks>,
    dataplane: DataplaneHandle,
    interfaces: Vec<String>,
    announcer: Announcer,
    troubles: watch::Sender<Vec<String>>,
) {
    let inherited_until = Instant::now() + INHERITED;
    let (mut told, mut due) = (BTreeMap::new(), Due::default());
    let (mut retry, mut waiting) = (None, Waiting::default());
    loop {
        let (links_now, vips) =
            (links.borrow_and_update().clone(), wanted.borrow_and_update().clone());
        // The kernel has not told its links yet: nothing is known to be gone.
        if !links_now.is_empty() {
            let attached = dataplane.with(|owned| owned.dataplane.attached()).await;
            let Ok(attached) = attached else { return };
            let attached = attached.into_iter().map(|one| one.ifindex).collect();
            let Plan { pairs, nowhere: mut found, unattached, waits } =
                plan(&links_now, &vips, &interfaces, &attached);
            found.extend(waiting.in_vain(unattached, Instant::now()));
            let is_later = Instant::now() >= inherited_until;
            let set: BTreeSet<Pair> = pairs.keys().copied().collect();
            let macs = pairs.iter().map(|((ifindex, _), mac)| (*ifindex, *mac)).collect();
            let answer = dataplane.with(move |owned| {
                // Frames to a new MAC come as soon as the link hears of it.
                owned.dataplane.note_macs(&macs)?;
                owned.dataplane.answer_for(&set, is_later)
            });
            let Ok(answered) = answer.await else { return };
            retry = (!is_later).then_some(inherited_until);
            if let Err(error) = answered {
                found.push(format!("not all VIPs are announced on links: {}", sentence(&error)));
                retry = Some(Instant::now() + INHERITED);
            } else if waits {
                retry = Some(Instant::now() + GAP);
            }
            due.follow(&told, &pairs, Instant::now());
            told = pairs;
            for new in found.iter().filter(|trouble| !troubles.borrow().contains(trouble)) {
                tracing::warn!("{new}");
            }
            troubles.send_if_modified(|old| std::mem::replace(old, found.clone()) != found);
        }
        // Until something else is to be answered.
        loop {
            let next = due.next();
            tokio::select! {
                changed = links.changed() => if changed.is_err() { return } else { break },
                changed = wanted.changed() => if changed.is_err() { return } else { break },
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => break,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    due.send(Instant::now(), &told, &announcer);
                }
                () = dataplane.ended() => return,
            }
        }
    }
}

/// Where VIPs are answered for.
struct Plan {
    /// On which links which VIPs, with the MAC of each.
    pairs: BTreeMap<Pair, [u8; 6]>,
    /// What is to be said of those that fit no link.
    nowhere: Vec<String>,
    /// And of those that fit some, none of which the fast path is attached to.
    unattached: Vec<(IpAddr, String)>,
    /// Whether a link fits that the fast path is not attached to, yet or since that failed: frames that a VIP drew there would
    /// be lost.
    waits: bool,
}

fn plan(links: &[Link], vips: &OnLinks, interfaces: &[String], attached: &BTreeSet<u32>) -> Plan {
    let (mut pairs, mut waits) = (BTreeMap::new(), false);
    let (mut nowhere, mut unattached) = (Vec::new(), Vec::new());
    let is_attached = |link: &Link| {
        let below = attach::handled_by(links, link, interfaces);
        attached.contains(&link.ifindex) || below.is_some_and(|below| attached.contains(&below))
    };
    for (address, patterns) in vips {
        let patterns: Vec<String> = patterns.iter().cloned().collect();
        let fit = links.iter().filter(|link| {
            link.up
                && attach::is_attachable(links, link, interfaces)
                && attach::is_wanted(&patterns, &link.name)
        });
        let (on, not): (Vec<&Link>, Vec<&Link>) = fit.partition(|link| is_attached(link));
        waits |= !not.is_empty();
        pairs.extend(on.iter().map(|link| ((link.ifindex, *address), link.mac)));
        if !on.is_empty() {
            continue;
        }
        let why = format!(
            "VIP address {address} is announced on no link: no interface that is up and that the fast path is attached to fits \
             announce_on ({}); name one of dataplane.interfaces",
            patterns.join(", ")
        );
        if not.is_empty() {
            nowhere.push(why);
        } else {
            unattached.push((*address, why));
        }
    }
    Plan { pairs, nowhere, unattached, waits }
}

/// VIPs whose links the fast path is about to be attached to, and since when.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<IpAddr, Instant>);

impl Waiting {
    /// What is to be said of those that have waited for too long.
    fn in_vain(&mut self, unattached: Vec<(IpAddr, String)>, now: Instant) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        let since = |address: IpAddr| before.get(&address).copied().unwrap_or(now);
        self.0 = unattached.iter().map(|(address, _)| (*address, since(*address))).collect();
        let waited = |address: IpAddr| now.saturating_duration_since(since(address));
        let late = unattached.into_iter().filter(|(address, _)| waited(*address) >= PATIENCE);
        late.map(|(_, why)| why).collect()
    }
}

/// When links are to be told of VIPs, how often still, and with which MAC.
#[derive(Debug, Default)]
struct Due(BTreeMap<(Instant, Pair), (u8, [u8; 6])>);

impl Due {
    /// Notes what is new.
    fn follow(
        &mut self,
        told: &BTreeMap<Pair, [u8; 6]>,
        now: &BTreeMap<Pair, [u8; 6]>,
        at: Instant,
    ) {
        for (pair, mac) in now.iter().filter(|(pair, mac)| told.get(pair) != Some(*mac)) {
            tracing::info!(address = %pair.1, interface = pair.0, "announced on a link");
            self.0.insert((at, *pair), (TIMES, *mac));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// Tells what is due and still holds; what is too much at a time a little later.
    fn send(&mut self, now: Instant, told: &BTreeMap<Pair, [u8; 6]>, announcer: &Announcer) {
        let mut sent = 0;
        while let Some(first) = self.0.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, pair), (times, mac)) = first.remove_entry();
            if told.get(&pair) != Some(&mac) {
                continue;
            }
            if sent == AT_A_TIME {
                self.0.insert((now + PAUSE, pair), (times, mac));
                continue;
            }
            sent += 1;
            if let Err(error) = announcer.announce(pair.0, pair.1, mac) {
                tracing::debug!(address = %pair.1, interface = pair.0, %error, "a link is not told");
            }
            if times > 1 {
                self.0.insert((now + GAP, pair), (times - 1, mac));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str) -> Link {
        Link {
            ifindex,
            name: name.into(),
            mac: [2, 0, 0, 0, 0, ifindex as u8],
            mtu: 1500,
            up: true,
            ethernet: name != "lo",
            controller: None,
            vlan: None,
        }
    }

    fn on(address: [u8; 4], patterns: &[&str]) -> OnLinks {
        OnLinks::from([(address.into(), patterns.iter().map(|&p| p.to_owned()).collect())])
    }

    #[test]
    fn vips_are_answered_for_on_attached_links_that_are_up_and_fit() {
        let links = [
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "wan"),
            Link { up: false, ..link(5, "eth2") },
        ];
        let interfaces = ["eth*".to_owned()];
        let vip = [192, 0, 2, 10];
        let planned = |patterns: &[&str], attached| {
            let plan = plan(&links, &on(vip, patterns), &interfaces, &BTreeSet::from(attached));
            let on: Vec<u32> = plan.pairs.into_keys().map(|(ifindex, _)| ifindex).collect();
            (on, plan.nowhere.len(), plan.unattached.len(), plan.waits)
        };
        let keys = |patterns: &[&str]| {
            let (on, nowhere, unattached, waits) = planned(patterns, [2, 3, 5]);
            assert_eq!((unattached, waits), (0, false), "{patterns:?}");
            (on, nowhere)
        };
        assert_eq!(keys(&["*"]), (vec![2, 3], 0));
        assert_eq!(keys(&["eth1", "wan"]), (vec![3], 0));
        assert_eq!(keys(&["wan"]), (vec![], 1));
        assert_eq!(keys(&["eth2"]), (vec![], 1));
        // The fast path could not be attached to eth1.
        assert_eq!(planned(&["*"], [1, 2, 5]), (vec![2], 0, 0, true));
        assert_eq!(planned(&["eth1"], [1, 2, 5]), (vec![], 0, 1, true));
    }

    #[test]
    fn a_vip_whose_link_is_about_to_be_attached_to_is_complained_of_only_if_that_takes_long() {
        let start = Instant::now();
        let vip = |last: u8| (IpAddr::from([192, 0, 2, last]), format!("{last}"));
        let mut waiting = Waiting::default();
        assert_eq!(waiting.in_vain(vec![vip(1)], start), [""; 0]);
        let later = start + PATIENCE;
        assert_eq!(waiting.in_vain(vec![vip(1), vip(2)], later), ["1"]);
        // It was attached to meanwhile, and no longer is.
        assert_eq!(waiting.in_vain(vec![vip(2)], later), [""; 0]);
        assert_eq!(waiting.in_vain(vec![vip(1), vip(2)], later + PATIENCE), ["2"]);
    }

    #[test]
    fn a_link_is_told_of_what_is_new_there_and_of_a_new_mac_three_times() {
        let now = Instant::now();
        let pair: Pair = (2, [192, 0, 2, 10].into());
        let before = BTreeMap::from([(pair, [2; 6])]);
        let mut due = Due::default();
        due.follow(&BTreeMap::new(), &before, now);
        assert_eq!(due.0.values().collect::<Vec<_>>(), [&(TIMES, [2; 6])]);
        assert_eq!(due.next(), Some(now));
        let mut due = Due::default();
        due.follow(&before, &before, now);
        assert_eq!(due.next(), None);
        due.follow(&before, &BTreeMap::from([(pair, [4; 6])]), now);
        assert_eq!(due.next(), Some(now));
    }
}
