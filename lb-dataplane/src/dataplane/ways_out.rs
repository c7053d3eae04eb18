//! What is known of the interfaces that packets leave through: which take frames that XDP redirects to them, and which are ends of
//! a veth whose other end TC is to hand packets to, without queueing them on the way (`bpf_redirect_peer`).
//!
//! That is done where nothing on the way would change packets: the other end is in another network namespace and has neither an
//! XDP program nor GRO, and this end has neither a queue nor programs that packets leave by. The kernel says the second of a veth
//! by whether it takes frames from XDP.

mod features;

use std::collections::{HashMap, HashSet};

use lb_dataplane_common::fib::{MEMBER_TO_PEER, MEMBER_WITHOUT_XDP};

use self::features::{Kernel, RUNS, TAKES_REDIRECTED};
use super::Dataplane;
use super::attach::name_of;
use crate::names::is_named;
use crate::{link, sys};

impl Dataplane {
    /// Looks again at some of the interfaces that packets leave through, at what they and their other ends are like; whether there
    /// are more.
    pub fn follow_ways_out(&mut self) -> bool {
        let (changes, is_more) = self.ways_out.changed(&self.fib.interfaces().collect());
        self.fib.set_ways_out(&changes);
        is_more
    }
}

/// Interfaces that are looked at again at a time, since other calls wait meanwhile.
const AT_ONCE: usize = 32;

/// What is known of interfaces: bits of `MEMBER_*` that the ways out through them have, none of what the kernel says nothing of.
#[derive(Debug)]
pub(super) struct WaysOut {
    known: HashMap<u32, u16>,
    /// Whether anybody is to know of frames that XDP redirects.
    xdp: bool,
    /// The veths, by name or pattern, whose other ends may be handed packets.
    peers: Vec<String>,
    /// Those that are still to be looked at again in this round.
    left: Vec<u32>,
}

impl WaysOut {
    /// With the veths, by name or pattern, whose other ends may be handed packets.
    pub(super) fn new(peers: Vec<String>) -> Self {
        Self { known: HashMap::new(), xdp: false, peers, left: Vec::new() }
    }

    /// A program is attached to XDP.
    pub(super) fn with_xdp(&mut self) {
        self.xdp = true;
    }

    /// Looks at interfaces that were not looked at before; those of which there is something to be known.
    pub(super) fn look_at(&mut self, interfaces: impl Iterator<Item = u32>) -> Vec<(u32, u16)> {
        if !self.xdp && self.peers.is_empty() {
            return Vec::new();
        }
        let mut new: Vec<u32> =
            interfaces.filter(|index| !self.known.contains_key(index)).collect();
        if new.is_empty() {
            return Vec::new();
        }
        new.sort_unstable();
        new.dedup();
        let kernel = Kernel::open().ok();
        let found = new.into_iter().map(|index| (index, self.ask(kernel.as_ref(), index)));
        found.filter(|(_, flags)| *flags != 0).collect()
    }

    /// Looks again at some of the interfaces that are in use, and forgets the others; those that are other than before, and whether
    /// there are more to be looked at. Of a forgotten one nothing is known, as before it was looked at.
    pub(super) fn changed(&mut self, in_use: &HashSet<u32>) -> (Vec<(u32, u16)>, bool) {
        let mut changes = Vec::new();
        if self.left.is_empty() {
            let gone = self.known.extract_if(|index, _| !in_use.contains(index));
            changes.extend(gone.filter(|(_, flags)| *flags != 0).map(|(index, _)| (index, 0)));
            self.left.extend(self.known.keys());
        }
        let part = self.left.split_off(self.left.len().saturating_sub(AT_ONCE));
        // Nothing changes where the kernel cannot be asked.
        if let Some(kernel) = Some(part).filter(|part| !part.is_empty()).zip(Kernel::open().ok()) {
            let (part, kernel) = kernel;
            for index in part {
                let before = self.known.get(&index).copied();
                let now = self.ask(Some(&kernel), index);
                changes.extend((before != Some(now)).then_some((index, now)));
            }
        }
        (changes, !self.left.is_empty())
    }

    fn ask(&mut self, kernel: Option<&Kernel>, index: u32) -> u16 {
        let features = kernel.and_then(|kernel| kernel.features(index).ok());
        let flags = match features {
            None => 0,
            Some(bits) if bits & TAKES_REDIRECTED != 0 => 0,
            // A veth that says it runs no programs does not say what its other end has.
            Some(bits) if bits & RUNS != 0 && leads_elsewhere(index, &self.peers) => {
                MEMBER_WITHOUT_XDP | MEMBER_TO_PEER
            }
            Some(_) => MEMBER_WITHOUT_XDP,
        };
        let before = self.known.insert(index, flags).unwrap_or(0);
        if (before ^ flags) & MEMBER_TO_PEER != 0 {
            let (interface, to_peer) = (name_of(index), flags & MEMBER_TO_PEER != 0);
            tracing::info!(
                interface,
                to_peer,
                "whether packets are handed to the other end of a veth"
            );
        }
        flags
    }
}

