//! Pools of addresses: what they hold, and which of them is next.
//!
//! A range is its first and last address as 128-bit numbers, so that both families and all sizes are one case.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use lb_api_types::resource::{Pool, PoolSpec};

use super::read_metadata;
use crate::read::Cursor;
use crate::vip::unfit;

/// Prefixes and ranges of a pool at most.
const MAX_RANGES: usize = 64;
const WANTED: &str = "a prefix such as 203.0.113.0/28 or a range such as 203.0.113.16-203.0.113.31";

/// From the first to the last address, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: IpAddr,
    last: IpAddr,
}

/// The addresses of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// What a pool that was read says.
    pub(crate) fn of(spec: &PoolSpec) -> Self {
        Self(spec.addresses.iter().filter_map(|text| parse(text).ok()).collect())
    }

    /// Whether an address is one of them.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.holds(address))
    }

    /// How many they are; what is more than fits counts as the most that does.
    pub(crate) fn size(&self) -> u64 {
        self.0.iter().fold(0, |sum, range| {
            let more = number(range.last).saturating_sub(number(range.first)).saturating_add(1);
            sum.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
        })
    }

    /// The first one of a family that is not taken.
    pub(crate) fn free(&self, ipv4: bool, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let fitting = self.0.iter().filter(|range| range.first.is_ipv4() == ipv4);
        let mut free = fitting.filter_map(|range| {
            // As many steps as addresses are taken at most: the first gap ends it.
            let mut next = range.first;
            for &address in taken.range(range.first..=range.last) {
                if address != next {
                    return Some(next);
                }
                next = after(next).filter(|_| next != range.last)?;
            }
            Some(next)
        });
        free.next()
    }
}

impl Range {
    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4()
            && (number(self.first)..=number(self.last)).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.holds(other.first) || other.holds(self.first)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into())
        }
        IpAddr::V6(address) => {
            address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into())
        }
    }
}

pub(super) fn read(cursor: &Cursor<'_>) -> Option<Pool> {
    let pool = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = pool.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = pool.required("spec").and_then(|spec| {
        let addresses = spec.object(&["addresses"])?.required("addresses")?;
        Some(PoolSpec { addresses: read_ranges(&addresses)? })
    });
    Some(Pool { metadata: metadata?, spec: spec?, status: None })
}

fn read_ranges(cursor: &Cursor<'_>) -> Option<Vec<String>> {
    let mut before: Vec<(Range, String)> = Vec::new();
    let mut complete = true;
    let texts = cursor.list(|cursor| {
        let read = read_range(cursor, &before);
        complete &= read.is_some();
        let (range, text) = read?;
        before.push((range, text.clone()));
        Some(text)
    })?;
    match texts.len() {
        0 if complete => cursor.wrong(format!("is an empty list, but a pool needs {WANTED}")),
        listed if listed > MAX_RANGES => {
            cursor.wrong(format!("lists {listed} ranges, but {MAX_RANGES} are the most"))
        }
        _ => Some(texts),
    }
}

fn read_range(cursor: &Cursor<'_>, before: &[(Range, String)]) -> Option<(Range, String)> {
    let text = cursor.text()?.trim();
    let range = match parse(text) {
        Ok(range) => range,
        Err(why) => return cursor.wrong(format!("is `{text}`{why}")),
    };
    if let Some((address, what)) =
        [range.first, range.last].into_iter().find_map(|a| Some((a, unfit(a)?)))
    {
        return cursor.wrong(format!("has {address}, {what}: a pool is made of unicast addresses"));
    }
    if let Some((_, other)) = before.iter().find(|(other, _)| other.overlaps(&range)) {
        return cursor.wrong(format!("is {text}, which overlaps {other}: list each address once"));
    }
    Some((range, text.to_owned()))
}

/// A prefix or a range; the error is what follows its text in a sentence.
fn parse(text: &str) -> Result<Range, String> {
    let wanted = || format!(", but has to be {WANTED}");
    if let Some((first, last)) = text.split_once('-') {
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wanted());
        let (first, last) = (address(first)?, address(last)?);
        return match first.is_ipv4() == last.is_ipv4() && first <= last {
            true => Ok(Range { first, last }),
            false => {
                Err(", but a range goes from a lower to a higher address of one family".into())
            }
        };
    }
    if !text.contains('/') {
        return Err(wanted());
    }
    let prefix: IpNetwork = text.parse().map_err(|_| wanted())?;
    let network = prefix.network();
    match prefix.ip() == network {
        true => Ok(Range { first: network, last: prefix.broadcast() }),
        false => Err(format!(", which has host bits: did you mean {network}/{}?", prefix.prefix())),
    }
}
