//! Next-hop objects (`ip nexthop`): routes may name their next hops by an object's id, and by nothing else where
//! `net.ipv4.nexthop_compat_mode` is 0.
//!
//! `netlink-packet-route` does not know their messages (`linux/nexthop.h`), so what a route socket carries is [`Wire`]: what the
//! crate knows, and these.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_routing_proto::fib::{KernelNextHop, KernelRouteKind};
use netlink_packet_core::{
    DecodeError, NLA_TYPE_MASK, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

/// `struct nhmsg`: family, scope, protocol, a reserved octet, flags.
const HEADER: usize = 8;
/// `struct nexthop_grp`: id, weight less one, its high octet, two reserved ones.
const GROUP_ENTRY: usize = 8;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_FDB: u16 = 11;

/// What a route socket carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// What the crate knows.
    Known(RouteNetlinkMessage),
    /// Asks for every object.
    GetNextHops,
    /// An object is there, or changed.
    NextHop(u32, Object),
    /// An object is gone.
    NextHopGone(u32),
}

impl From<RouteNetlinkMessage> for Wire {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::Known(message)
    }
}

impl NetlinkSerializable for Wire {
    fn message_type(&self) -> u16 {
        match self {
            Self::Known(message) => message.message_type(),
            Self::GetNextHops => RTM_GETNEXTHOP,
            Self::NextHop(..) => RTM_NEWNEXTHOP,
            Self::NextHopGone(_) => RTM_DELNEXTHOP,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Known(message) => NetlinkSerializable::buffer_len(message),
            // None of these is sent but the request, which has no attributes.
            Self::GetNextHops | Self::NextHop(..) | Self::NextHopGone(_) => HEADER,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Known(message) => message.serialize(buffer),
            Self::GetNextHops | Self::NextHop(..) | Self::NextHopGone(_) => buffer.fill(0),
        }
    }
}

impl NetlinkDeserializable for Wire {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let object =
            || object(payload).ok_or_else(|| DecodeError::from("a next-hop object without id"));
        match header.message_type {
            RTM_NEWNEXTHOP => object().map(|(id, object)| Self::NextHop(id, object)),
            RTM_DELNEXTHOP => object().map(|(id, _)| Self::NextHopGone(id)),
            _ => RouteNetlinkMessage::deserialize(header, payload).map(Self::Known),
        }
    }
}

/// Every object, by its id.
#[derive(Debug, Default)]
pub(super) struct NextHops(HashMap<u32, Object>);

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
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
    /// Notes an object, or (`None`) that it is gone; the objects that do something else now: it, and groups that it is in.
    pub(super) fn set(&mut self, id: u32, object: Option<Object>) -> Vec<u32> {
        let before = match object.clone() {
            Some(object) => self.0.insert(id, object),
            None => self.0.remove(&id),
        };
        if before == object {
            return Vec::new();
        }
        let is_in = |object: &Object| match object {
            Object::Group(members) => members.iter().any(|(member, _)| *member == id),
            Object::Hop { .. } | Object::Blackhole | Object::Special => false,
        };
        let groups = self.0.iter().filter(|(_, object)| is_in(object)).map(|(group, _)| *group);
        std::iter::once(id).chain(groups).collect()
    }

    /// What a route by this object does; `None` where no such object is known.
    pub(super) fn kind(&self, id: u32) -> Option<KernelRouteKind> {
        let hop = |id, weight| match self.0.get(&id)? {
            Object::Hop { ifindex, gateway } => {
                let (ifindex, gateway) = (*ifindex, *gateway);
                Some(KernelNextHop { ifindex, gateway, weight, mtu: None })
            }
            Object::Group(_) | Object::Blackhole | Object::Special => None,
        };
        let hops: Option<Vec<_>> = match self.0.get(&id)? {
            Object::Blackhole => return Some(KernelRouteKind::Blackhole),
            Object::Group(members) => {
                members.iter().map(|(id, weight)| hop(*id, *weight)).collect()
            }
            Object::Hop { .. } | Object::Special => hop(id, 1).map(|hop| vec![hop]),
        };
        Some(match hops {
            Some(hops) if !hops.is_empty() => KernelRouteKind::Unicast(hops),
            Some(_) | None => KernelRouteKind::Kernel,
        })
    }
}

impl FromIterator<(u32, Object)> for NextHops {
    fn from_iter<T: IntoIterator<Item = (u32, Object)>>(objects: T) -> Self {
        Self(objects.into_iter().collect())
    }
}

/// An object and its id; `None` if the message has none, or is cut short.
fn object(message: &[u8]) -> Option<(u32, Object)> {
    let attributes: Vec<_> =
        NlasIterator::new(message.get(HEADER..)?).collect::<Result<_, _>>().ok()?;
    let find = |kind| {
        let mut of_kind =
            attributes.iter().filter(|attribute| attribute.kind() & NLA_TYPE_MASK == kind);
        of_kind.next().map(|attribute| attribute.value())
    };
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
    let weight = less_one.saturating_add(1);
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
        messages.iter().filter_map(|message| object(message)).collect()
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
        assert_eq!(objects.kind(1), Some(KernelRouteKind::Unicast(vec![first])));
        assert_eq!(objects.kind(10), Some(KernelRouteKind::Unicast(vec![first, second])));
        assert_eq!(objects.kind(5), Some(KernelRouteKind::Blackhole));
        for special in [6, 11, 12] {
            assert_eq!(objects.kind(special), Some(KernelRouteKind::Kernel), "{special}");
        }
        assert_eq!(objects.kind(99), None);
    }

    #[test]
    fn an_object_that_changes_changes_the_groups_that_it_is_in() {
        let way = |ifindex| Some(Object::Hop { ifindex, gateway: None });
        let mut objects = NextHops::default();
        assert_eq!(objects.set(1, way(3)), [1]);
        objects.set(10, Some(Object::Group(vec![(1, 1), (2, 1)])));
        objects.set(11, Some(Object::Group(vec![(2, 1)])));
        assert_eq!(objects.set(1, way(3)), []);
        assert_eq!(objects.set(1, way(4)), [1, 10]);
        assert_eq!(objects.set(1, None), [1, 10]);
        assert_eq!(objects.set(1, None), []);
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
