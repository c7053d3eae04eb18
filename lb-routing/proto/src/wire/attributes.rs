//! Path attributes: the table of what RFC 7606 demands of each, and how they are written.

mod decode;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Attributes, Context, Family, Origin, RawAttribute, as_path::Width};

pub(super) use decode::{Collected, decode};

/// Attribute flags (RFC 4271 §4.3).
pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
pub(super) const NEXT_HOP: u8 = 3;
pub(super) const MULTI_EXIT_DISC: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
pub(super) const ATOMIC_AGGREGATE: u8 = 6;
pub(super) const AGGREGATOR: u8 = 7;
pub(super) const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH_NLRI: u8 = 14;
pub(super) const MP_UNREACH_NLRI: u8 = 15;
pub(super) const EXTENDED_COMMUNITIES: u8 = 16;
pub(super) const AS4_PATH: u8 = 17;
pub(super) const AS4_AGGREGATOR: u8 = 18;
pub(super) const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
pub(super) const LARGE_COMMUNITY: u8 = 32;

/// What is right for an attribute, and what happens where it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) code: u8,
    pub(super) name: &'static str,
    /// The optional and transitive bits.
    pub(super) flags: u8,
    pub(super) length: Length,
    /// Where length or value are wrong.
    pub(super) malformed: Action,
    /// Where the optional or transitive bit is wrong (RFC 7606 §3 c, unless the attribute's own
    /// specification says otherwise).
    pub(super) bad_flags: Action,
    /// Discarded without a look if an external neighbour sent it.
    pub(super) internal_only: bool,
}

/// Valid lengths of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Any,
    Exactly(usize),
    AtLeast(usize),
    /// A multiple that is not zero.
    MultipleOf(usize),
    /// An AS number and an IPv4 address.
    AsAndAddress,
}

impl Length {
    pub(super) fn admits(self, len: usize, width: Width) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => len == exact,
            Self::AtLeast(least) => len >= least,
            Self::MultipleOf(unit) => len > 0 && len.is_multiple_of(unit),
            Self::AsAndAddress => len == width.octets() + 4,
        }
    }
}

/// What RFC 7606 §2 does about an error, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Discard,
    Withdraw,
    Reset,
}

use Action::{Discard, Reset, Withdraw};
use Length::{Any, AsAndAddress, AtLeast, Exactly, MultipleOf};

/// Well-known.
const W: u8 = TRANSITIVE;
/// Optional transitive.
const T: u8 = OPTIONAL | TRANSITIVE;
/// Optional non-transitive.
const N: u8 = OPTIONAL;

const fn rule(
    code: u8,
    name: &'static str,
    flags: u8,
    length: Length,
    malformed: Action,
    bad_flags: Action,
    internal_only: bool,
) -> Rule {
    Rule { code, name, flags, length, malformed, bad_flags, internal_only }
}

