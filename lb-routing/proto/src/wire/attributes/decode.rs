//! Reads the path attributes of an UPDATE under the rules of the table (RFC 7606 §3 to §7).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    AGGREGATOR, AS_PATH, AS4_AGGREGATOR, AS4_PATH, ATOMIC_AGGREGATE, Action, CLUSTER_LIST,
    COMMUNITIES, EXTENDED_LENGTH, LOCAL_PREF, MP_REACH_NLRI, MP_UNREACH_NLRI, MULTI_EXIT_DISC,
    NEXT_HOP, OPTIONAL, ORIGIN, ORIGINATOR_ID, PARTIAL, Rule, TRANSITIVE, is_kept_raw, rule_of,
};
use crate::wire::as_path::Width;
use crate::wire::nlri::{self, Field, Version};
use crate::wire::{
    AsPath, Attributes, Context, Disposition, Family, Fault, Notification, Origin, PathIds,
    RawAttribute, error, open::AS_TRANS,
};

/// What the attributes of one UPDATE said, those of RFC 4760 apart from the others.
#[derive(Debug)]
pub(in crate::wire) struct List<'a> {
    /// All but MP_REACH_NLRI and MP_UNREACH_NLRI, as they stand: what many UPDATEs share.
    pub(in crate::wire) block: Cow<'a, [u8]>,
    pub(in crate::wire) multi: Multi<'a>,
}

/// What MP_REACH_NLRI and MP_UNREACH_NLRI said.
#[derive(Debug, Default)]
pub(in crate::wire) struct Multi<'a> {
    /// MP_REACH_NLRI of a family that this speaker carries.
    pub(in crate::wire) reach: Option<(IpAddr, Field<'a>)>,
    /// All of that attribute, for the data of a NOTIFICATION.
    pub(in crate::wire) reach_octets: &'a [u8],
    /// All of MP_UNREACH_NLRI.
    pub(in crate::wire) unreach_octets: &'a [u8],
    /// MP_REACH_NLRI is there, whatever its family.
    pub(in crate::wire) has_reach: bool,
    /// The family of an MP_UNREACH_NLRI without prefixes.
    pub(in crate::wire) empty_unreach: Option<Family>,
    /// The prefixes of MP_UNREACH_NLRI.
    pub(in crate::wire) unreach: Option<Field<'a>>,
    pub(in crate::wire) faults: Vec<Fault>,
}

/// What a block of attributes says, whatever prefixes follow it.
#[derive(Debug, Default)]
pub(in crate::wire) struct Collected {
    pub(in crate::wire) origin: Option<Origin>,
    pub(in crate::wire) as_path: Option<AsPath>,
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    /// All but ORIGIN and AS_PATH.
    pub(in crate::wire) attributes: Attributes,
    pub(in crate::wire) faults: Vec<Fault>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<(u32, Ipv4Addr)>,
}

/// An attribute as it stands in the message.
#[derive(Clone, Copy)]
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// All of it, for the data of a NOTIFICATION (RFC 4271 §6.3).
    whole: &'a [u8],
}

/// Takes the multiprotocol attributes out of a list.
pub(in crate::wire) fn partition(field: &[u8], ids: PathIds) -> Result<List<'_>, Notification> {
    let mut multi = Multi::default();
    let mut seen = [false; 2];
    let mut block = Cow::Borrowed(field);
    let mut rest = field;
    // What is left after an attribute that does not fit stays in the block, which is judged by it.
    while let Some((raw, after)) = split(rest) {
        let place = usize::from(raw.code == MP_UNREACH_NLRI);
        if matches!(raw.code, MP_REACH_NLRI | MP_UNREACH_NLRI) {
            // RFC 7606 §3 g.
            if std::mem::replace(&mut seen[place], true) {
                return Err(Notification::new(error::MALFORMED_ATTRIBUTE_LIST));
            }
            multi.attribute(raw, ids)?;
            let start = block.len() - rest.len();
            block.to_mut().drain(start..start + raw.whole.len());
        }
        rest = after;
    }
    Ok(List { block, multi })
}

