//! Fragments that came before the first one of their datagram, kept for as long as that may still come.
//!
//! Invariant: no fragment leaves more than once, and none of a datagram of which two overlap here (RFC 5722 for IPv6; RFC 3128
//! says why for IPv4): what is kept makes no more packets than came.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::icmp::Answer;

/// Fragments that are kept at most; beyond, those that come are dropped.
const MOST: usize = 256;
/// Those of one source address.
const MOST_OF_SOURCE: usize = 32;
/// Datagrams that are known at most, those included of which nothing is kept (any more).
const MOST_DATAGRAMS: usize = 1024;
/// How long. Fragments overtake each other by milliseconds; a whole datagram is given up after 30 s (`ipfrag_time`).
const FOR: Duration = Duration::from_secs(1);

/// What the fragments of a datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Datagram {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identification: u32,
    pub(crate) protocol: u32,
}

/// A fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Bytes of the datagram.
    pub(crate) range: Range<u32>,
    /// From the IP header on.
    pub(crate) packet: Vec<u8>,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// How many fragments became what, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldCounts {
    /// They were sent on after their first one.
    pub released: u64,
    /// Their first one did not come in time.
    pub expired: u64,
    /// There was no room for them.
    pub refused: u64,
    /// They came twice, or with others that they overlap.
    pub overlapping: u64,
}

#[derive(Debug)]
enum State {
    Waits(Vec<Fragment>),
    Goes(Way),
    Overlaps,
}

/// The fragments that are kept.
#[derive(Debug, Default)]
pub(crate) struct Held {
    datagrams: HashMap<Datagram, State>,
    /// Datagrams as they became known.
    order: VecDeque<(Instant, Datagram)>,
    of_source: HashMap<IpAddr, usize>,
    kept: usize,
    counts: HeldCounts,
}

impl Held {
    pub(crate) fn counts(&self) -> HeldCounts {
        self.counts
    }

    /// A fragment came early; the packet to send if its first one has come meanwhile.
    pub(crate) fn fragment(
        &mut self,
        datagram: Datagram,
        fragment: Fragment,
        now: Instant,
    ) -> Option<Answer> {
        self.expire(now);
        let is_room = self.kept < MOST
            && self.of_source.get(&datagram.source).is_none_or(|held| *held < MOST_OF_SOURCE);
        // Whoever may keep no more takes no place of another's datagram either.
        if !is_room && !self.datagrams.contains_key(&datagram) {
            self.counts.refused += 1;
            return None;
        }
        let Some(state) = self.known(datagram, now) else {
            self.counts.refused += 1;
            return None;
        };
        match state {
            State::Goes(way) => {
                let answer = translated(fragment.packet, *way);
                self.counts.released += u64::from(answer.is_some());
                answer
            }
            State::Overlaps => {
                self.counts.overlapping += 1;
                None
            }
            State::Waits(held) => {
                let other = held.iter().find(|other| overlaps(&other.range, &fragment.range));
                // A copy of what is kept says nothing of the datagram (RFC 8200 §4.5).
                let is_copy = other.is_some_and(|other| *other == fragment);
                if other.is_none() && is_room {
                    held.push(fragment);
                    self.kept += 1;
                    *self.of_source.entry(datagram.source).or_default() += 1;
                } else if other.is_none() {
                    self.counts.refused += 1;
                } else if is_copy {
                    self.counts.overlapping += 1;
                } else {
                    let count = held.len();
                    *state = State::Overlaps;
                    self.counts.overlapping += count as u64 + 1;
                    self.let_go(datagram.source, count);
                }
                None
            }
        }
    }

    /// The first fragment of a datagram has come; what to send of it.
    pub(crate) fn first_came(&mut self, datagram: Datagram, way: Way, now: Instant) -> Vec<Answer> {
        self.expire(now);
        let Some(state) = self.known(datagram, now) else { return Vec::new() };
        let held = match state {
            State::Waits(held) => std::mem::take(held),
            State::Goes(_) | State::Overlaps => return Vec::new(),
        };
        *state = State::Goes(way);
        self.let_go(datagram.source, held.len());
        let packets = held.into_iter().map(|fragment| fragment.packet);
        let answers: Vec<_> = packets.filter_map(|packet| translated(packet, way)).collect();
        self.counts.released += answers.len() as u64;
        answers
    }

    /// What is known of a datagram, as of one that waits if nothing was; `None` where there is no room for it.
    fn known(&mut self, datagram: Datagram, now: Instant) -> Option<&mut State> {
        if !self.datagrams.contains_key(&datagram) {
            if self.datagrams.len() >= MOST_DATAGRAMS {
                return None;
            }
            self.order.push_back((now, datagram));
            self.datagrams.insert(datagram, State::Waits(Vec::new()));
        }
        self.datagrams.get_mut(&datagram)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(since, datagram)) = self.order.front() {
            if now.saturating_duration_since(since) < FOR {
                return;
            }
            self.order.pop_front();
            if let Some(State::Waits(held)) = self.datagrams.remove(&datagram) {
                self.counts.expired += held.len() as u64;
                self.let_go(datagram.source, held.len());
            }
        }
    }

    fn let_go(&mut self, source: IpAddr, count: usize) {
        self.kept -= count;
        if let Some(held) = self.of_source.get_mut(&source) {
            *held -= count;
            if *held == 0 {
                self.of_source.remove(&source);
            }
        }
    }
}

fn overlaps(one: &Range<u32>, other: &Range<u32>) -> bool {
    one.start < other.end && other.start < one.end
}

/// A later fragment with other addresses and one hop less, as the packet path would have it; `None` if it may go no further. It
/// has no ports and no checksum but that of IPv4's header, which the kernel fills in.
fn translated(mut packet: Vec<u8>, way: Way) -> Option<Answer> {
    let ttl_at = match (packet.first()? >> 4, way.source, way.destination) {
        (4, IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.get_mut(12..16)?.copy_from_slice(&source.octets());
            packet.get_mut(16..20)?.copy_from_slice(&destination.octets());
            packet.get_mut(10..12)?.fill(0);
            8
        }
        (6, IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.get_mut(8..24)?.copy_from_slice(&source.octets());
            packet.get_mut(24..40)?.copy_from_slice(&destination.octets());
            7
        }
        _ => return None,
    };
    let ttl = packet.get_mut(ttl_at)?;
    *ttl = ttl.checked_sub(1).filter(|left| *left > 0)?;
    Some(Answer { to: way.destination, packet, has_header: true })
}

/// An address as it was before it was mapped into IPv6.
pub(crate) fn address(words: [u32; 4]) -> IpAddr {
    let [a, b, c, d] = words.map(|word| u128::from(u32::from_be(word)));
    Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical()
}

#[cfg(test)]
mod tests;