/// RFC 7606 §7 (and RFC 6793 §6, RFC 8092 §6) as a table.
#[rustfmt::skip]
pub(super) const RULES: [Rule; 17] = [
    //   code                       name                         flags length          malformed bad flags internal only
    rule(ORIGIN,                    "ORIGIN",                    W,    Exactly(1),     Withdraw, Withdraw, false), // §7.1
    rule(AS_PATH,                   "AS_PATH",                   W,    Any,            Withdraw, Withdraw, false), // §7.2
    rule(NEXT_HOP,                  "NEXT_HOP",                  W,    Exactly(4),     Withdraw, Withdraw, false), // §7.3
    rule(MULTI_EXIT_DISC,           "MULTI_EXIT_DISC",           N,    Exactly(4),     Withdraw, Withdraw, false), // §7.4
    rule(LOCAL_PREF,                "LOCAL_PREF",                W,    Exactly(4),     Withdraw, Withdraw, true),  // §7.5
    rule(ATOMIC_AGGREGATE,          "ATOMIC_AGGREGATE",          W,    Exactly(0),     Discard,  Withdraw, false), // §7.6
    rule(AGGREGATOR,                "AGGREGATOR",                T,    AsAndAddress,   Discard,  Withdraw, false), // §7.7
    rule(COMMUNITIES,               "COMMUNITIES",               T,    MultipleOf(4),  Withdraw, Withdraw, false), // §7.8
    rule(ORIGINATOR_ID,             "ORIGINATOR_ID",             N,    Exactly(4),     Withdraw, Withdraw, true),  // §7.9
    rule(CLUSTER_LIST,              "CLUSTER_LIST",              N,    MultipleOf(4),  Withdraw, Withdraw, true),  // §7.10
    rule(MP_REACH_NLRI,             "MP_REACH_NLRI",             N,    AtLeast(5),     Reset,    Reset,    false), // §5.3, §7.11
    rule(MP_UNREACH_NLRI,           "MP_UNREACH_NLRI",           N,    AtLeast(3),     Reset,    Reset,    false), // §5.3, §7.12
    rule(EXTENDED_COMMUNITIES,      "EXTENDED_COMMUNITIES",      T,    MultipleOf(8),  Withdraw, Withdraw, false), // §7.14
    rule(AS4_PATH,                  "AS4_PATH",                  T,    AtLeast(6),     Discard,  Discard,  false), // RFC 6793 §6
    rule(AS4_AGGREGATOR,            "AS4_AGGREGATOR",            T,    Exactly(8),     Discard,  Discard,  false), // RFC 6793 §6
    rule(IPV6_EXTENDED_COMMUNITIES, "IPV6_EXTENDED_COMMUNITIES", T,    MultipleOf(20), Withdraw, Withdraw, false), // §7.15
    rule(LARGE_COMMUNITY,           "LARGE_COMMUNITY",           T,    MultipleOf(12), Withdraw, Withdraw, false), // RFC 8092 §6
];

/// The rule of an attribute, if this speaker knows it.
pub(super) fn rule_of(code: u8) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

/// Known, checked, and kept as it is in [`Attributes::other`].
pub(super) fn is_kept_raw(code: u8) -> bool {
    matches!(code, EXTENDED_COMMUNITIES | IPV6_EXTENDED_COMMUNITIES | LARGE_COMMUNITY)
}

/// An attribute's name for people.
pub(super) fn name(code: u8) -> String {
    rule_of(code).map_or_else(|| format!("attribute {code}"), |rule| rule.name.to_owned())
}

/// One attribute; its length is extended only where it must be.
fn put(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::with_capacity(4 + value.len());
    match u8::try_from(value.len()) {
        Ok(len) => attribute.extend([flags & !EXTENDED_LENGTH, code, len]),
        Err(_) => {
            // A longer value than two octets can say is refused by the caller for its size.
            let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
            attribute.extend([flags | EXTENDED_LENGTH, code, high, low]);
        }
    }
    attribute.extend(value);
    attribute
}

/// The attributes that a neighbour gets, one after the other in the order of their codes
/// (RFC 4271 §5), without the multiprotocol ones.
pub(super) fn encode(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    context: Context,
) -> Vec<Vec<u8>> {
    let width = Width::of(context.four_octet_as);
    let mut as_path = Vec::new();
    attributes.as_path.encode(width, &mut as_path);
    let mut encoded = vec![put(W, ORIGIN, &[origin_octet(attributes.origin)])];
    encoded.push(put(W, AS_PATH, &as_path));
    encoded.extend(next_hop.map(|address| put(W, NEXT_HOP, &address.octets())));
    encoded.extend(attributes.med.map(|med| put(N, MULTI_EXIT_DISC, &med.to_be_bytes())));
    encoded.extend(attributes.atomic_aggregate.then(|| put(W, ATOMIC_AGGREGATE, &[])));
    encoded.extend(
        attributes
            .aggregator
            .map(|aggregator| put(T, AGGREGATOR, &aggregator_value(aggregator, width))),
    );
    if !attributes.communities.is_empty() {
        let value: Vec<u8> =
            attributes.communities.iter().flat_map(|community| community.to_be_bytes()).collect();
        encoded.push(put(T, COMMUNITIES, &value));
    }
    if !context.external {
        encode_internal(attributes, &mut encoded);
    }
    if width == Width::Two {
        encode_as4(attributes, &mut encoded);
    }
    encoded.extend(attributes.other.iter().filter_map(|raw| pass_on(raw, context)));
    encoded.sort_by_key(|attribute| attribute.get(1).copied());
    encoded
}

