//! Reading the flow tables.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use lb_dataplane_common::family::{Family, V4, V6, protocol_across};
use lb_dataplane_common::flow::{
    DIRECTION_TO_BACKEND, FlowEntry, FlowKey, STATE_ACROSS, STATE_MODE, Translation, ticks_since,
};
use lb_dataplane_common::peer;
use lb_dataplane_common::tables::TICK_SHIFT;

use super::memory::Memory;
use super::{Flow, FlowFilter, FlowState, programs};
use crate::flow_table::{Cursor, Entry, FlowTable};
use crate::sys;
use crate::table::Protocol;

/// Entries and buckets that are looked at for a page of some flows, at most: some milliseconds' work, while others wait.
const LOOKED_AT_MOST: usize = 1 << 14;
/// Entries that are read at once.
const READ_BATCH: usize = 4096;

/// A family with a flow table.
pub(super) trait Table: Family {
    /// The map.
    const MAP: &'static str;
    /// The program that removes idle flows.
    const AGE: &'static str;

    /// The table.
    fn table(memory: &Memory) -> &FlowTable<Self>;
    /// That of the other family.
    fn other(memory: &Memory) -> &FlowTable<Self::Other>;

    /// A key as that program takes it.
    fn words(key: &FlowKey<Self>) -> Vec<u16>;
}

impl Table for V4 {
    const MAP: &'static str = "FLOWS";
    const AGE: &'static str = programs::AGE;

    fn table(memory: &Memory) -> &FlowTable<Self> {
        &memory.flows
    }

    fn other(memory: &Memory) -> &FlowTable<V6> {
        &memory.flows6
    }

    fn words(key: &FlowKey<Self>) -> Vec<u16> {
        key.to_words().to_vec()
    }
}

impl Table for V6 {
    const MAP: &'static str = "FLOWS6";
    const AGE: &'static str = programs::AGE6;

    fn table(memory: &Memory) -> &FlowTable<Self> {
        &memory.flows6
    }

    fn other(memory: &Memory) -> &FlowTable<V4> {
        &memory.flows
    }

    fn words(key: &FlowKey<Self>) -> Vec<u16> {
        key.to_words().to_vec()
    }
}

/// Where a list of flows goes on; displayed as text that it can be read from.
///
/// That is a bucket of a flow table, and where a page ended within one, the last flow that was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowPlace {
    v6: bool,
    bucket: Cursor,
    after: Option<Ends>,
}

/// What flows of a bucket are sorted by.
type Ends = (SocketAddr, SocketAddr, Protocol);

impl Flow {
    fn ends(&self) -> Ends {
        (self.client, self.vip, self.protocol)
    }
}

impl fmt::Display for FlowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = self.bucket.0.map_or("start".to_owned(), |bucket| bucket.to_string());
        write!(f, "{}-{bucket}", if self.v6 { 6 } else { 4 })?;
        match self.after {
            None => Ok(()),
            Some((client, vip, protocol)) => write!(f, "-{}-{client}-{vip}", protocol.name()),
        }
    }
}

impl FromStr for FlowPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "it is not where a list of flows goes on";
        let parts: Vec<_> = text.split('-').collect();
        let (family, bucket, rest) = match parts.as_slice() {
            [family, bucket, rest @ ..] => (*family, *bucket, rest),
            [_] | [] => return Err(WRONG),
        };
        let bucket = match bucket {
            "start" => None,
            number => Some(number.parse().map_err(|_| WRONG)?),
        };
        let ends = |client: &str, vip: &str, protocol| {
            let ends = client.parse().and_then(|client| Ok((client, vip.parse()?, protocol)));
            ends.map(Some).map_err(|_| WRONG)
        };
        let after = match rest {
            [] => None,
            ["tcp", client, vip] => ends(client, vip, Protocol::Tcp)?,
            ["udp", client, vip] => ends(client, vip, Protocol::Udp)?,
            ["sctp", client, vip] => ends(client, vip, Protocol::Sctp)?,
            ["icmp", client, vip] => ends(client, vip, Protocol::Icmp)?,
            _ => return Err(WRONG),
        };
        match family {
            "4" | "6" => Ok(Self { v6: family == "6", bucket: Cursor(bucket), after }),
            _ => Err(WRONG),
        }
    }
}

/// The flows from a place on, and the place after them.
pub(super) fn page(
    memory: &Memory,
    mut place: FlowPlace,
    limit: usize,
    filter: &FlowFilter,
) -> (Vec<Flow>, Option<FlowPlace>) {
    let mut page = Page { limit, filter, looked_at: 0, flows: Vec::new() };
    if !place.v6 {
        if let Some(place) = fill::<V4>(memory, place, &mut page) {
            return (page.flows, Some(place));
        }
        place = FlowPlace { v6: true, ..FlowPlace::default() };
    }
    let place = fill::<V6>(memory, place, &mut page);
    (page.flows, place)
}

/// A page that is being filled.
struct Page<'a> {
    limit: usize,
    filter: &'a FlowFilter,
    /// Entries.
    looked_at: usize,
    flows: Vec<Flow>,
}

