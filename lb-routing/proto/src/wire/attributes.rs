//! Path attributes: the table of what RFC 7606 demands of each, and how they are written.

mod decode;

use std::net::Ipv4Addr;

use super::{
    Attributes, Context, Disposition, Family, Fault, Origin, RawAttribute, as_path::Width,
};

pub(super) use decode::{List, Multi, TWICE, decode, partition, whole};

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

/// Appends one attribute; its length is extended only where it must be.
fn put(flags: u8, code: u8, value: &[u8], list: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(len) => list.extend([flags & !EXTENDED_LENGTH, code, len]),
        Err(_) => {
            // A longer value than two octets can say is refused by the caller for its size.
            let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
            list.extend([flags | EXTENDED_LENGTH, code, high, low]);
        }
    }
    list.extend(value);
}

/// The attributes that a neighbour gets, one after the other in the order of their codes
/// (RFC 4271 §5), without the multiprotocol ones.
pub(super) fn encode(
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
    context: Context,
) -> Vec<u8> {
    let width = Width::of(context.four_octet_as);
    let mut others: Vec<&RawAttribute> = attributes.other.iter().collect();
    others.sort_by_key(|raw| raw.code);
    let mut others = others.into_iter().peekable();
    let (mut list, mut value) = (Vec::with_capacity(128), Vec::new());
    for code in ORDER {
        while let Some(raw) = others.next_if(|raw| raw.code < code) {
            pass_on(raw, context, &mut list);
        }
        value.clear();
        let known = Known { attributes, next_hop, context, width };
        if let Some(flags) = known.value(code, &mut value) {
            put(flags, code, &value, &mut list);
        }
    }
    others.for_each(|raw| pass_on(raw, context, &mut list));
    list
}

/// What [`encode`] writes itself.
const ORDER: [u8; 12] = [
    ORIGIN,
    AS_PATH,
    NEXT_HOP,
    MULTI_EXIT_DISC,
    LOCAL_PREF,
    ATOMIC_AGGREGATE,
    AGGREGATOR,
    COMMUNITIES,
    ORIGINATOR_ID,
    CLUSTER_LIST,
    AS4_PATH,
    AS4_AGGREGATOR,
];

struct Known<'a> {
    attributes: &'a Attributes,
    next_hop: Option<Ipv4Addr>,
    context: Context,
    width: Width,
}

impl Known<'_> {
    /// Appends an attribute's value and says its flags; `None` where it is not to be written.
    fn value(&self, code: u8, out: &mut Vec<u8>) -> Option<u8> {
        let attributes = self.attributes;
        // What stays inside the AS (RFC 4271 §5.1.5, RFC 4456 §8).
        let inside = !self.context.external;
        // What a two-octet neighbour passes on to those behind it (RFC 6793 §4.2.2).
        let narrow = self.width == Width::Two;
        match code {
            ORIGIN => out.push(origin_octet(attributes.origin)),
            AS_PATH => attributes.as_path.encode(self.width, out),
            NEXT_HOP => out.extend(self.next_hop?.octets()),
            MULTI_EXIT_DISC => out.extend(attributes.med?.to_be_bytes()),
            LOCAL_PREF => out.extend(attributes.local_pref.filter(|_| inside)?.to_be_bytes()),
            ATOMIC_AGGREGATE => attributes.atomic_aggregate.then_some(())?,
            AGGREGATOR => put_aggregator(attributes.aggregator?, self.width, out),
            COMMUNITIES => out.extend(attributes.communities.iter().flat_map(|c| c.to_be_bytes())),
            ORIGINATOR_ID => out.extend(attributes.originator_id.filter(|_| inside)?.octets()),
            CLUSTER_LIST if inside => {
                out.extend(attributes.cluster_list.iter().flat_map(Ipv4Addr::octets));
            }
            AS4_PATH if narrow => attributes.as_path.to_as4_path()?.encode(Width::Four, out),
            AS4_AGGREGATOR if narrow => {
                let wide = attributes.aggregator.filter(|(asn, _)| *asn > u16::MAX.into())?;
                put_aggregator(wide, Width::Four, out);
            }
            _ => return None,
        }
        let listed = matches!(code, COMMUNITIES | CLUSTER_LIST);
        (!listed || !out.is_empty()).then(|| rule_of(code).map(|rule| rule.flags))?
    }
}

fn put_aggregator((asn, address): (u32, Ipv4Addr), width: Width, out: &mut Vec<u8>) {
    width.put(asn, out);
    out.extend(address.octets());
}

/// A transitive attribute; one that is not recognized gets the partial bit (RFC 4271 §5), and
/// extended communities that are not transitive stay in the AS (RFC 4360 §6).
fn pass_on(raw: &RawAttribute, context: Context, list: &mut Vec<u8>) {
    let flags = raw.flags & (OPTIONAL | TRANSITIVE | PARTIAL);
    match rule_of(raw.code) {
        _ if flags & T != T => {}
        None => put(flags | PARTIAL, raw.code, &raw.value, list),
        Some(_) if raw.code == EXTENDED_COMMUNITIES && context.external => {
            let transitive = |community: &&[u8]| community.first().is_some_and(|t| t & 0x40 == 0);
            let value = raw.value.chunks(8).filter(transitive).collect::<Vec<_>>().concat();
            if !value.is_empty() {
                put(flags, raw.code, &value, list);
            }
        }
        Some(_) if is_kept_raw(raw.code) => put(flags, raw.code, &raw.value, list),
        Some(_) => {}
    }
}

/// Octets of what was refused that are shown at most.
const SHOWN: usize = 64;

/// What was wrong with an attribute, what was done, and its octets, for people.
pub(crate) fn shown(fault: &Fault, octets: Option<&[u8]>) -> String {
    let done = match fault.disposition {
        Disposition::AttributeDiscard => "attribute discarded",
        Disposition::TreatAsWithdraw => "routes withdrawn",
    };
    let mut text = format!("{} ({}): {}, {done}", name(fault.code), fault.code, fault.what);
    if let Some(octets) = octets {
        text.push_str("; it was ");
        text.push_str(&hexadecimal(octets));
    }
    text
}

/// Octets that were refused, for people: so many of them.
pub(crate) fn hexadecimal(octets: &[u8]) -> String {
    let mut words: Vec<_> = octets.iter().take(SHOWN).map(|octet| format!("{octet:02x}")).collect();
    if octets.len() > SHOWN {
        words.push(format!("and {} octets more", octets.len() - SHOWN));
    }
    words.join(" ")
}

/// The largest of an encoded list: its code and its octets.
pub(super) fn largest(list: &[u8]) -> (u8, usize) {
    decode::lengths(list).max_by_key(|&(_, len)| len).unwrap_or_default()
}

/// MP_UNREACH_NLRI without prefixes (RFC 4724 §2).
pub(super) fn end_of_rib(family: Family) -> Vec<u8> {
    let [high, low] = family.afi.to_be_bytes();
    let mut list = Vec::new();
    put(N, MP_UNREACH_NLRI, &[high, low, family.safi], &mut list);
    list
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