/// Reads a block; what [`partition`] takes out is not in it.
pub(in crate::wire) fn decode(
    mut block: &[u8],
    context: Context,
) -> Result<Collected, Notification> {
    let mut collected = Collected::default();
    let (mut seen, mut twice) = ([false; 256], [false; 256]);
    while !block.is_empty() {
        let code = block.get(1).copied().unwrap_or_default();
        let Some((raw, rest)) = split(block) else {
            // RFC 7606 §4: what follows is lost, the NLRI field stands where it stood.
            collected.fault(code, Disposition::TreatAsWithdraw, "attribute beyond the list");
            break;
        };
        block = rest;
        if std::mem::replace(&mut seen[usize::from(code)], true) {
            // RFC 7606 §3 g. It is said once: a block has room for a thousand.
            if !std::mem::replace(&mut twice[usize::from(code)], true) {
                collected.discard(code, TWICE);
            }
        } else {
            collected.attribute(raw, context)?;
        }
    }
    collected.merge_as4();
    Ok(collected)
}

/// The first attribute and what follows it; `None` where it does not fit (RFC 7606 §4).
fn split(field: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (flags, code, len, header) = match *field {
        [flags, code, high, low, ..] if flags & EXTENDED_LENGTH != 0 => {
            (flags, code, usize::from(u16::from_be_bytes([high, low])), 4)
        }
        [flags, code, len, ..] if flags & EXTENDED_LENGTH == 0 => {
            (flags, code, usize::from(len), 3)
        }
        _ => return None,
    };
    let (whole, rest) = field.split_at_checked(header + len)?;
    Some((Raw { flags, code, value: whole.get(header..)?, whole }, rest))
}

/// What is said of a family that this speaker does not carry.
const FOREIGN_FAMILY: &str = "family is neither IPv4 nor IPv6 unicast";

/// The code and the octets of each attribute of a list.
pub(in crate::wire) fn lengths(mut list: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    std::iter::from_fn(move || {
        let (raw, rest) = split(list)?;
        list = rest;
        Some((raw.code, raw.whole.len()))
    })
}

/// What is said of an attribute that repeats one.
pub(in crate::wire) const TWICE: &str = "attribute is there twice";

/// All octets of an attribute with a code, the one after so many others of it, or of a rest that is none.
pub(in crate::wire) fn whole(mut list: &[u8], code: u8, mut others: usize) -> Option<&[u8]> {
    while !list.is_empty() {
        let Some((raw, rest)) = split(list) else {
            return Some(list).filter(|list| list.get(1) == Some(&code));
        };
        if raw.code == code {
            if others == 0 {
                return Some(raw.whole);
            }
            others -= 1;
        }
        list = rest;
    }
    None
}

/// Why a value is refused, in words.
type Refusal = &'static str;

/// The notification of a multiprotocol attribute that cannot be read (RFC 4760 §7).
fn reset(raw: Raw<'_>) -> Notification {
    Notification::with_data(error::OPTIONAL_ATTRIBUTE_ERROR, raw.whole)
}

impl<'a> Multi<'a> {
    fn attribute(&mut self, raw: Raw<'a>, ids: PathIds) -> Result<(), Notification> {
        self.has_reach |= raw.code == MP_REACH_NLRI;
        let rule = rule_of(raw.code).ok_or_else(|| reset(raw))?;
        let fits = rule.length.admits(raw.value.len(), Width::Four);
        if !fits || (raw.flags ^ rule.flags) & (OPTIONAL | TRANSITIVE) != 0 {
            return Err(reset(raw));
        }
        let read = if raw.code == MP_REACH_NLRI {
            self.reach_octets = raw.whole;
            self.mp_reach(raw.value, ids)
        } else {
            self.unreach_octets = raw.whole;
            self.mp_unreach(raw.value, ids)
        };
        read.map_err(|_refusal| reset(raw))
    }

    fn fault(&mut self, code: u8, disposition: Disposition, what: &'static str) {
        self.faults.push(Fault { code, disposition, what });
    }

