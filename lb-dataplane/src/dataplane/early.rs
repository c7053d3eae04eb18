//! Reading what the programs hand over of fragments that come before their first one, and when that has come.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aya::maps::{MapData, RingBuf};
use lb_dataplane_common::early::MODE_ROUTED;
use lb_dataplane_common::service::{MODE_GUE, MODE_IP_IN_IP, MODE_L2};

use super::Dataplane;
use crate::error::ReadError;
use crate::held::{Datagram, Form, Fragment, Held, HeldCounts, Link, SentOn, Way, address};

/// Fragments that came early, kept for a while. Its descriptor is readable when there is something to read.
pub struct EarlyFragments {
    ring: RingBuf<MapData>,
    held: Held,
    /// How many became what, for whoever shows it.
    counts: Arc<Mutex<HeldCounts>>,
}

impl Dataplane {
    /// Fragments that came before their first one; `None` if somebody has them already.
    ///
    /// # Errors
    ///
    /// The ring cannot be mapped.
    pub fn take_early_fragments(&mut self) -> Result<Option<EarlyFragments>, ReadError> {
        let failed = |source| ReadError { map: "EARLY", source: io::Error::other(source) };
        let Some(map) = self.ebpf.take_map("EARLY") else { return Ok(None) };
        let ring = RingBuf::try_from(map).map_err(failed)?;
        let (most, kept_for) = self.early_fragments;
        let held = Held::new(most, kept_for);
        Ok(Some(EarlyFragments { ring, held, counts: Arc::clone(&self.held) }))
    }

    /// What became of those that [`EarlyFragments`] keeps, as of the last one that came.
    #[must_use]
    pub fn held_fragments(&self) -> HeldCounts {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EarlyFragments {
    /// The packets of one element of the ring, to be sent as they are; `None` when there is nothing more to read.
    pub fn next_packets(&mut self, now: Instant) -> Option<Vec<SentOn>> {
        let mut packets = self.overdue(now);
        let element = decode(&self.ring.next()?);
        match element {
            Some((datagram, Said::Came(fragment))) => {
                packets.extend(self.held.fragment(datagram, fragment, now));
            }
            Some((datagram, Said::First(way))) => {
                packets.extend(self.held.first_came(datagram, way, now));
            }
            None => {}
        }
        self.note_counts();
        Some(packets)
    }

    /// The packets whose first one has not come in time, of those that go on nevertheless.
    pub fn overdue(&mut self, now: Instant) -> Vec<SentOn> {
        let packets = self.held.expire(now);
        self.note_counts();
        packets
    }

    /// When there are packets that are [overdue](Self::overdue), if any are kept.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.held.deadline()
    }

    fn note_counts(&self) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.held.counts();
    }
}

impl AsFd for EarlyFragments {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

enum Said {
    Came(Fragment),
    First(Way),
}

/// An element of the ring, by its layout.
fn decode(item: &[u8]) -> Option<(Datagram, Said)> {
    const HEAD_LEN: usize = 56;
    let (head, rest) = item.split_at_checked(HEAD_LEN)?;
    let datagram = Datagram {
        source: words(head, 0)?,
        destination: words(head, 4)?,
        identification: word(head, 8)?,
        protocol: word(head, 9)?,
    };
    let (offset, len, packet_len) = (word(head, 10)?, word(head, 11)?, word(head, 12)?);
    let said = if packet_len == 0 {
        Said::First(way(rest)?)
    } else {
        let packet = rest.get(..packet_len as usize)?.to_vec();
        let (range, is_routed) = (offset..offset.checked_add(len)?, word(head, 13)? != 0);
        Said::Came(Fragment { range, packet, is_routed })
    };
    Some((datagram, said))
}

/// What follows the head of a first fragment's element.
fn way(rest: &[u8]) -> Option<Way> {
    let (mode, port, ifindex) = (word(rest, 8)?, word(rest, 9)?, word(rest, 10)?);
    let form = match mode {
        MODE_ROUTED | MODE_L2 => Form::AsTheyCame,
        MODE_IP_IN_IP => Form::Within,
        MODE_GUE => Form::Gue(port as u16),
        _ => Form::Translated,
    };
    let (macs, mtu) = (*rest.get(48..)?.first_chunk()?, word(rest, 11)?);
    let link = if ifindex == 0 { None } else { Some(Link { ifindex, macs, mtu }) };
    Some(Way { form, source: words(rest, 0)?, destination: words(rest, 4)?, link })
}

fn word(bytes: &[u8], n: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(4 * n..)?.first_chunk()?))
}

fn words(bytes: &[u8], n: usize) -> Option<IpAddr> {
    let [a, b, c, d] = [0, 1, 2, 3].map(|more| word(bytes, n + more));
    Some(address([a?, b?, c?, d?]))
}
