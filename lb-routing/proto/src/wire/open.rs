//! OPEN and its capabilities (RFC 4271 §4.2 and §6.2, RFC 4724 §3, RFC 5492, RFC 8538 §2, RFC 9072).

use std::net::Ipv4Addr;

use super::{
    AddPath, Capability, Family, GracefulRestart, HEADER_LEN, MAX_MESSAGE_LEN, Notification, Open,
    error, frame,
};

const VERSION: u8 = 4;
/// Stands in two-octet fields for a number that needs four (RFC 6793 §9).
pub(super) const AS_TRANS: u16 = 23456;
/// The optional parameter that holds capabilities (RFC 5492 §4).
const CAPABILITIES: u8 = 2;
/// The parameter type and length that announce the extended format (RFC 9072 §2).
const EXTENDED: u8 = 255;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_ROUTE_REFRESH: u8 = 70;

/// R and N in the first octet of the graceful restart capability, and F in a family's flags.
const RESTARTED: u8 = 0x80;
const NOTIFICATIONS: u8 = 0x40;
const FORWARDING: u8 = 0x80;
/// Restart Time has twelve bits.
const MAX_RESTART_TIME: u16 = 0x0fff;

/// Octets of capabilities that fit into a message in the extended format: header, fixed part, the
/// four octets that announce the format and the three of the one parameter are taken off.
const MAX_CAPABILITIES_LEN: usize = MAX_MESSAGE_LEN - HEADER_LEN - 9 - 4 - 3;

fn unspecific() -> Notification {
    Notification::new(error::OPEN_MESSAGE_ERROR)
}

/// Reads the body; the data of an error is what was refused, where that is a field. Whether the AS is the one configured, and whether an internal neighbour's
/// identifier is ours, is for the session to say.
pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let Some((&[version, as1, as0, hold1, hold0, id3, id2, id1, id0], parameters)) =
        body.split_first_chunk()
    else {
        return Err(unspecific());
    };
    if version != VERSION {
        let largest = u16::from(VERSION).to_be_bytes();
        return Err(Notification::with_data(error::UNSUPPORTED_VERSION_NUMBER, largest));
    }
    let router_id = Ipv4Addr::new(id3, id2, id1, id0);
    let hold_time_secs = u16::from_be_bytes([hold1, hold0]);
    let capabilities = decode_parameters(parameters)?;
    let four_octet = capabilities.iter().find_map(|capability| match capability {
        Capability::FourOctetAs(asn) => Some(*asn),
        Capability::Multiprotocol(_)
        | Capability::RouteRefresh
        | Capability::AddPath(_)
        | Capability::ExtendedNextHop(_)
        | Capability::ExtendedMessage
        | Capability::EnhancedRouteRefresh
        | Capability::GracefulRestart(_)
        | Capability::Unknown { .. } => None,
    });
    let asn = four_octet.unwrap_or_else(|| u16::from_be_bytes([as1, as0]).into());
    if asn == 0 {
        // RFC 7607 §2.
        return Err(Notification::with_data(error::BAD_PEER_AS, asn.to_be_bytes()));
    }
    if router_id.is_unspecified() {
        // RFC 6286 §2.2: any other value is valid.
        return Err(Notification::with_data(error::BAD_BGP_IDENTIFIER, router_id.octets()));
    }
    if matches!(hold_time_secs, 1 | 2) {
        return Err(Notification::with_data(
            error::UNACCEPTABLE_HOLD_TIME,
            hold_time_secs.to_be_bytes(),
        ));
    }
    Ok(Open { asn, hold_time_secs, router_id, capabilities })
}

/// Reads from the length of the optional parameters on, in either format.
fn decode_parameters(field: &[u8]) -> Result<Vec<Capability>, Notification> {
    // RFC 9072 §2: type 255 in the first parameter's place makes the format extended, whatever the
    // length before it says, unless that is zero.
    let (mut parameters, extended) = match *field {
        [length, EXTENDED, high, low, ref rest @ ..] if length > 0 => {
            (exactly(rest, u16::from_be_bytes([high, low]).into())?, true)
        }
        [length, ref rest @ ..] => (exactly(rest, length.into())?, false),
        [] => return Err(unspecific()),
    };
    let mut capabilities = Vec::new();
    while let Some((kind, value, rest)) = parameter(parameters, extended) {
        if kind != CAPABILITIES {
            return Err(Notification::with_data(error::UNSUPPORTED_OPTIONAL_PARAMETER, [kind]));
        }
        decode_capabilities(value, &mut capabilities)?;
        parameters = rest;
    }
    if parameters.is_empty() { Ok(capabilities) } else { Err(unspecific()) }
}