    /// RFC 4760 §3; an `Err` resets the session.
    fn mp_reach(&mut self, value: &'a [u8], ids: PathIds) -> Result<(), Refusal> {
        let (family, rest) = family(value)?;
        let Some(version) = version(family) else {
            self.fault(MP_REACH_NLRI, Disposition::AttributeDiscard, FOREIGN_FAMILY);
            return Ok(());
        };
        let (&len, rest) = rest.split_first().ok_or("attribute length")?;
        let (next_hop, rest) = rest.split_at_checked(len.into()).ok_or("next hop length")?;
        let (_reserved, field) = rest.split_first().ok_or("attribute length")?;
        let next_hop = match (version, next_hop) {
            (Version::V4, &[a, b, c, d]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            // RFC 2545 §3: the global address, and the link-local one may follow. RFC 8950 §3: the same for IPv4 prefixes;
            // whether that was agreed on, the session knows.
            (Version::V4 | Version::V6, octets) if matches!(octets.len(), 16 | 32) => {
                let global = octets.first_chunk::<16>().ok_or("next hop length")?;
                IpAddr::V6(Ipv6Addr::from(*global))
            }
            (Version::V4 | Version::V6, _) => return Err("next hop length"),
        };
        let ids = ids.has(version == Version::V6);
        let field = Field::new(field, version, ids).map_err(|nlri::Malformed| "prefix")?;
        if !is_host(next_hop) {
            let what = "next hop is no host address";
            self.fault(MP_REACH_NLRI, Disposition::TreatAsWithdraw, what);
        }
        self.reach = Some((next_hop, field));
        Ok(())
    }

    /// RFC 4760 §4; an `Err` resets the session.
    fn mp_unreach(&mut self, value: &'a [u8], ids: PathIds) -> Result<(), Refusal> {
        let (family, field) = family(value)?;
        if field.is_empty() {
            self.empty_unreach = Some(family);
            return Ok(());
        }
        match version(family) {
            Some(version) => {
                let ids = ids.has(version == Version::V6);
                let field = Field::new(field, version, ids).map_err(|nlri::Malformed| "prefix")?;
                self.unreach = Some(field);
                Ok(())
            }
            None => {
                self.fault(MP_UNREACH_NLRI, Disposition::AttributeDiscard, FOREIGN_FAMILY);
                Ok(())
            }
        }
    }
}

impl Collected {
    fn fault(&mut self, code: u8, disposition: Disposition, what: &'static str) {
        self.faults.push(Fault { code, disposition, what });
    }

    fn discard(&mut self, code: u8, what: &'static str) {
        self.fault(code, Disposition::AttributeDiscard, what);
    }

    /// The first attribute of its code.
    fn attribute(&mut self, raw: Raw<'_>, context: Context) -> Result<(), Notification> {
        let Some(rule) = rule_of(raw.code) else { return self.unknown(raw) };
        let width = Width::of(context.four_octet_as);
        if rule.internal_only && context.external {
            self.discard(raw.code, "attribute from an external neighbour");
        } else if matches!(raw.code, AS4_PATH | AS4_AGGREGATOR) && width == Width::Four {
            // RFC 6793 §4.1.
            self.discard(raw.code, "attribute from a neighbour with four-octet AS numbers");
        } else if (raw.flags ^ rule.flags) & (OPTIONAL | TRANSITIVE) != 0 {
            self.act(rule.bad_flags, "attribute flags", raw)?;
        } else if !rule.length.admits(raw.value.len(), width) {
            self.act(rule.malformed, "attribute length", raw)?;
        } else if let Err(refusal) = self.value(rule, raw, context) {
            self.act(rule.malformed, refusal, raw)?;
        }
        Ok(())
    }

    fn unknown(&mut self, raw: Raw<'_>) -> Result<(), Notification> {
        if raw.flags & OPTIONAL == 0 {
            let code = error::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE;
            return Err(Notification::with_data(code, raw.whole));
        }
        if raw.flags & TRANSITIVE != 0 {
            self.keep(raw);
        }
        Ok(())
    }

    fn keep(&mut self, raw: Raw<'_>) {
        let flags = raw.flags & (OPTIONAL | TRANSITIVE | PARTIAL);
        let value = raw.value.to_vec();
        self.attributes.other.push(RawAttribute { flags, code: raw.code, value });
    }

    fn act(&mut self, action: Action, what: Refusal, raw: Raw<'_>) -> Result<(), Notification> {
        match action {
            Action::Discard => self.discard(raw.code, what),
            Action::Withdraw => self.fault(raw.code, Disposition::TreatAsWithdraw, what),
            Action::Reset => return Err(reset(raw)),
        }
        Ok(())
    }