/// Whether an interface is the end of a veth of these that packets leave into another namespace without being queued or looked at.
fn leads_elsewhere(ifindex: u32, names: &[String]) -> bool {
    !names.is_empty()
        && link::bare_veth_elsewhere(ifindex)
            .is_ok_and(|name| name.is_some_and(|name| is_named(names, &name)))
        && sys::programs_on_egress(ifindex).is_ok_and(|count| count == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::thread;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, setns, unshare};

    use super::*;

    fn run(program: &str, arguments: &str) {
        let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{program} {arguments}: {output:?}");
    }

    fn all_changes(ways: &mut WaysOut, used: &HashSet<u32>) -> Vec<(u32, u16)> {
        let (mut all, mut is_more) = (Vec::new(), true);
        while is_more {
            let (changes, more) = ways.changed(used);
            all.extend(changes);
            is_more = more;
        }
        all
    }

    #[test]
    fn a_veth_takes_frames_while_its_peer_does_and_a_bridge_takes_none() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", "link add near type veth peer name far");
            run("ip", "link add bridge type bridge");
            for link in ["near", "far", "bridge"] {
                run("ip", &format!("link set {link} up"));
            }
            let [near, bridge] = ["near", "bridge"].map(|name| if_nametoindex(name).unwrap());
            let gone = 4711;
            let without = MEMBER_WITHOUT_XDP;
            let mut ways = WaysOut::new(Vec::new());
            run("ethtool", "-K far gro on");
            assert_eq!(ways.look_at([near, bridge].into_iter()), [], "nobody is to know");
            ways.with_xdp();
            let found = ways.look_at([near, bridge, gone, near].into_iter());
            assert_eq!(found, [(bridge, without)]);
            assert_eq!(ways.look_at([near, bridge].into_iter()), [], "they are known");
            let used = HashSet::from([near, bridge]);
            assert_eq!(all_changes(&mut ways, &used), []);
            run("ethtool", "-K far gro off");
            assert_eq!(all_changes(&mut ways, &used), [(near, without)]);
            run("ethtool", "-K far gro on");
            assert_eq!(all_changes(&mut ways, &used), [(near, 0)]);
            // Interfaces come and go: what no route leads through any more is forgotten.
            assert_eq!(all_changes(&mut ways, &HashSet::from([near])), [(bridge, 0)]);
            assert_eq!(ways.known.len(), 1);
        };
        thread::spawn(inside).join().unwrap();
    }

    #[test]
    fn packets_are_handed_to_the_other_end_of_a_veth_where_nothing_on_the_way_would_change_them() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let there = fs::File::open("/proc/thread-self/ns/net").unwrap();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let here = fs::File::open("/proc/thread-self/ns/net").unwrap();
            let run_there = |program: &str, arguments: &str| {
                setns(there.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                run(program, arguments);
                setns(here.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            };
            let fd = std::os::fd::AsRawFd::as_raw_fd(&there);
            let own = std::process::id();
            run("ip", "link add near type veth peer name far");
            run("ip", "link set near up");
            run("ip", "link set far up");
            let near = if_nametoindex("near").unwrap();
            let used = HashSet::from([near]);
            let mut ways = WaysOut::new(vec!["n*".to_owned()]);
            assert_eq!(ways.look_at([near].into_iter()), [(near, MEMBER_WITHOUT_XDP)], "not here");

            run("ip", &format!("link set far netns /proc/{own}/fd/{fd}"));
            run_there("ip", "link set far up");
            let to_peer = MEMBER_WITHOUT_XDP | MEMBER_TO_PEER;
            assert_eq!(all_changes(&mut ways, &used), [(near, to_peer)]);
            let mut others = WaysOut::new(vec!["far".to_owned()]);
            let found = others.look_at([near].into_iter());
            assert_eq!(found, [(near, MEMBER_WITHOUT_XDP)], "it is not named");

            run_there("ethtool", "-K far gro on");
            assert_eq!(all_changes(&mut ways, &used), [(near, 0)], "GRO");
            run_there("ethtool", "-K far gro off");
            assert_eq!(all_changes(&mut ways, &used), [(near, to_peer)]);
            for (what, add, delete) in [
                ("a queue", "qdisc add dev near root pfifo", "qdisc del dev near root"),
                ("egress filters", "qdisc add dev near clsact", "qdisc del dev near clsact"),
            ] {
                run("tc", add);
                assert_eq!(all_changes(&mut ways, &used), [(near, MEMBER_WITHOUT_XDP)], "{what}");
                run("tc", delete);
                assert_eq!(all_changes(&mut ways, &used), [(near, to_peer)], "{what}");
            }
        };
        thread::spawn(inside).join().unwrap();
    }
}