fn exactly(field: &[u8], length: usize) -> Result<&[u8], Notification> {
    if field.len() == length { Ok(field) } else { Err(unspecific()) }
}

/// The first parameter's type and value, and what follows it.
fn parameter(field: &[u8], extended: bool) -> Option<(u8, &[u8], &[u8])> {
    let (kind, length, rest) = match (extended, field) {
        (true, [kind, high, low, rest @ ..]) => {
            (*kind, usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        (false, [kind, length, rest @ ..]) => (*kind, usize::from(*length), rest),
        (true | false, _) => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((kind, value, rest))
}

fn decode_capabilities(
    mut field: &[u8],
    capabilities: &mut Vec<Capability>,
) -> Result<(), Notification> {
    while let Some((code, value, rest)) = parameter(field, false) {
        capabilities.push(capability(code, value).ok_or_else(unspecific)?);
        field = rest;
    }
    if field.is_empty() { Ok(()) } else { Err(unspecific()) }
}

/// `None` where a known capability has another length than its own.
fn capability(code: u8, value: &[u8]) -> Option<Capability> {
    Some(match (code, value) {
        (MULTIPROTOCOL, &[high, low, _, safi]) => {
            Capability::Multiprotocol(Family { afi: u16::from_be_bytes([high, low]), safi })
        }
        (ROUTE_REFRESH, []) => Capability::RouteRefresh,
        (EXTENDED_MESSAGE, []) => Capability::ExtendedMessage,
        (ENHANCED_ROUTE_REFRESH, []) => Capability::EnhancedRouteRefresh,
        (FOUR_OCTET_AS, &[a, b, c, d]) => Capability::FourOctetAs(u32::from_be_bytes([a, b, c, d])),
        (MULTIPROTOCOL | ROUTE_REFRESH | FOUR_OCTET_AS, _) => return None,
        // RFC 7911 §4: what cannot be understood is as if it were not there.
        (ADD_PATH, value) if value.len().is_multiple_of(4) => {
            match value.chunks_exact(4).map(add_path).collect() {
                Some(entries) => Capability::AddPath(entries),
                None => Capability::Unknown { code, value: value.to_vec() },
            }
        }
        (EXTENDED_NEXT_HOP, value) if value.len().is_multiple_of(6) => {
            Capability::ExtendedNextHop(value.as_chunks().0.iter().map(next_hop).collect())
        }
        // A promise that cannot be read is none; no RFC makes it an error.
        (GRACEFUL_RESTART, &[high, low, ref families @ ..]) if families.len().is_multiple_of(4) => {
            Capability::GracefulRestart(graceful_restart([high, low], families))
        }
        (code, value) => Capability::Unknown { code, value: value.to_vec() },
    })
}

/// An entry of the capability; none where it cannot be understood.
fn add_path(entry: &[u8]) -> Option<AddPath> {
    let &[high, low, safi, way @ 1..=3] = entry else { return None };
    let family = Family { afi: u16::from_be_bytes([high, low]), safi };
    Some(AddPath { family, receive: way & 1 != 0, send: way & 2 != 0 })
}

/// RFC 8950 §4: AFI, SAFI of two octets, AFI of the next hop.
fn next_hop(&[a1, a0, s1, s0, n1, n0]: &[u8; 6]) -> (Family, u16) {
    // A SAFI beyond one octet is none of anybody's.
    let safi = u8::try_from(u16::from_be_bytes([s1, s0])).unwrap_or_default();
    (Family { afi: u16::from_be_bytes([a1, a0]), safi }, u16::from_be_bytes([n1, n0]))
}

fn graceful_restart([high, low]: [u8; 2], families: &[u8]) -> GracefulRestart {
    let family = |octets: &[u8; 4]| {
        let &[high, low, safi, flags] = octets;
        (Family { afi: u16::from_be_bytes([high, low]), safi }, flags & FORWARDING != 0)
    };
    GracefulRestart {
        restarted: high & RESTARTED != 0,
        notifications: high & NOTIFICATIONS != 0,
        time_secs: u16::from_be_bytes([high, low]) & MAX_RESTART_TIME,
        families: families.as_chunks().0.iter().map(family).collect(),
    }
}

/// Writes the message, capabilities in one parameter, in the extended format only where they need it
/// (RFC 9072 §2). Capabilities beyond the size of a message are left out: the neighbour then sees
/// features that are not offered, nothing worse.
pub(super) fn encode(open: &Open) -> Vec<u8> {
    let mut capabilities = Vec::new();
    for capability in &open.capabilities {
        let encoded = encode_capability(capability);
        if capabilities.len() + encoded.len() > MAX_CAPABILITIES_LEN {
            break;
        }
        capabilities.extend(encoded);
    }
    let mut body = vec![VERSION];
    body.extend(u16::try_from(open.asn).unwrap_or(AS_TRANS).to_be_bytes());
    body.extend(open.hold_time_secs.to_be_bytes());
    body.extend(open.router_id.octets());
    match u8::try_from(capabilities.len()) {
        Ok(0) => body.push(0),
        Ok(length @ 1..=252) => body.extend([length + 2, CAPABILITIES, length]),
        Ok(253..) | Err(_) => {
            let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
            body.extend([EXTENDED, EXTENDED]);
            body.extend((length + 3).to_be_bytes());
            body.push(CAPABILITIES);
            body.extend(length.to_be_bytes());
        }
    }
    body.extend(capabilities);
    frame::seal(frame::Kind::Open, &body)
}

/// A value beyond 255 octets is cut: a capability cannot say more.
fn encode_capability(capability: &Capability) -> Vec<u8> {
    let (code, value) = match capability {
        Capability::Multiprotocol(Family { afi, safi }) => {
            let [high, low] = afi.to_be_bytes();
            (MULTIPROTOCOL, vec![high, low, 0, *safi])
        }
        Capability::RouteRefresh => (ROUTE_REFRESH, Vec::new()),
        Capability::FourOctetAs(asn) => (FOUR_OCTET_AS, asn.to_be_bytes().to_vec()),
        Capability::AddPath(families) => {
            let entry = |it: &AddPath| {
                let [high, low] = it.family.afi.to_be_bytes();
                [high, low, it.family.safi, u8::from(it.receive) | u8::from(it.send) << 1]
            };
            // As many as its length can say.
            let most = usize::from(u8::MAX) / 4;
            (ADD_PATH, families.iter().take(most).flat_map(entry).collect())
        }
        Capability::ExtendedNextHop(families) => (EXTENDED_NEXT_HOP, encode_next_hops(families)),
        Capability::ExtendedMessage => (EXTENDED_MESSAGE, Vec::new()),
        Capability::EnhancedRouteRefresh => (ENHANCED_ROUTE_REFRESH, Vec::new()),
        Capability::GracefulRestart(restart) => (GRACEFUL_RESTART, encode_restart(restart)),
        Capability::Unknown { code, value } => {
            (*code, value.iter().copied().take(usize::from(u8::MAX)).collect())
        }
    };
    let mut encoded = vec![code, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    encoded.extend(value);
    encoded
}

/// Those beyond what 255 octets say are left out.
fn encode_next_hops(families: &[(Family, u16)]) -> Vec<u8> {
    let octets = |(Family { afi, safi }, next_hop): &(Family, u16)| {
        let ([a1, a0], [n1, n0]) = (afi.to_be_bytes(), next_hop.to_be_bytes());
        [a1, a0, 0, *safi, n1, n0]
    };
    families.iter().take(usize::from(u8::MAX) / 6).flat_map(octets).collect()
}

/// Families beyond what 255 octets say are left out.
fn encode_restart(restart: &GracefulRestart) -> Vec<u8> {
    const MAX_FAMILIES: usize = (u8::MAX as usize - 2) / 4;
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let [high, low] = restart.time_secs.min(MAX_RESTART_TIME).to_be_bytes();
    let flags = flag(restart.restarted, RESTARTED) | flag(restart.notifications, NOTIFICATIONS);
    let mut value = vec![high | flags, low];
    for (Family { afi, safi }, forwarding) in restart.families.iter().take(MAX_FAMILIES) {
        let [high, low] = afi.to_be_bytes();
        value.extend([high, low, *safi, flag(*forwarding, FORWARDING)]);
    }
    value
}

#[cfg(test)]
mod tests;
