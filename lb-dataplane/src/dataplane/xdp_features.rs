//! Which interfaces take frames that XDP redirects to them: the kernel says so by generic netlink (its family `netdev`, 6.3
//! and later).

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::link::attribute;

const HEADERS_LEN: usize = 20;
const ANSWER_LEN: usize = 8192;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` of `linux/genetlink.h`.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES` and `NETDEV_XDP_ACT_NDO_XMIT` of
/// `linux/netdev.h`.
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
const TAKES_REDIRECTED: u64 = 4;

/// What is known of interfaces; of one that the kernel says nothing of, that it takes frames.
#[derive(Debug, Default)]
pub(super) struct XdpFeatures(HashMap<u32, bool>);

impl XdpFeatures {
    /// Looks at interfaces that were not looked at before; those that take no frames.
    pub(super) fn look_at(&mut self, interfaces: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut new: Vec<u32> = interfaces.filter(|index| !self.0.contains_key(index)).collect();
        if new.is_empty() {
            return new;
        }
        new.sort_unstable();
        new.dedup();
        let kernel = Kernel::open().ok();
        new.retain(|index| !self.ask(kernel.as_ref(), *index));
        new
    }

    /// Looks again at the interfaces that are in use, and forgets the others; those that are other than before, and whether they
    /// take frames now. A forgotten one counts as one that does, as before it was looked at.
    pub(super) fn changed(&mut self, in_use: &HashSet<u32>) -> Vec<(u32, bool)> {
        let gone = self.0.extract_if(|index, _| !in_use.contains(index));
        let gone: Vec<_> = gone.filter(|(_, took)| !took).map(|(index, _)| (index, true)).collect();
        [gone, self.other_than_before()].concat()
    }

    fn other_than_before(&mut self) -> Vec<(u32, bool)> {
        let Ok(kernel) = Kernel::open() else { return Vec::new() };
        let before: Vec<(u32, bool)> =
            self.0.iter().map(|(index, takes)| (*index, *takes)).collect();
        let now =
            before.into_iter().map(|(index, takes)| (index, takes, self.ask(Some(&kernel), index)));
        now.filter(|(_, takes, now)| takes != now).map(|(index, _, now)| (index, now)).collect()
    }

    fn ask(&mut self, kernel: Option<&Kernel>, index: u32) -> bool {
        let features = kernel.and_then(|kernel| kernel.features(index).ok());
        let takes = features.is_none_or(|features| features & TAKES_REDIRECTED != 0);
        self.0.insert(index, takes);
        takes
    }
}

/// A socket, and the number of the family.
struct Kernel {
    socket: OwnedFd,
    family: u16,
}

impl Kernel {
    fn open() -> io::Result<Self> {
        let generic = SockProtocol::NetlinkGeneric;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, generic)?;
        let answer = ask(&socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
        let family = answer.get(HEADERS_LEN..).and_then(|all| attribute(all, FAMILY_ID));
        let family = family.and_then(|id| id.first_chunk().copied());
        let family = family.map(u16::from_ne_bytes).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, family })
    }

    fn features(&self, ifindex: u32) -> io::Result<u64> {
        let answer = ask(&self.socket, self.family, GET_DEVICE, IFINDEX, &ifindex.to_ne_bytes())?;
        let features = answer.get(HEADERS_LEN..).and_then(|all| attribute(all, XDP_FEATURES));
        let features = features.and_then(|bits| bits.first_chunk().copied());
        Ok(features.map(u64::from_ne_bytes).ok_or(io::ErrorKind::NotFound)?)
    }
}

/// A question with one attribute: `nlmsghdr`, `genlmsghdr`, `nlattr`. An error is an answer without the attribute that is
/// looked for in it.
fn ask(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    attribute: u16,
    value: &[u8],
) -> io::Result<Vec<u8>> {
    let attribute_len = 4 + value.len();
    let len = HEADERS_LEN + attribute_len.next_multiple_of(4);
    let mut request = Vec::with_capacity(len);
    request.extend((len as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend((attribute_len as u16).to_ne_bytes());
    request.extend(attribute.to_ne_bytes());
    request.extend(value);
    request.resize(len, 0);
    send(socket.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_LEN];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(len);
    let is_error = answer.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes()[..]);
    if is_error { Err(io::ErrorKind::NotFound.into()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::net::if_::if_nametoindex;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_veth_takes_frames_while_its_peer_does_and_a_bridge_takes_none() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let run = |program: &str, arguments: &str| {
                let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
                assert!(output.status.success(), "{program} {arguments}: {output:?}");
            };
            run("ip", "link add near type veth peer name far");
            run("ip", "link add bridge type bridge");
            for link in ["near", "far", "bridge"] {
                run("ip", &format!("link set {link} up"));
            }
            let [near, bridge] = ["near", "bridge"].map(|name| if_nametoindex(name).unwrap());
            let gone = 4711;
            let mut features = XdpFeatures::default();
            run("ethtool", "-K far gro on");
            assert_eq!(features.look_at([near, bridge, gone, near].into_iter()), [bridge]);
            assert_eq!(features.look_at([near, bridge].into_iter()), [0; 0], "they are known");
            let used = HashSet::from([near, bridge]);
            assert_eq!(features.changed(&used), []);
            run("ethtool", "-K far gro off");
            assert_eq!(features.changed(&used), [(near, false)]);
            run("ethtool", "-K far gro on");
            assert_eq!(features.changed(&used), [(near, true)]);
            // Interfaces come and go: what no route leads through any more is forgotten.
            assert_eq!(features.changed(&HashSet::from([near])), [(bridge, true)]);
            assert_eq!(features.0.len(), 1);
        };
        thread::spawn(inside).join().unwrap();
    }
}
