//! Fragments that came before the first one of their datagram, kept for as long as that may still come.
//!
//! Invariant: no fragment leaves more than once, and none of a datagram of which two overlap here (RFC 5722 for IPv6; RFC 3128
//! says why for IPv4): what is kept makes no more packets than came.

mod rewrite;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Datagrams that are known for each fragment that may be kept, those included of which nothing is kept (any more).
pub(crate) const DATAGRAMS: u32 = 4;
/// The part of the room that one source address may take.
const PART_OF_SOURCE: usize = 8;

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
    /// It is for no VIP: it goes on as it came where nothing else is said of it in time.
    pub(crate) is_routed: bool,
}

/// How a datagram goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) form: Form,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) link: Option<Link>,
}

/// What becomes of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// They go on as they are, to the backend by its MAC or by their own addresses.
    AsTheyCame,
    /// They get these addresses, of either family.
    Translated,
    /// They go within packets with these addresses: IP in IP, or IPv6 in IPv6.
    Within,
    /// They go within datagrams of GUE, from this port.
    Gue(u16),
}

/// Where frames leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface.
    pub ifindex: u32,
    /// The MAC that they are for, and that of the interface.
    pub macs: [u8; 12],
    /// Bytes of a packet at most.
    pub mtu: u32,
}

/// A fragment that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentOn {
    /// Whose the packet is.
    pub to: IpAddr,
    /// From its IP header on, with every checksum.
    pub packet: Vec<u8>,
    /// Where it leaves; `None` where the kernel is to find the way.
    pub link: Option<Link>,
}

/// How many fragments became what, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldCounts {
    /// They were sent on after their first one.
    pub released: u64,
    /// Their first one did not come in time: those to VIPs are gone, those from backends went on as they came.
    pub expired: u64,
    /// There was no room for them, or no way: as with `expired`.
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
#[derive(Debug)]
pub(crate) struct Held {
    /// How many may be; beyond, those that come are refused.
    most: usize,
    /// How long. Fragments overtake each other by milliseconds; a whole datagram is given up after 30 s (`ipfrag_time`).
    kept_for: Duration,
    datagrams: HashMap<Datagram, State>,
    /// Datagrams as they became known.
    order: VecDeque<(Instant, Datagram)>,
    of_source: HashMap<IpAddr, usize>,
    kept: usize,
    counts: HeldCounts,
}

impl Held {
    /// With room for so many, for so long.
    pub(crate) fn new(most: u32, kept_for: Duration) -> Self {
        Self {
            most: most as usize,
            kept_for,
            datagrams: HashMap::new(),
            order: VecDeque::new(),
            of_source: HashMap::new(),
            kept: 0,
            counts: HeldCounts::default(),
        }
    }

    pub(crate) fn counts(&self) -> HeldCounts {
        self.counts
    }

    /// When [`Held::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + self.kept_for)
    }

    /// A fragment came early; the packet to send if its first one has come meanwhile, or if it cannot be kept.
    pub(crate) fn fragment(
        &mut self,
        datagram: Datagram,
        fragment: Fragment,
        now: Instant,
    ) -> Option<SentOn> {
        let of_source = (self.most / PART_OF_SOURCE).max(1);
        let is_room = self.kept < self.most
            && self.of_source.get(&datagram.source).is_none_or(|held| *held < of_source);
        // Whoever may keep no more takes no place of another's datagram either.
        if !is_room && !self.datagrams.contains_key(&datagram) {
            return self.refuse(fragment);
        }
        let Some(state) = self.known(datagram, now) else { return self.refuse(fragment) };
        match state {
            State::Goes(way) => {
                let way = *way;
                self.release(fragment, &way)
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
                    return self.refuse(fragment);
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
    pub(crate) fn first_came(&mut self, datagram: Datagram, way: Way, now: Instant) -> Vec<SentOn> {
        let Some(state) = self.known(datagram, now) else { return Vec::new() };
        let held = match state {
            State::Waits(held) => std::mem::take(held),
            State::Goes(_) | State::Overlaps => return Vec::new(),
        };
        *state = State::Goes(way);
        self.let_go(datagram.source, held.len());
        held.into_iter().filter_map(|fragment| self.release(fragment, &way)).collect()
    }

    /// Forgets what has been known for long enough; what to send of it, as it came.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<SentOn> {
        let mut sent = Vec::new();
        while let Some(&(since, datagram)) = self.order.front() {
            if now.saturating_duration_since(since) < self.kept_for {
                break;
            }
            self.order.pop_front();
            if let Some(State::Waits(held)) = self.datagrams.remove(&datagram) {
                self.counts.expired += held.len() as u64;
                self.let_go(datagram.source, held.len());
                sent.extend(held.into_iter().filter_map(as_it_came));
            }
        }
        sent
    }

    fn release(&mut self, fragment: Fragment, way: &Way) -> Option<SentOn> {
        let sent = rewrite::rewritten(fragment.packet, fragment.range.len() as u32, way);
        if sent.is_some() {
            self.counts.released += 1;
        } else {
            self.counts.refused += 1;
        }
        sent
    }

    fn refuse(&mut self, fragment: Fragment) -> Option<SentOn> {
        self.counts.refused += 1;
        as_it_came(fragment)
    }

    /// What is known of a datagram, as of one that waits if nothing was; `None` where there is no room for it.
    fn known(&mut self, datagram: Datagram, now: Instant) -> Option<&mut State> {
        if !self.datagrams.contains_key(&datagram) {
            if self.datagrams.len() >= self.most * DATAGRAMS as usize {
                return None;
            }
            self.order.push_back((now, datagram));
            self.datagrams.insert(datagram, State::Waits(Vec::new()));
        }
        self.datagrams.get_mut(&datagram)
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

/// A fragment that is for no VIP, by its own addresses.
fn as_it_came(fragment: Fragment) -> Option<SentOn> {
    let (source, destination) = rewrite::addresses(&fragment.packet)?;
    let way = Way { form: Form::AsTheyCame, source, destination, link: None };
    let len = fragment.range.len() as u32;
    if fragment.is_routed { rewrite::rewritten(fragment.packet, len, &way) } else { None }
}

fn overlaps(one: &Range<u32>, other: &Range<u32>) -> bool {
    one.start < other.end && other.start < one.end
}

/// An address as it was before it was mapped into IPv6.
pub(crate) fn address(words: [u32; 4]) -> IpAddr {
    let [a, b, c, d] = words.map(|word| u128::from(u32::from_be(word)));
    Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical()
}

#[cfg(test)]
mod tests;
