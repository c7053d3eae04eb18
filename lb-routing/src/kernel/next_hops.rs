//! Next-hop objects (`ip nexthop`): routes may name their next hops by an object's id, and by nothing else where
//! `net.ipv4.nexthop_compat_mode` is 0.
//!
//! `netlink-packet-route` does not know their messages (`linux/nexthop.h`), so they are read here.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use lb_routing_proto::fib::{KernelNextHop, KernelRouteKind};

use super::socket::Socket;

/// An object is there or changed.
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
/// An object is gone.
pub(super) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

/// `struct nhmsg`: family, scope, protocol, a reserved octet, flags.
const HEADER: usize = 8;
/// `struct nexthop_grp`: id, weight less one, its high octet, two reserved ones.
const GROUP_ENTRY: usize = 8;
/// A share at most, as of routes that name their next hops themselves.
const MAX_WEIGHT: u16 = 256;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;
/// Nested, or in network byte order: no part of an attribute's type.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Every object, by its id.
#[derive(Debug, Default)]
pub(super) struct NextHops(HashMap<u32, Object>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    /// A way out.
    Hop { ifindex: u32, gateway: Option<IpAddr> },
    /// Others, with their shares.
    Group(Vec<(u32, u16)>),
    /// Drops.
    Blackhole,
    /// What a frame to a MAC cannot say.
    Special,
}

impl NextHops {
    /// What a route by this object does; the kernel's business where that is not known (yet).
    pub(super) fn kind(&self, id: u32) -> KernelRouteKind {
        let hop = |id, weight| match self.0.get(&id)? {
            Object::Hop { ifindex, gateway } => {
                let (ifindex, gateway) = (*ifindex, *gateway);
                Some(KernelNextHop { ifindex, gateway, weight, mtu: None })
            }
            Object::Group(_) | Object::Blackhole | Object::Special => None,
        };
        let hops: Option<Vec<_>> = match self.0.get(&id) {
            Some(Object::Blackhole) => return KernelRouteKind::Blackhole,
            Some(Object::Group(members)) => {
                members.iter().map(|(id, weight)| hop(*id, *weight)).collect()
            }
            Some(Object::Hop { .. } | Object::Special) | None => hop(id, 1).map(|hop| vec![hop]),
        };
        match hops {
            Some(hops) if !hops.is_empty() => KernelRouteKind::Unicast(hops),
            Some(_) | None => KernelRouteKind::Kernel,
        }
    }
}

impl Socket {
    /// Reads all objects; none where the kernel knows no such thing.
    pub(super) async fn next_hops(&mut self) -> io::Result<NextHops> {
        match self.raw_table(RTM_GETNEXTHOP, &[0; HEADER]).await {
            Ok(messages) => {
                Ok(NextHops(messages.iter().filter_map(|message| object(message)).collect()))
            }
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(NextHops::default()),
            Err(error) => Err(error),
        }
    }
}

/// An object and its id; `None` if the message has none.
fn object(message: &[u8]) -> Option<(u32, Object)> {
    let attributes = || attributes(message.get(HEADER..).unwrap_or_default());
    let find = |kind| attributes().find(|(of, _)| *of == kind).map(|(_, value)| value);
    let id = number(find(NHA_ID)?)?;
    let object = if let Some(members) = find(NHA_GROUP) {
        Object::Group(members.chunks_exact(GROUP_ENTRY).filter_map(member).collect())
    } else if find(NHA_BLACKHOLE).is_some() {
        Object::Blackhole
    } else if find(NHA_ENCAP_TYPE).is_some() || find(NHA_FDB).is_some() {
        Object::Special
    } else if let Some(ifindex) = find(NHA_OIF).and_then(number) {
        match find(NHA_GATEWAY).map(address) {
            None => Object::Hop { ifindex, gateway: None },
            Some(Some(gateway)) => Object::Hop { ifindex, gateway: Some(gateway) },
            Some(None) => Object::Special,
        }
    } else {
        Object::Special
    };
    Some((id, object))
}

/// The attributes of a message, as long as they are whole.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    })
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn member(entry: &[u8]) -> Option<(u32, u16)> {
    let [a, b, c, d, low, high, _, _] = *entry.first_chunk()?;
    let less_one = u16::from(high) << 8 | u16::from(low);
    let weight = less_one.saturating_add(1).min(MAX_WEIGHT);
    Some((u32::from_ne_bytes([a, b, c, d]), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        for (kind, value) in attributes {
            message.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    fn known(messages: &[Vec<u8>]) -> NextHops {
        NextHops(messages.iter().filter_map(|message| object(message)).collect())
    }

    fn id(id: u32) -> [u8; 4] {
        id.to_ne_bytes()
    }

    #[test]
    fn a_group_stands_for_its_members_and_is_the_kernels_where_one_is_special_or_unknown() {
        let entry = |of: u32, low| [&id(of)[..], &[low, 0, 0, 0]].concat();
        let group = |of: u32, members: &[Vec<u8>]| {
            message(&[(NHA_ID, &id(of)), (NHA_GROUP, &members.concat())])
        };
        let objects = known(&[
            message(&[(NHA_ID, &id(1)), (NHA_OIF, &id(3)), (NHA_GATEWAY, &[10, 0, 0, 2])]),
            message(&[(NHA_ID, &id(2)), (NHA_OIF, &id(4))]),
            message(&[(NHA_ID, &id(5)), (NHA_BLACKHOLE, &[])]),
            message(&[(NHA_ID, &id(6)), (NHA_OIF, &id(4)), (NHA_ENCAP_TYPE, &[5, 0])]),
            group(10, &[entry(1, 0), entry(2, 254)]),
            group(11, &[entry(1, 0), entry(6, 0)]),
            group(12, &[entry(1, 0), entry(99, 0)]),
        ]);
        let first =
            KernelNextHop { ifindex: 3, gateway: Some([10, 0, 0, 2].into()), weight: 1, mtu: None };
        let second = KernelNextHop { ifindex: 4, gateway: None, weight: 255, mtu: None };
        assert_eq!(objects.kind(1), KernelRouteKind::Unicast(vec![first]));
        assert_eq!(objects.kind(10), KernelRouteKind::Unicast(vec![first, second]));
        assert_eq!(objects.kind(5), KernelRouteKind::Blackhole);
        for special in [6, 11, 12, 99] {
            assert_eq!(objects.kind(special), KernelRouteKind::Kernel, "{special}");
        }
    }

    #[test]
    fn a_message_that_is_cut_short_is_no_object() {
        let whole = message(&[(NHA_OIF, &id(3)), (NHA_ID, &id(1))]);
        assert!(object(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(object(&whole[..len]), None, "{len}");
        }
    }
}
