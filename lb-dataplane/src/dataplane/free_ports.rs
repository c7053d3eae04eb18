//! Which ports of this host's own addresses flows may come from: such as the kernel gives to no connection by itself, so that
//! flows never meet health checks, BGP or whatever else begins here.

use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;

/// Where the kernel keeps the ports that it chooses from for connections that begin here, of both families.
const OWN: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Those that it does not choose, though they lie there.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// What the first are where the kernel does not say.
const DEFAULT_OWN: RangeInclusive<u16> = 32_768..=60_999;
/// Ports below are those of well-known services.
const FIRST: u16 = 1024;

/// The ports for flows, as this host is set up now; `None` where the kernel may choose any.
pub(super) fn free_ports() -> io::Result<Option<RangeInclusive<u16>>> {
    let own = setting(OWN)?.and_then(|text| own(&text)).unwrap_or(DEFAULT_OWN);
    Ok(longest(&own, &reserved(&setting(RESERVED)?.unwrap_or_default())))
}

/// A setting of the kernel; `None` where it shows none to this process, which no later try changes.
fn setting(path: &str) -> io::Result<Option<String>> {
    match read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Two numbers.
fn own(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    Some(numbers.next()?..=numbers.next()?)
}

/// Ports and ranges between commas.
fn reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// The most ports in a row that the kernel does not choose. What is reserved among those that it would choose is for flows; what is
/// reserved elsewhere, where that changes nothing for the kernel, is for some program that somebody had in mind.
fn longest(
    own: &RangeInclusive<u16>,
    reserved: &[RangeInclusive<u16>],
) -> Option<RangeInclusive<u16>> {
    let is_reserved = |port| reserved.iter().any(|range| range.contains(&port));
    let mut longest: Option<RangeInclusive<u16>> = None;
    let mut begin = FIRST;
    for port in FIRST..=u16::MAX {
        let is_free = own.contains(&port) == is_reserved(port);
        if !is_free {
            begin = port.saturating_add(1);
        } else if longest.as_ref().is_none_or(|longest| longest.len() <= usize::from(port - begin))
        {
            longest = Some(begin..=port);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_for_flows_are_the_most_in_a_row_that_the_kernel_chooses_for_nothing() {
        let free = |range: &str, kept: &str| longest(&own(range).unwrap(), &reserved(kept));
        assert_eq!(free("32768\t60999\n", "\n"), Some(1024..=32_767));
        assert_eq!(free("1024 4999", ""), Some(5000..=65_535));
        assert_eq!(free("10000 20000", ""), Some(20_001..=65_535));
        assert_eq!(free("1024 65534", ""), Some(65_535..=65_535));
        assert_eq!(free("1024 65535", ""), None);
        // Reserved for flows, and for others.
        assert_eq!(free("1024 65535", "40000-49999\n"), Some(40_000..=49_999));
        assert_eq!(free("1024 65535", "2000,40000-40009,50000-50010"), Some(50_000..=50_010));
        assert_eq!(free("32768 60999", "8080"), Some(8081..=32_767));
        assert_eq!(free("32768 60999", "32768-33000,8080,20000-32767"), Some(8081..=19_999));
        assert_eq!(free("32768 60999", "1024-32767"), Some(61_000..=65_535));
    }
}
