//! Communities as people write them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::{Community, CommunityPattern, Kind};

/// Names of the IANA registry of well-known communities.
const WELL_KNOWN: [(&str, u32); 8] = [
    ("graceful-shutdown", 0xffff_0000),
    ("accept-own", 0xffff_0001),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
];

/// Subtypes of extended communities that have names (RFC 4360 §4, §5).
const SUBTYPES: [(&str, u8); 3] = [("rt", 2), ("soo", 3), ("ro", 3)];

/// Types of the administrator that an extended community's value begins with (RFC 4360 §3, RFC 5668).
const TWO_OCTET_AS: u8 = 0;
const IPV4_ADDRESS: u8 = 1;
const FOUR_OCTET_AS: u8 = 2;

/// A text is no community, or where one is wanted, a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is `{0}`, but has to be a community: 65001:100 (standard), 65001:1:2 (large), rt:65001:100 or soo:65001:100 (extended), its 16 hexadecimal digits after 0x, or a name such as no-export, blackhole or graceful-shutdown"
)]
pub struct CommunityError(pub String);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let wrong = || CommunityError(text.to_owned());
        let pattern: CommunityPattern = text.parse().map_err(|_| wrong())?;
        if pattern.mask != u128::MAX {
            return Err(wrong());
        }
        let word = |shift: u32| u32::try_from(pattern.value >> shift & u128::from(u32::MAX));
        Ok(match pattern.kind {
            Kind::Standard => Self::Standard(word(0).map_err(|_| wrong())?),
            Kind::Extended => Self::Extended(u64::try_from(pattern.value).map_err(|_| wrong())?),
            Kind::Large => {
                let [a, b, c] = [word(64), word(32), word(0)].map(|word| word.map_err(|_| wrong()));
                Self::Large([a?, b?, c?])
            }
        })
    }
}

impl FromStr for CommunityPattern {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let known = WELL_KNOWN.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, value)) = known {
            return Ok(Community::Standard(*value).into());
        }
        let parts: Vec<_> = text.split(':').collect();
        let parsed = match parts.as_slice() {
            [raw] => hexadecimal(raw),
            [subtype, rest @ ..] if SUBTYPES.iter().any(|(name, _)| name == subtype) => {
                extended(subtype, rest)
            }
            [a, b] => numbers(Kind::Standard, 16, &[a, b]),
            [a, b, c] => numbers(Kind::Large, 32, &[a, b, c]),
            _ => None,
        };
        parsed.ok_or_else(|| CommunityError(text.to_owned()))
    }
}

fn hexadecimal(text: &str) -> Option<CommunityPattern> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 16)?;
    Some(Community::Extended(u64::from_str_radix(digits, 16).ok()?).into())
}

/// Numbers of one width, each of which may be `*`.
fn numbers(kind: Kind, width: u32, parts: &[&str]) -> Option<CommunityPattern> {
    // What is beyond the numbers has to be equal.
    let (mut value, mut mask) = (0_u128, u128::MAX);
    for part in parts {
        let (bits, fixed) = number(part, width)?;
        value = value << width | u128::from(bits);
        mask = mask << width | u128::from(fixed);
    }
    Some(CommunityPattern { kind, value, mask })
}

/// A number of so many bits, and which of them matter.
fn number(text: &str, width: u32) -> Option<(u64, u64)> {
    let all = (1_u64 << width) - 1;
    if text == "*" {
        return Some((0, 0));
    }
    let number = text.parse().ok().filter(|number| *number <= all)?;
    text.bytes().all(|digit| digit.is_ascii_digit()).then_some((number, all))
}

/// `rt:AS:NUMBER`, `rt:ADDRESS:NUMBER` or `rt:*`.
fn extended(subtype: &str, rest: &[&str]) -> Option<CommunityPattern> {
    let kind = Kind::Extended;
    let subtype = SUBTYPES.iter().find(|(name, _)| *name == subtype)?.1;
    let subtype = u128::from(subtype) << 48;
    let (administrator, local) = match *rest {
        ["*"] => {
            return Some(CommunityPattern { kind, value: subtype, mask: 0xff << 48 });
        }
        [administrator, local] => (administrator, local),
        _ => return None,
    };
    let (kind_octet, head, width) = match administrator.parse::<Ipv4Addr>() {
        Ok(address) => (IPV4_ADDRESS, u64::from(address.to_bits()), 16),
        Err(_) => {
            let (asn, _) = number(administrator, 32).filter(|(_, fixed)| *fixed != 0)?;
            if asn > 0xffff { (FOUR_OCTET_AS, asn, 16) } else { (TWO_OCTET_AS, asn, 32) }
        }
    };
    let (local, fixed) = number(local, width)?;
    let value =
        u128::from(kind_octet) << 56 | subtype | u128::from(head) << width | u128::from(local);
    let mask = u128::MAX << width | u128::from(fixed);
    Some(CommunityPattern { kind, value, mask })
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| *known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xffff),
            },
            Self::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
            Self::Extended(value) => {
                let [kind, subtype, rest @ ..] = value.to_be_bytes();
                let name = SUBTYPES.iter().find(|(_, known)| *known == subtype);
                let [a, b, c, d, e, g] = rest;
                let head = u32::from_be_bytes([a, b, c, d]);
                match (name, kind) {
                    (Some((name, _)), TWO_OCTET_AS) => {
                        let local = u32::from_be_bytes([c, d, e, g]);
                        write!(f, "{name}:{}:{local}", u16::from_be_bytes([a, b]))
                    }
                    (Some((name, _)), IPV4_ADDRESS) => {
                        let address = Ipv4Addr::from_bits(head);
                        write!(f, "{name}:{address}:{}", u16::from_be_bytes([e, g]))
                    }
                    // A small number in the wide form would be read back as the narrow one.
                    (Some((name, _)), FOUR_OCTET_AS) if head > 0xffff => {
                        write!(f, "{name}:{head}:{}", u16::from_be_bytes([e, g]))
                    }
                    _ => write!(f, "0x{value:016x}"),
                }
            }
        }
    }
}