    /// Takes a value of valid length.
    fn value(&mut self, rule: &Rule, raw: Raw<'_>, context: Context) -> Result<(), Refusal> {
        let value = raw.value;
        let attributes = &mut self.attributes;
        match rule.code {
            ORIGIN => self.origin = Some(origin(value)?),
            AS_PATH => self.as_path = Some(as_path(value, context)?),
            NEXT_HOP => self.next_hop = Some(host(word(value)?.into())?),
            MULTI_EXIT_DISC => attributes.med = Some(word(value)?),
            LOCAL_PREF => attributes.local_pref = Some(word(value)?),
            ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
            AGGREGATOR => attributes.aggregator = Some(aggregator(value)?),
            COMMUNITIES => attributes.communities = words(value).collect(),
            ORIGINATOR_ID => attributes.originator_id = Some(word(value)?.into()),
            CLUSTER_LIST => attributes.cluster_list = words(value).map(Ipv4Addr::from).collect(),
            AS4_PATH => self.as4_path = Some(as4_path(value)?),
            AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(value)?),
            code if is_kept_raw(code) => self.keep(raw),
            _ => {}
        }
        Ok(())
    }

    /// Restores what a two-octet neighbour could not say (RFC 6793 §4.2.3).
    fn merge_as4(&mut self) {
        let as4_path = self.as4_path.take();
        match (&mut self.attributes.aggregator, self.as4_aggregator.take()) {
            // Somebody aggregated without knowing the attributes: both are outdated.
            (Some((asn, _)), Some(_)) if *asn != u32::from(AS_TRANS) => return,
            (Some(aggregator), Some(as4_aggregator)) => *aggregator = as4_aggregator,
            (Some(_) | None, _) => {}
        }
        if let (Some(path), Some(as4_path)) = (&mut self.as_path, as4_path) {
            *path = std::mem::take(path).merge(as4_path);
        }
    }
}

fn origin(value: &[u8]) -> Result<Origin, Refusal> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        _ => Err("undefined origin"),
    }
}

/// This speaker is in no confederation, so an external neighbour is in none of ours (RFC 5065 §5).
fn as_path(value: &[u8], context: Context) -> Result<AsPath, Refusal> {
    let path = AsPath::decode(value, Width::of(context.four_octet_as))?;
    if context.external && path.segments.iter().any(|segment| segment.is_confederation()) {
        return Err("confederation segment from an external neighbour");
    }
    Ok(path)
}

/// Confederation segments do not belong there and are dropped (RFC 6793 §6).
fn as4_path(value: &[u8]) -> Result<AsPath, Refusal> {
    let mut path = AsPath::decode(value, Width::Four)?;
    path.segments.retain(|segment| !segment.is_confederation());
    Ok(path)
}

/// In either width; its length is checked.
fn aggregator(value: &[u8]) -> Result<(u32, Ipv4Addr), Refusal> {
    let (asn, address) = match *value {
        [a, b, ref address @ ..] if value.len() == 6 => (u32::from_be_bytes([0, 0, a, b]), address),
        [a, b, c, d, ref address @ ..] => (u32::from_be_bytes([a, b, c, d]), address),
        _ => return Err("attribute length"),
    };
    // RFC 7607 §2.
    if asn == 0 { Err("AS 0") } else { Ok((asn, word(address)?.into())) }
}

fn word(value: &[u8]) -> Result<u32, Refusal> {
    <[u8; 4]>::try_from(value).map(u32::from_be_bytes).map_err(|_| "attribute length")
}

fn words(value: &[u8]) -> impl Iterator<Item = u32> {
    value.chunks_exact(4).filter_map(|chunk| word(chunk).ok())
}

fn family(value: &[u8]) -> Result<(Family, &[u8]), Refusal> {
    let (&[high, low, safi], rest) = value.split_first_chunk().ok_or("attribute length")?;
    Ok((Family { afi: u16::from_be_bytes([high, low]), safi }, rest))
}

fn version(family: Family) -> Option<Version> {
    match family {
        Family::IPV4_UNICAST => Some(Version::V4),
        Family::IPV6_UNICAST => Some(Version::V6),
        _ => None,
    }
}

/// A NEXT_HOP is an address that a host can have (RFC 4271 §6.3).
fn host(address: Ipv4Addr) -> Result<Ipv4Addr, Refusal> {
    if is_host(address.into()) { Ok(address) } else { Err("next hop is no host address") }
}

fn is_host(address: IpAddr) -> bool {
    match address {
        // 0/8 and 127/8 are no addresses on a wire; 224/4 is multicast and 240/4 reserved.
        IpAddr::V4(address) => !matches!(address.octets(), [0 | 127 | 224.., ..]),
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests;
