//! What of this host bears on the fast path, for people who look for what is wrong.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::link::{self, far_end};
use crate::sys;
use crate::sys::ethtool::{Features, RX_C_TAG, RX_S_TAG, driver};

/// The kernel's names of `lro`, and of `txvlan` for C-tags and S-tags.
const LRO: &str = "rx-lro";
const TX_TAGS: [&str; 2] = ["tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"];

/// What an interface does to frames before a program sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// It takes VLAN tags (802.1Q) off, and an XDP program does not see that there was one.
    pub rx_vlan: bool,
    /// The same with S-tags (802.1ad).
    pub rx_vlan_stag: bool,
    /// It merges segments into packets that cannot be forwarded.
    pub lro: bool,
    /// What the other end of a veth does; `None`: it is none.
    pub far_end: Option<FarEnd>,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarEnd {
    /// An interface of this namespace.
    Here {
        /// Its name.
        name: String,
        /// It leaves tags beside frames, where an XDP program at this end does not see them.
        keeps_tags: bool,
    },
    /// One of another namespace, which says nothing.
    Elsewhere,
}

/// Whether the kernel compiles eBPF programs; `None` where it does not say, as in any network namespace but the first.
#[must_use]
pub fn compiles_programs() -> Option<bool> {
    is_on(&fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?)
}

/// Of what `net.core.bpf_jit_enable` says: 0, 1, or 2, which has the kernel write down what it compiled, too.
fn is_on(said: &str) -> Option<bool> {
    said.trim().parse::<u8>().ok().map(|value| value != 0)
}

/// What an interface has switched on.
///
/// # Errors
///
/// No such interface, or a driver that does not say.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let features = Features::of(interface)?;
    let is_veth = driver(interface).is_ok_and(|driver| driver == "veth");
    Ok(Offloads {
        rx_vlan: features.has(RX_C_TAG),
        rx_vlan_stag: features.has(RX_S_TAG),
        lro: features.has(LRO),
        far_end: if is_veth { other_end(interface)? } else { None },
    })
}

fn other_end(interface: &str) -> io::Result<Option<FarEnd>> {
    Ok(match far_end(if_nametoindex(interface)?)? {
        None => None,
        Some(link::FarEnd::Elsewhere) => Some(FarEnd::Elsewhere),
        Some(link::FarEnd::Here(ifindex)) => {
            let name = if_indextoname(ifindex)?.to_string_lossy().into_owned();
            let features = Features::of(&name)?;
            let keeps_tags = TX_TAGS.iter().any(|feature| features.has(feature));
            Some(FarEnd::Here { name, keeps_tags })
        }
    })
}

/// Has the kernel leave fragments that a raw socket of IPv4 sends as they are: else, where it tracks connections, it keeps them
/// until their first one comes, which does not come through it.
///
/// # Errors
///
/// It is no such socket.
pub fn leave_fragments(socket: impl AsFd) -> io::Result<()> {
    sys::leave_fragments(socket)
}

/// Waits for a grace period, as replacing rings and routes does.
///
/// # Errors
///
/// The kernel refuses: without one, what is freed is never used again.
pub fn grace_period() -> io::Result<()> {
    sys::grace_period()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn the_kernel_says_whether_it_compiles_programs() {
        assert_eq!(
            ["0\n", "1\n", "2\n", "", "x"].map(is_on),
            [Some(false), Some(true), Some(true), None, None]
        );
    }

    #[test]
    fn an_interface_says_what_it_does_and_one_that_is_not_there_nothing() {
        assert!(!offloads("lo").unwrap().lro, "the loopback interface merges nothing");
        assert!(offloads("no-such-if").is_err());
    }

    #[test]
    fn a_veth_says_where_tags_stay_beside_frames_at_either_end() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let run = |program: &str, arguments: &str| {
                let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
                assert!(output.status.success(), "{program} {arguments}: {output:?}");
            };
            run("ip", "link add near type veth peer name far");
            run("ip", "link add other type bridge");
            let of = |interface| offloads(interface).unwrap();
            let far = |keeps_tags| Some(FarEnd::Here { name: "far".into(), keeps_tags });
            assert!(of("near").rx_vlan && of("near").rx_vlan_stag, "a veth's default");
            assert_eq!(of("near").far_end, far(true));
            run("ethtool", "-K near rxvlan off rx-vlan-stag-hw-parse off");
            assert!(!of("near").rx_vlan && !of("near").rx_vlan_stag);
            run("ethtool", "-K far txvlan off");
            assert_eq!(of("near").far_end, far(true), "S-tags still");
            run("ethtool", "-K far tx-vlan-stag-hw-insert off");
            assert_eq!(of("near").far_end, far(false));
            assert_eq!(of("other").far_end, None);
            run("ip", "link set far netns 1");
            assert_eq!(of("near").far_end, Some(FarEnd::Elsewhere));
            run("ip", "link del near");
        };
        thread::spawn(inside).join().unwrap();
    }
}
