//! Sets of prefixes with ranges of lengths: `10.0.0.0/8 ge 24 le 28`.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// A prefix, and how long prefixes inside it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixRange {
    prefix: IpNetwork,
    /// Shortest.
    ge: u8,
    /// Longest.
    le: u8,
}

/// Why a text is no [`PrefixRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// No prefix at all.
    #[error("is `{text}`, but has to be a prefix, such as 192.0.2.0/24 or 10.0.0.0/8 ge 24 le 28")]
    Prefix {
        /// The text.
        text: String,
    },
    /// Bits beyond its length.
    #[error("is {prefix}, which has host bits: did you mean {network}/{len}?", prefix = .0, network = .0.network(), len = .0.prefix())]
    HostBits(IpNetwork),
    /// The lengths make no range inside the prefix.
    #[error(
        "has lengths from {ge} to {le}, but has to have prefix length {len} <= ge <= le <= {most}"
    )]
    Lengths {
        /// Shortest.
        ge: u8,
        /// Longest.
        le: u8,
        /// The prefix's.
        len: u8,
        /// The family's.
        most: u8,
    },
}

impl FromStr for PrefixRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let unreadable = || RangeError::Prefix { text: text.to_owned() };
        let mut words = text.split_whitespace();
        let prefix = words.next().filter(|word| word.contains('/')).ok_or_else(unreadable)?;
        let prefix: IpNetwork = prefix.parse().map_err(|_| unreadable())?;
        if prefix.ip() != prefix.network() {
            return Err(RangeError::HostBits(prefix));
        }
        let (mut ge, mut le) = (None, None);
        while let Some(word) = words.next() {
            let bound = match word {
                "ge" => &mut ge,
                "le" => &mut le,
                _ => return Err(unreadable()),
            };
            let length: u8 =
                words.next().and_then(|word| word.parse().ok()).ok_or_else(unreadable)?;
            if bound.replace(length).is_some() {
                return Err(unreadable());
            }
        }
        let (len, most) = (prefix.prefix(), if prefix.is_ipv4() { 32 } else { 128 });
        // As everybody reads them: `ge` alone has no upper bound, `le` alone none below the prefix itself.
        let longest = if ge.is_some() { most } else { len };
        let (ge, le) = (ge.unwrap_or(len), le.unwrap_or(longest));
        if len <= ge && ge <= le && le <= most {
            Ok(Self { prefix, ge, le })
        } else {
            Err(RangeError::Lengths { ge, le, len, most })
        }
    }
}

impl fmt::Display for PrefixRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, ge, le } = self;
        let len = prefix.prefix();
        write!(f, "{prefix}")?;
        if *ge != len {
            write!(f, " ge {ge}")?;
        }
        if *le != *ge || *ge != len {
            write!(f, " le {le}")?;
        }
        Ok(())
    }
}

/// A set of them. A look-up costs one probe for each prefix length that the set has, however many prefixes.
#[derive(Clone, Debug, Default)]
pub struct PrefixSet {
    ranges: Vec<PrefixRange>,
    v4: Lengths,
    v6: Lengths,
}

/// Per prefix length, from the shortest, the ranges of each network.
type Lengths = Vec<(u8, HashMap<u128, Vec<(u8, u8)>>)>;

impl PrefixSet {
    /// The set of all prefixes that one of the ranges holds.
    #[must_use]
    pub fn new(ranges: Vec<PrefixRange>) -> Self {
        let (mut v4, mut v6) = (Lengths::new(), Lengths::new());
        for PrefixRange { prefix, ge, le } in &ranges {
            let lengths = if prefix.is_ipv4() { &mut v4 } else { &mut v6 };
            let len = prefix.prefix();
            let place = lengths.binary_search_by_key(&len, |(len, _)| *len);
            let place = place.unwrap_or_else(|place| {
                lengths.insert(place, (len, HashMap::new()));
                place
            });
            lengths[place].1.entry(bits(prefix.network(), len)).or_default().push((*ge, *le));
        }
        Self { ranges, v4, v6 }
    }

    /// What it was made of.
    #[must_use]
    pub fn ranges(&self) -> &[PrefixRange] {
        &self.ranges
    }

    /// Whether a prefix is in it.
    #[must_use]
    pub fn contains(&self, prefix: &IpNetwork) -> bool {
        self.any(prefix.network(), prefix.prefix(), |(ge, le)| (ge..=le).contains(&prefix.prefix()))
    }

