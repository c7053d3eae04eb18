//! Writes messages of every kind.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::pack::{self, Packer};
use super::{
    Attributes, Context, Family, MAX_MESSAGE_LEN, Message, PathIds, Update, attributes, frame,
    open, route_refresh,
};

/// Why prefixes cannot be announced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The attributes leave no room for a prefix.
    #[error(
        "path attributes take {total} octets and {max} fit into an UPDATE; shorten {name}, the \
         largest with {len} octets"
    )]
    AttributesTooLarge {
        /// Octets of all attributes.
        total: usize,
        /// Octets that fit.
        max: usize,
        /// The largest attribute.
        name: String,
        /// Its octets.
        len: usize,
    },
    /// An IPv6 prefix with an IPv4 next hop: there is no such thing.
    #[error("{prefix} cannot have next hop {next_hop}; give it one of its own address family")]
    NextHopFamily {
        /// The prefix.
        prefix: IpNetwork,
        /// The next hop.
        next_hop: IpAddr,
    },
}

/// Writes any message.
///
/// An UPDATE becomes as many messages as it needs, one after the other; routes that cannot be
/// announced ([`EncodeError`]) are withdrawn instead, so that the neighbour keeps no older ones.
#[must_use]
pub fn encode(message: &Message, context: Context) -> Vec<u8> {
    match message {
        Message::Open(open) => open::encode(open),
        Message::Update(update) => encode_update(update, context),
        Message::Notification(notification) => notification.encode(),
        Message::Keepalive => frame::seal(frame::Kind::Keepalive, &[]),
        Message::RouteRefresh(family) => route_refresh::encode(*family, 0),
        Message::RefreshMark(family, subtype) => route_refresh::encode(*family, *subtype),
    }
}

fn encode_update(update: &Update, context: Context) -> Vec<u8> {
    let mut messages = Vec::new();
    encode_withdrawals(&update.withdrawn, context, &mut messages);
    let none = Attributes::default();
    let attributes = update.attributes.as_ref().unwrap_or(&none);
    for announced in &update.announced {
        let (next_hop, prefixes) = (announced.next_hop, &announced.prefixes);
        if encode_updates(attributes, next_hop, prefixes, context, &mut messages).is_err() {
            encode_withdrawals(prefixes, context, &mut messages);
        }
    }
    messages.extend(update.end_of_rib.map(encode_end_of_rib));
    messages.concat()
}

/// Appends the UPDATEs that announce `prefixes`: of the next hop's family, or IPv4 ones with an IPv6 next hop, where that
/// was agreed on (RFC 8950).
///
/// On external sessions LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are left out (RFC 4271 §5.1.5,
/// RFC 4456 §8); what else is passed on, MULTI_EXIT_DISC above all, is for policy to say.
///
/// # Errors
///
/// Nothing is appended then.
pub fn encode_updates(
    attributes: &Attributes,
    next_hop: IpAddr,
    prefixes: &[IpNetwork],
    context: Context,
    messages: &mut Vec<Vec<u8>>,
) -> Result<(), EncodeError> {
    let foreign = |prefix: &&IpNetwork| prefix.is_ipv6() && next_hop.is_ipv4();
    if let Some(&prefix) = prefixes.iter().find(foreign) {
        return Err(EncodeError::NextHopFamily { prefix, next_hop });
    }
    let ids = PathIds::NONE;
    let encoded = encode_attributes(attributes, next_hop, context, (ids, MAX_MESSAGE_LEN))?;
    let mut packer = Packer::new(ids, MAX_MESSAGE_LEN);
    match next_hop {
        IpAddr::V4(_) => packer.announce_ipv4(&encoded, prefixes.iter().map(|&prefix| (0, prefix))),
        IpAddr::V6(next_hop) => {
            for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                let prefixes = prefixes.iter().filter(|prefix| Family::of(prefix) == family);
                packer.announce_by_ipv6(
                    family,
                    &encoded,
                    next_hop,
                    prefixes.map(|&prefix| (0, prefix)),
                );
            }
        }
    }
    messages.extend(split(packer));
    Ok(())
}

/// The attributes as they stand in an UPDATE of so many octets beside a prefix at least; NEXT_HOP is among them where
/// the next hop is IPv4.
pub(crate) fn encode_attributes(
    attributes: &Attributes,
    next_hop: IpAddr,
    context: Context,
    (ids, limit): (PathIds, usize),
) -> Result<Vec<u8>, EncodeError> {
    let classic = match next_hop {
        IpAddr::V4(next_hop) => Some(next_hop),
        IpAddr::V6(_) => None,
    };
    let encoded = attributes::encode(attributes, classic, context);
    let (total, max) = (encoded.len(), pack::max_attributes(next_hop.is_ipv6(), ids, limit));
    if total <= max {
        return Ok(encoded);
    }
    let (code, len) = attributes::largest(&encoded);
    Err(EncodeError::AttributesTooLarge { total, max, name: attributes::name(code), len })
}

/// All attributes but the next hop, however many octets they are.
pub(crate) fn encode_block(attributes: &Attributes, context: Context) -> Vec<u8> {
    attributes::encode(attributes, None, context)
}

/// Appends the UPDATEs that withdraw `prefixes`, of either family.
pub fn encode_withdrawals(prefixes: &[IpNetwork], _context: Context, messages: &mut Vec<Vec<u8>>) {
    let mut packer = Packer::new(PathIds::NONE, MAX_MESSAGE_LEN);
    for ipv6 in [false, true] {
        let family = prefixes.iter().filter(|prefix| prefix.is_ipv6() == ipv6);
        packer.withdraw(ipv6, family.map(|&prefix| (0, prefix)));
    }
    messages.extend(split(packer));
}

/// The UPDATE that ends a family's initial routes (RFC 4724 §2).
#[must_use]
pub fn encode_end_of_rib(family: Family) -> Vec<u8> {
    if family == Family::IPV4_UNICAST {
        return frame::seal(frame::Kind::Update, &[0; 4]);
    }
    let unreach = attributes::end_of_rib(family);
    let len = u8::try_from(unreach.len()).unwrap_or(u8::MAX);
    frame::seal(frame::Kind::Update, &[&[0, 0, 0, len], unreach.as_slice()].concat())
}

fn split(packer: Packer) -> Vec<Vec<u8>> {
    let (mut bytes, _) = packer.finish();
    let mut messages = Vec::new();
    while let Ok(Some(len)) = frame::frame(&bytes) {
        let rest = bytes.split_off(len);
        messages.push(std::mem::replace(&mut bytes, rest));
    }
    messages
}

#[cfg(test)]
mod tests;
