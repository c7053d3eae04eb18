//! What the kernel says that an interface does with XDP: by generic netlink (its family `netdev`, 6.3 and later).

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
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX` and `NETDEV_A_DEV_XDP_FEATURES` of `linux/netdev.h`.
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC` and `NETDEV_XDP_ACT_NDO_XMIT` of the same: it runs programs, and it takes frames that others redirect.
pub(super) const RUNS: u64 = 1;
pub(super) const TAKES_REDIRECTED: u64 = 4;

/// A socket, and the number of the family.
pub(super) struct Kernel {
    socket: OwnedFd,
    family: u16,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let generic = SockProtocol::NetlinkGeneric;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, generic)?;
        let answer = ask(&socket, CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
        let family = answer.get(HEADERS_LEN..).and_then(|all| attribute(all, FAMILY_ID));
        let family = family.and_then(|id| id.first_chunk().copied());
        let family = family.map(u16::from_ne_bytes).ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket, family })
    }

    /// Bits of `NETDEV_XDP_ACT_*`.
    pub(super) fn features(&self, ifindex: u32) -> io::Result<u64> {
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