    /// Whether an address lies inside one of the prefixes, whatever the lengths.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.any(address, u8::MAX, |_| true)
    }

    fn any(&self, address: IpAddr, longest: u8, fits: impl Fn((u8, u8)) -> bool) -> bool {
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().take_while(|(len, _)| *len <= longest).any(|(len, networks)| {
            let ranges = networks.get(&bits(address, *len));
            ranges.is_some_and(|ranges| ranges.iter().any(|range| fits(*range)))
        })
    }
}

impl PartialEq for PrefixSet {
    fn eq(&self, other: &Self) -> bool {
        self.ranges == other.ranges
    }
}

impl Eq for PrefixSet {}

/// The first bits of an address, at the upper end of a word.
fn bits(address: IpAddr, len: u8) -> u128 {
    let whole = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    whole & u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[&str]) -> PrefixSet {
        PrefixSet::new(ranges.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn ranges_are_read_as_routers_read_them() {
        let cases = [
            ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9"),
            ("10.0.0.0/8 le 24", "10.0.0.0/8", "10.1.1.0/25"),
            ("10.0.0.0/8 ge 24", "10.1.1.1/32", "10.1.0.0/23"),
            ("10.0.0.0/8 ge 24 le 28", "10.1.1.16/28", "10.1.1.16/29"),
            ("10.0.0.0/8 le 28 ge 24", "10.1.1.0/24", "11.1.1.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0", "10.0.0.0/8"),
            ("0.0.0.0/0 le 32", "10.1.1.1/32", "::/0"),
            ("2001:db8::/32 ge 48 le 64", "2001:db8:1::/48", "2001:db8::/32"),
        ];
        for (range, inside, outside) in cases {
            assert!(set(&[range]).contains(&inside.parse().unwrap()), "{inside} in {range}");
            assert!(!set(&[range]).contains(&outside.parse().unwrap()), "{outside} in {range}");
            let parsed: PrefixRange = range.parse().unwrap();
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{parsed}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_a_remedy() {
        let said = |text: &str| text.parse::<PrefixRange>().unwrap_err().to_string();
        assert_eq!(
            said("10.0.0.1/8"),
            "is 10.0.0.1/8, which has host bits: did you mean 10.0.0.0/8?"
        );
        let bad = ["10.0.0.0/8 ge 7", "10.0.0.0/8 ge 28 le 24", "10.0.0.0/8 le 33", "::/0 le 129"];
        for text in bad {
            assert!(said(text).contains("<= ge <= le <="), "{text}: {}", said(text));
        }
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/8 eq 9",
            "10.0.0.0/8 ge",
            "10.0.0.0/8 ge 9 ge 9",
        ] {
            assert!(said(text).contains("has to be a prefix"), "{text}");
        }
    }

    #[test]
    fn an_address_is_covered_by_the_prefixes_around_it() {
        let set = set(&["10.0.0.0/8 ge 24", "2001:db8::/32"]);
        for (address, covered) in
            [("10.255.0.1", true), ("11.0.0.1", false), ("2001:db8::1", true), ("::1", false)]
        {
            assert_eq!(set.covers(address.parse().unwrap()), covered, "{address}");
        }
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_ranges_holds(
            ranges in prop::collection::vec((0_u32..64, 0_u8..=32, 0_u8..=32, 0_u8..=32), 0..12),
            asked in prop::collection::vec((0_u32..64, 0_u8..=32), 1..32),
        ) {
            let net = |bits: u32, len: u8| {
                let network = IpNetwork::new(IpAddr::V4((bits << 26).into()), len).unwrap();
                IpNetwork::new(network.network(), len).unwrap()
            };
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(bits, len, a, b)| PrefixRange {
                    prefix: net(bits, len),
                    ge: a.min(b).max(len),
                    le: a.max(b).max(len),
                })
                .collect();
            let set = PrefixSet::new(ranges.clone());
            for (bits, len) in asked {
                let asked = net(bits, len);
                let naive = ranges.iter().any(|range| {
                    range.prefix.contains(asked.network())
                        && range.prefix.prefix() <= len
                        && (range.ge..=range.le).contains(&len)
                });
                prop_assert_eq!(set.contains(&asked), naive, "{}", asked);
            }
        }
    }
}
