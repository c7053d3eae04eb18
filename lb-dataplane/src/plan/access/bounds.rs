//! A list of prefixes without its nesting.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::table::Access;

/// From an address on, an IPv4 one in the upper bits, whether clients may begin flows.
pub(super) type Bound = (u128, bool);

/// Bits behind an IPv4 address.
const BEHIND_V4: u32 = 96;

/// Where it changes along all addresses whether clients may begin flows: in order, the first at the lowest address. The longest
/// prefix that holds a client decides; with a prefix that admits clients, those that none holds may not.
pub(super) fn bounds(access: &[Access]) -> Vec<Bound> {
    let unlisted = !access.iter().any(|access| access.is_admitted);
    // What is around others comes before these.
    let prefixes: BTreeMap<(u128, u8), bool> =
        access.iter().map(|access| (place(access.prefix), access.is_admitted)).collect();
    let mut bounds = vec![(0, unlisted)];
    // Prefixes around the place that is reached: their last address, and what they say.
    let mut around: Vec<(u128, bool)> = Vec::new();
    for ((first, len), is_admitted) in prefixes {
        leave(&mut around, unlisted, &mut bounds, |last| last < first);
        put(&mut bounds, first, is_admitted);
        let last = first | u128::MAX.checked_shr(u32::from(len)).unwrap_or(0);
        around.push((last, is_admitted));
    }
    leave(&mut around, unlisted, &mut bounds, |_| true);
    bounds
}

/// A prefix's first address, and its length.
fn place(prefix: IpNetwork) -> (u128, u8) {
    let first = match prefix.network() {
        IpAddr::V4(address) => u128::from(address.to_bits()) << BEHIND_V4,
        IpAddr::V6(address) => address.to_bits(),
    };
    (first, prefix.prefix())
}

/// Ends prefixes: behind each, what is around it holds again.
fn leave(
    around: &mut Vec<(u128, bool)>,
    unlisted: bool,
    bounds: &mut Vec<Bound>,
    ends: impl Fn(u128) -> bool,
) {
    while let Some((last, _)) = around.pop_if(|(last, _)| ends(*last)) {
        let outside = around.last().map_or(unlisted, |(_, is_admitted)| *is_admitted);
        if let Some(next) = last.checked_add(1) {
            put(bounds, next, outside);
        }
    }
}

fn put(bounds: &mut Vec<Bound>, at: u128, is_admitted: bool) {
    bounds.pop_if(|(last, _)| *last == at);
    if bounds.last().is_none_or(|(_, before)| *before != is_admitted) {
        bounds.push((at, is_admitted));
    }
}
