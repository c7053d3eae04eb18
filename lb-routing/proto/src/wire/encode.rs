//! Writes messages; UPDATEs are packed with as many prefixes as 4096 octets take (RFC 4271 §4.3).
//!
//! IPv4 prefixes go into the classic fields, IPv6 prefixes into MP_REACH_NLRI and MP_UNREACH_NLRI,
//! which stand first; no UPDATE carries more than one of the four fields (RFC 7606 §5.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{
    Attributes, Context, Family, HEADER_LEN, MAX_MESSAGE_LEN, Message, Update, attributes, frame,
    nlri, open, route_refresh,
};

/// Octets of an UPDATE's body without attributes and prefixes: the two length fields.
const LENGTH_FIELDS: usize = 4;
/// Octets for attributes and prefixes.
const MAX_CONTENT: usize = MAX_MESSAGE_LEN - HEADER_LEN - LENGTH_FIELDS;
/// Octets of the longest prefixes.
const MAX_IPV4_PREFIX: usize = 5;
const MAX_IPV6_PREFIX: usize = 17;
/// Octets of MP_REACH_NLRI for IPv6 before its prefixes: attribute header with extended length,
/// family, next hop with its length, reserved octet.
const MP_REACH_OVERHEAD: usize = 4 + 3 + 1 + 16 + 1;
/// Octets of MP_UNREACH_NLRI before its prefixes.
const MP_UNREACH_OVERHEAD: usize = 4 + 3;

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
    /// Prefix and next hop are of different families, which needs RFC 8950; it is never negotiated.
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
        Message::RouteRefresh(family) => route_refresh::encode(*family),
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

/// Appends the UPDATEs that announce `prefixes`, all of the next hop's family.
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
    let foreign = |prefix: &&IpNetwork| prefix.is_ipv4() != next_hop.is_ipv4();
    if let Some(&prefix) = prefixes.iter().find(foreign) {
        return Err(EncodeError::NextHopFamily { prefix, next_hop });
    }
    match next_hop {
        IpAddr::V4(next_hop) => announce_ipv4(attributes, next_hop, prefixes, context, messages),
        IpAddr::V6(next_hop) => announce_ipv6(attributes, next_hop, prefixes, context, messages),
    }
}

fn announce_ipv4(
    attributes: &Attributes,
    next_hop: Ipv4Addr,
    prefixes: &[IpNetwork],
    context: Context,
    messages: &mut Vec<Vec<u8>>,
) -> Result<(), EncodeError> {
    let encoded = attributes::encode(attributes, Some(next_hop), context);
    let attributes = within(encoded, MAX_CONTENT - MAX_IPV4_PREFIX)?;
    let room = MAX_CONTENT - attributes.len();
    for field in fields(prefixes.iter(), room) {
        messages.push(update(&[], &[&attributes], &field));
    }
    Ok(())
}

fn announce_ipv6(
    attributes: &Attributes,
    next_hop: Ipv6Addr,
    prefixes: &[IpNetwork],
    context: Context,
    messages: &mut Vec<Vec<u8>>,
) -> Result<(), EncodeError> {
    let encoded = attributes::encode(attributes, None, context);
    let attributes = within(encoded, MAX_CONTENT - MP_REACH_OVERHEAD - MAX_IPV6_PREFIX)?;
    let room = MAX_CONTENT - MP_REACH_OVERHEAD - attributes.len();
    for field in fields(prefixes.iter(), room) {
        let reach = attributes::mp_reach(next_hop, &field);
        messages.push(update(&[], &[&reach, &attributes], &[]));
    }
    Ok(())
}

/// Appends the UPDATEs that withdraw `prefixes`, of either family.
pub fn encode_withdrawals(prefixes: &[IpNetwork], _context: Context, messages: &mut Vec<Vec<u8>>) {
    for field in fields(prefixes.iter().filter(|prefix| prefix.is_ipv4()), MAX_CONTENT) {
        messages.push(update(&field, &[], &[]));
    }
    let room = MAX_CONTENT - MP_UNREACH_OVERHEAD;
    for field in fields(prefixes.iter().filter(|prefix| prefix.is_ipv6()), room) {
        let unreach = attributes::mp_unreach(Family::IPV6_UNICAST, &field);
        messages.push(update(&[], &[&unreach], &[]));
    }
}

/// The UPDATE that ends a family's initial routes (RFC 4724 §2).
#[must_use]
pub fn encode_end_of_rib(family: Family) -> Vec<u8> {
    if family == Family::IPV4_UNICAST {
        update(&[], &[], &[])
    } else {
        update(&[], &[&attributes::mp_unreach(family, &[])], &[])
    }
}

/// Fields of at most `room` octets that hold the prefixes in order; none is empty.
fn fields<'a>(prefixes: impl Iterator<Item = &'a IpNetwork>, room: usize) -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for prefix in prefixes {
        let len = nlri::encoded_len(prefix);
        match fields.last_mut() {
            Some(field) if field.len() + len <= room => nlri::encode(prefix, field),
            Some(_) | None => {
                let mut field = Vec::new();
                nlri::encode(prefix, &mut field);
                fields.push(field);
            }
        }
    }
    fields
}

/// All attributes one after the other, if they fit.
fn within(attributes: Vec<Vec<u8>>, max: usize) -> Result<Vec<u8>, EncodeError> {
    let total = attributes.iter().map(Vec::len).sum();
    match attributes.iter().max_by_key(|attribute| attribute.len()) {
        Some(largest) if total > max => Err(EncodeError::AttributesTooLarge {
            total,
            max,
            name: attributes::name(largest.get(1).copied().unwrap_or_default()),
            len: largest.len(),
        }),
        Some(_) | None => Ok(attributes.concat()),
    }
}

fn update(withdrawn: &[u8], attributes: &[&[u8]], prefixes: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = Vec::with_capacity(MAX_MESSAGE_LEN);
    for field in [withdrawn, &attributes] {
        body.extend(u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(field);
    }
    body.extend(prefixes);
    frame::seal(frame::Kind::Update, &body)
}

#[cfg(test)]
mod tests;