/// Reads whole buckets while the page has room for all that they may hold; the place where it ends, if that is not the end of
/// the table.
fn fill<A: Table>(memory: &Memory, mut place: FlowPlace, page: &mut Page<'_>) -> Option<FlowPlace> {
    loop {
        let room = page.limit.saturating_sub(page.flows.len());
        if room == 0 || page.looked_at >= LOOKED_AT_MOST {
            return Some(place);
        }
        let Some((mut told, next)) = part::<A>(memory, place, room, page) else {
            return Some(place);
        };
        if let Some(last) = place.after {
            told.retain(|flow| flow.ends() > last);
        }
        if told.len() > room {
            // A single bucket has more than the page may.
            told.sort_unstable_by_key(Flow::ends);
            told.truncate(room);
            place.after = told.last().map(Flow::ends);
            page.flows.extend(told);
            return Some(place);
        }
        page.flows.extend(told);
        match next {
            None => return None,
            Some(next) => place = FlowPlace { bucket: next, after: None, ..place },
        }
    }
}

/// What is asked for of the next buckets, as many as there is room for or else of one, and the bucket after them; `None`
/// where the page has something, and one bucket may be too much for it.
fn part<A: Table>(
    memory: &Memory,
    place: FlowPlace,
    room: usize,
    page: &mut Page<'_>,
) -> Option<(Vec<Flow>, Option<Cursor>)> {
    let is_open = page.filter.is_open();
    let mut at_most = if is_open { room.min(READ_BATCH) } else { READ_BATCH };
    loop {
        let mut next = place.bucket;
        let whole = match place.after {
            None => A::table(memory).read(&mut next, at_most),
            Some(_) => None,
        };
        let is_one = whole.is_none();
        let (entries, over) = match whole {
            Some(read) => read,
            None if !page.flows.is_empty() && is_open => return None,
            None => {
                next = place.bucket;
                A::table(memory).read_one(&mut next)
            }
        };
        page.looked_at += entries.len() + next.passed(place.bucket);
        let told = as_flows::<A>(memory, &entries, page.filter);
        if is_one || told.len() <= room {
            return Some((told, (!over).then_some(next)));
        }
        at_most /= 2;
    }
}

fn as_flows<A: Table>(memory: &Memory, entries: &[Entry<A>], filter: &FlowFilter) -> Vec<Flow> {
    let now = sys::tick();
    let to_backends = entries.iter().filter(|(_, entry)| entry.direction == DIRECTION_TO_BACKEND);
    let flows = to_backends.filter_map(|(key, entry)| {
        let mut flow = flow(key, entry);
        // Its other direction may be in no cache.
        if !filter.takes(&flow) {
            return None;
        }
        let peer = if entry.state & STATE_ACROSS == 0 {
            answering(A::table(memory), entry, key.protocol)
        } else {
            answering(A::other(memory), entry, protocol_across::<A>(key.protocol()).into())
        };
        let idle = peer
            .map_or(u32::MAX, |peer| ticks_since(peer.last_seen, now))
            .min(ticks_since(entry.last_seen, now));
        flow.idle = Duration::from_nanos(u64::from(idle) << TICK_SHIFT);
        Some(flow)
    });
    flows.collect()
}

/// The entry of what answers the packets of another one.
fn answering<A: Family>(
    table: &FlowTable<A>,
    entry: &FlowEntry,
    protocol: u16,
) -> Option<FlowEntry> {
    table.get(&peer::answers(&Translation::from_v6(&entry.translation), protocol))
}

/// The flow of an entry; how long it was idle takes its other direction, too.
fn flow<A: Family>(key: &FlowKey<A>, entry: &FlowEntry) -> Flow {
    // A packet that reaches a backend as it came keeps its port.
    let port_there = if entry.state & STATE_MODE == 0 {
        entry.translation.destination_port
    } else {
        key.destination_port
    };
    // No service has another.
    let protocol = Protocol::from_number(key.protocol()).unwrap_or_default();
    Flow {
        protocol,
        client: end(key.source, key.source_port),
        vip: end(key.destination, key.destination_port),
        backend: end(entry.translation.destination, port_there),
        state: FlowState::of(protocol, entry.state),
        idle: Duration::ZERO,
    }
}

/// An end of a flow, from a key's address and port.
pub(super) fn end<A: Family>(address: A, port: u16) -> SocketAddr {
    let [a, b, c, d] = address.to_v6().map(|word| u128::from(u32::from_be(word)));
    let address = Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d).to_canonical();
    SocketAddr::new(address, u16::from_be(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_from_what_it_is_displayed_as() {
        let ends = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap(), Protocol::Udp);
        let six = Some(ends("[2001:db8::1]:4000", "[2001:db8:f::10]:80"));
        for place in [
            FlowPlace::default(),
            FlowPlace { v6: true, bucket: Cursor(Some(7)), after: six },
            FlowPlace { bucket: Cursor(Some(7)), ..FlowPlace::default() },
        ] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for bad in
            ["", "4", "5-1", "4-x", "4-1-tcp", "4-1-tcp-a-b", "4-1-igmp-10.0.0.1:1-10.0.0.2:1"]
        {
            assert!(bad.parse::<FlowPlace>().is_err(), "{bad}");
        }
    }
}
