//! What the kernel says of one interface by rtnetlink: whose XDP program it carries, and what is at a veth's other end.

use std::io;
use std::os::fd::AsRawFd;

use aya::programs::loaded_programs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

const NLMSG_HEADER_LEN: usize = 16;
const IFINFO_LEN: usize = 16;
/// An answer about one interface, statistics and all.
const ANSWER_LEN: usize = 32 * 1024;

/// The other end of a veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FarEnd {
    /// An interface in this namespace, by its index.
    Here(u32),
    /// One in another namespace.
    Elsewhere,
}

/// What is at the other end of a veth.
pub(crate) fn far_end(ifindex: u32) -> io::Result<Option<FarEnd>> {
    let attributes = attributes(ifindex)?;
    let peer = attribute(&attributes, libc::IFLA_LINK).and_then(number);
    Ok(match attribute(&attributes, libc::IFLA_LINK_NETNSID) {
        Some(_) => Some(FarEnd::Elsewhere),
        None => peer.map(FarEnd::Here),
    })
}

/// The name of an interface that is the end of a veth whose other end is in another namespace, without a queue, and without a
/// place for filters that packets leave by.
pub(crate) fn bare_veth_elsewhere(ifindex: u32) -> io::Result<Option<String>> {
    let attributes = attributes(ifindex)?;
    let kind = attribute(&attributes, libc::IFLA_LINKINFO)
        .and_then(|info| attribute(info, IFLA_INFO_KIND));
    let queue = attribute(&attributes, libc::IFLA_QDISC);
    let is_elsewhere = attribute(&attributes, libc::IFLA_LINK_NETNSID).is_some();
    let is_bare = kind == Some(b"veth\0") && queue == Some(b"noqueue\0") && is_elsewhere;
    if !is_bare || has_filters(ifindex)? {
        return Ok(None);
    }
    let name = attribute(&attributes, libc::IFLA_IFNAME).and_then(|name| name.strip_suffix(&[0]));
    Ok(name.map(|name| String::from_utf8_lossy(name).into_owned()))
}

/// Whether there is a `clsact` or `ingress` queueing discipline, as one question asks for both. Kernel 6.18 answers only who
/// asks for an echo, and nobody about one that was there and is gone.
fn has_filters(ifindex: u32) -> io::Result<bool> {
    // `struct tcmsg`: family, index, handle, parent, info.
    let question = [0, ifindex, 0, TC_H_CLSACT, 0].map(u32::to_ne_bytes).concat();
    match ask(libc::RTM_GETQDISC, libc::NLM_F_ECHO, &question) {
        Ok(answer) => Ok(answer.get(4..6) == Some(&libc::RTM_NEWQDISC.to_ne_bytes()[..])),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// What an operator finds the XDP program on an interface by: its name or, as the kernel tells names to who has `CAP_SYS_ADMIN`
/// only, its id.
pub(crate) fn xdp_program(ifindex: u32) -> Option<String> {
    let id = xdp_program_id(ifindex)?;
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    let name = info.and_then(|info| info.name_as_str().map(str::to_owned));
    name.filter(|name| !name.is_empty()).or_else(|| Some(format!("id {id}")))
}

/// The id of the XDP program on an interface, where there is one.
pub(crate) fn xdp_program_id(ifindex: u32) -> Option<u32> {
    let attributes = attributes(ifindex).ok()?;
    let xdp = attribute(&attributes, libc::IFLA_XDP);
    xdp.and_then(|xdp| attribute(xdp, IFLA_XDP_PROG_ID)).and_then(number)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_ne_bytes)
}

/// The attributes of an interface; none where there is no such one.
fn attributes(ifindex: u32) -> io::Result<Vec<u8>> {
    // `struct ifinfomsg`: family and type, index, flags, change.
    let question = [0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
    let answer = ask(libc::RTM_GETLINK, 0, &question)?;
    let is_link = answer.get(4..6) == Some(&libc::RTM_NEWLINK.to_ne_bytes()[..]);
    let attributes = answer.get(NLMSG_HEADER_LEN + IFINFO_LEN..).filter(|_| is_link);
    Ok(attributes.unwrap_or_default().to_vec())
}

/// What the kernel answers to a question by rtnetlink, an error among them. It answers while the question is being sent: what is not there
/// afterwards does not come.
fn ask(kind: u16, flags: i32, question: &[u8]) -> io::Result<Vec<u8>> {
    let len = NLMSG_HEADER_LEN + question.len();
    let mut request = Vec::with_capacity(len);
    request.extend((len as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend(question);
    let route = SockProtocol::NetlinkRoute;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; ANSWER_LEN];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(len);
    Ok(answer)
}

/// `TC_H_CLSACT` of `linux/pkt_sched.h`.
const TC_H_CLSACT: u32 = 0xffff_fff1;
/// `IFLA_INFO_KIND` of `linux/if_link.h`.
const IFLA_INFO_KIND: u16 = 1;
/// `IFLA_XDP_PROG_ID` of `linux/if_link.h`.
const IFLA_XDP_PROG_ID: u16 = 4;
/// The attribute holds others (`NLA_F_NESTED`): no part of its type.
const NESTED: u16 = 1 << 15;

/// The value of the first attribute of a type.
pub(crate) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let [l0, l1, t0, t1, ..] = *bytes else { return None };
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = bytes.get(4..len)?;
        if u16::from_ne_bytes([t0, t1]) & !NESTED == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_among_padded_ones_and_nonsense_is_no_attribute() {
        let bytes = [5, 0, 1, 0, 9, 0, 0, 0, 8, 0, 43, 128, 1, 2, 3, 4];
        assert_eq!(attribute(&bytes, 1), Some(&[9][..]));
        assert_eq!(attribute(&bytes, 43), Some(&[1, 2, 3, 4][..]));
        assert_eq!(attribute(&bytes, 7), None);
        assert_eq!(attribute(&[0, 0, 1, 0], 1), None);
        assert_eq!(attribute(&[200, 0, 1, 0, 1], 1), None);
    }
}