/// What stays inside the AS (RFC 4271 §5.1.5, RFC 4456 §8).
fn encode_internal(attributes: &Attributes, encoded: &mut Vec<Vec<u8>>) {
    let cluster_list: Vec<u8> = attributes.cluster_list.iter().flat_map(Ipv4Addr::octets).collect();
    encoded.extend(attributes.local_pref.map(|value| put(W, LOCAL_PREF, &value.to_be_bytes())));
    encoded.extend(attributes.originator_id.map(|id| put(N, ORIGINATOR_ID, &id.octets())));
    encoded.extend((!cluster_list.is_empty()).then(|| put(N, CLUSTER_LIST, &cluster_list)));
}

/// What a two-octet neighbour passes on to those behind it (RFC 6793 §4.2.2).
fn encode_as4(attributes: &Attributes, encoded: &mut Vec<Vec<u8>>) {
    if let Some(path) = attributes.as_path.to_as4_path() {
        let mut value = Vec::new();
        path.encode(Width::Four, &mut value);
        encoded.push(put(T, AS4_PATH, &value));
    }
    let wide = attributes.aggregator.filter(|(asn, _)| *asn > u16::MAX.into());
    encoded.extend(
        wide.map(|aggregator| put(T, AS4_AGGREGATOR, &aggregator_value(aggregator, Width::Four))),
    );
}

fn aggregator_value((asn, address): (u32, Ipv4Addr), width: Width) -> Vec<u8> {
    let mut value = Vec::new();
    width.put(asn, &mut value);
    value.extend(address.octets());
    value
}

/// A transitive attribute; one that is not recognized gets the partial bit (RFC 4271 §5), and
/// extended communities that are not transitive stay in the AS (RFC 4360 §6).
fn pass_on(raw: &RawAttribute, context: Context) -> Option<Vec<u8>> {
    let flags = raw.flags & (OPTIONAL | TRANSITIVE | PARTIAL);
    match rule_of(raw.code) {
        _ if flags & T != T => None,
        None => Some(put(flags | PARTIAL, raw.code, &raw.value)),
        Some(_) if raw.code == EXTENDED_COMMUNITIES && context.external => {
            let transitive = |community: &&[u8]| community.first().is_some_and(|t| t & 0x40 == 0);
            let value = raw.value.chunks(8).filter(transitive).collect::<Vec<_>>().concat();
            (!value.is_empty()).then(|| put(flags, raw.code, &value))
        }
        Some(_) => is_kept_raw(raw.code).then(|| put(flags, raw.code, &raw.value)),
    }
}

/// MP_REACH_NLRI for IPv6 unicast with one next hop (RFC 4760 §3, RFC 2545 §3).
pub(super) fn mp_reach(next_hop: Ipv6Addr, prefixes: &[u8]) -> Vec<u8> {
    let mut value = family_value(Family::IPV6_UNICAST);
    value.push(16);
    value.extend(next_hop.octets());
    value.push(0);
    value.extend(prefixes);
    put(N, MP_REACH_NLRI, &value)
}

/// MP_UNREACH_NLRI (RFC 4760 §4).
pub(super) fn mp_unreach(family: Family, prefixes: &[u8]) -> Vec<u8> {
    let mut value = family_value(family);
    value.extend(prefixes);
    put(N, MP_UNREACH_NLRI, &value)
}

fn family_value(family: Family) -> Vec<u8> {
    let [high, low] = family.afi.to_be_bytes();
    vec![high, low, family.safi]
}

fn origin_octet(origin: Origin) -> u8 {
    match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    }
}

#[cfg(test)]
mod tests;
