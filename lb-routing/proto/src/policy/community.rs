//! Communities of all three kinds: standard (RFC 1997), extended (RFC 4360) and large (RFC 8092).
//!
//! People write `65001:100`, `blackhole`, `rt:65001:100` and `65001:1:2`; in a pattern, `*` stands for any number.

mod text;

use std::collections::{HashMap, HashSet};

use crate::wire::{Attributes, RawAttribute};

pub use self::text::CommunityError;

/// Attribute type codes.
const EXTENDED: u8 = 16;
const LARGE: u8 = 32;
/// Optional transitive.
const FLAGS: u8 = 0xc0;

/// A community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard(u32),
    /// RFC 4360.
    Extended(u64),
    /// RFC 8092.
    Large([u32; 3]),
}

impl Community {
    /// RFC 8326.
    pub const GRACEFUL_SHUTDOWN: Self = Self::Standard(0xffff_0000);
    /// RFC 7999.
    pub const BLACKHOLE: Self = Self::Standard(0xffff_029a);
    /// RFC 1997.
    pub const NO_EXPORT: Self = Self::Standard(0xffff_ff01);
    /// RFC 1997.
    pub const NO_ADVERTISE: Self = Self::Standard(0xffff_ff02);
    /// RFC 1997.
    pub const NO_EXPORT_SUBCONFED: Self = Self::Standard(0xffff_ff03);

    /// Its kind, and its octets at the lower end of a word.
    fn bits(self) -> (Kind, u128) {
        match self {
            Self::Standard(value) => (Kind::Standard, value.into()),
            Self::Extended(value) => (Kind::Extended, value.into()),
            Self::Large([a, b, c]) => {
                (Kind::Large, u128::from(a) << 64 | u128::from(b) << 32 | u128::from(c))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Standard,
    Extended,
    Large,
}

/// A community in which some numbers may be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommunityPattern {
    kind: Kind,
    value: u128,
    /// Bits that matter.
    mask: u128,
}

impl CommunityPattern {
    /// Whether it is meant.
    #[must_use]
    pub fn matches(&self, community: Community) -> bool {
        let (kind, bits) = community.bits();
        kind == self.kind && (bits ^ self.value) & self.mask == 0
    }
}

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        let (kind, value) = community.bits();
        Self { kind, value, mask: u128::MAX }
    }
}

/// A set of them. A look-up costs one probe for each way of masking that the set has, however many patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommunitySet(HashMap<(Kind, u128), HashSet<u128>>);

impl CommunitySet {
    /// The set of these.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = CommunityPattern>) -> Self {
        let mut masks = HashMap::<_, HashSet<_>>::new();
        for CommunityPattern { kind, value, mask } in patterns {
            masks.entry((kind, mask)).or_default().insert(value & mask);
        }
        Self(masks)
    }

    /// Whether a route has a community that one of the patterns means.
    #[must_use]
    pub fn any(&self, attributes: &Attributes) -> bool {
        of(attributes).map(Community::bits).any(|(kind, bits)| {
            let mut masks = self.0.iter().filter(|((masked, _), _)| *masked == kind);
            masks.any(|((_, mask), values)| values.contains(&(bits & mask)))
        })
    }

    /// Whether a route has a community for each of the patterns, of which there is one at least.
    #[must_use]
    pub fn all(&self, attributes: &Attributes) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|((kind, mask), values)| {
                let present = of(attributes).map(Community::bits);
                let present = present.filter(|(present, _)| present == kind);
                let found: HashSet<_> =
                    present.map(|(_, bits)| bits & mask).filter(|it| values.contains(it)).collect();
                found.len() == values.len()
            })
    }
}

/// Every community of a route.
pub fn of(attributes: &Attributes) -> impl Iterator<Item = Community> {
    let standard = attributes.communities.iter().copied().map(Community::Standard);
    let extended = raw(attributes, EXTENDED).chunks_exact(8).map(|octets| {
        Community::Extended(octets.iter().fold(0, |value, &octet| value << 8 | u64::from(octet)))
    });
    let large = raw(attributes, LARGE).chunks_exact(12).map(|octets| {
        let word = |at: usize| {
            octets.iter().skip(at).take(4).fold(0, |value, &octet| value << 8 | u32::from(octet))
        };
        Community::Large([word(0), word(4), word(8)])
    });
    standard.chain(extended).chain(large)
}

/// Adds a community unless it is there.
pub(super) fn add(attributes: &mut Attributes, community: Community) {
    if of(attributes).any(|present| present == community) {
        return;
    }
    match community {
        Community::Standard(value) => attributes.communities.push(value),
        Community::Extended(value) => append(attributes, EXTENDED, &value.to_be_bytes()),
        Community::Large(words) => {
            append(attributes, LARGE, &words.map(u32::to_be_bytes).concat());
        }
    }
}

/// Removes the communities that are not to be kept.
pub(super) fn retain(attributes: &mut Attributes, keep: impl Fn(Community) -> bool) {
    let kept: Vec<_> = of(attributes).filter(|&community| keep(community)).collect();
    attributes.communities.clear();
    let (mut extended, mut large) = (Vec::new(), Vec::new());
    for community in kept {
        match community {
            Community::Standard(value) => attributes.communities.push(value),
            Community::Extended(value) => extended.extend(value.to_be_bytes()),
            Community::Large(words) => large.extend(words.into_iter().flat_map(u32::to_be_bytes)),
        }
    }
    for attribute in &mut attributes.other {
        match attribute.code {
            EXTENDED => attribute.value = std::mem::take(&mut extended),
            LARGE => attribute.value = std::mem::take(&mut large),
            _ => {}
        }
    }
    attributes.other.retain(|attribute| {
        !(matches!(attribute.code, EXTENDED | LARGE) && attribute.value.is_empty())
    });
}

fn raw(attributes: &Attributes, code: u8) -> &[u8] {
    let found = attributes.other.iter().find(|attribute| attribute.code == code);
    found.map_or(&[], |attribute| &attribute.value)
}

fn append(attributes: &mut Attributes, code: u8, octets: &[u8]) {
    match attributes.other.iter_mut().find(|attribute| attribute.code == code) {
        Some(attribute) => attribute.value.extend(octets),
        None => {
            attributes.other.push(RawAttribute { flags: FLAGS, code, value: octets.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests;
