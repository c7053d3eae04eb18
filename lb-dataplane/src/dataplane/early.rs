//! Reading what the programs hand over of fragments that come before their first one, and when that has come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aya::maps::{MapData, RingBuf};

use super::Dataplane;
use crate::error::ReadError;
use crate::held::{Datagram, Fragment, Held, HeldCounts, Way, address};
use crate::icmp::Answer;

/// Fragments that came early, kept for a second. Its descriptor is readable when there is something to read.
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
        Ok(Some(EarlyFragments { ring, held: Held::default(), counts: Arc::clone(&self.held) }))
    }

    /// What became of those that [`EarlyFragments`] keeps, as of the last one that came.
    #[must_use]
    pub fn held_fragments(&self) -> HeldCounts {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EarlyFragments {
    /// The packets of one element of the ring, to be sent as they are; `None` when there is nothing more to read.
    pub fn next_packets(&mut self, now: Instant) -> Option<Vec<Answer>> {
        let element = decode(&self.ring.next()?);
        let packets = match element {
            Some((datagram, Said::Came(fragment))) => {
                self.held.fragment(datagram, fragment, now).into_iter().collect()
            }
            Some((datagram, Said::First(way))) => self.held.first_came(datagram, way, now),
            None => Vec::new(),
        };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.held.counts();
        Some(packets)
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
    let word =
        |bytes: &[u8], n: usize| Some(u32::from_ne_bytes(*bytes.get(4 * n..)?.first_chunk()?));
    let words = |bytes: &[u8], n: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|more| word(bytes, n + more));
        Some(address([a?, b?, c?, d?]))
    };
    let datagram = Datagram {
        source: words(head, 0)?,
        destination: words(head, 4)?,
        identification: word(head, 8)?,
        protocol: word(head, 9)?,
    };
    let (offset, len, packet_len) = (word(head, 10)?, word(head, 11)?, word(head, 12)?);
    let said = if packet_len == 0 {
        Said::First(Way { source: words(rest, 0)?, destination: words(rest, 4)? })
    } else {
        let packet = rest.get(..packet_len as usize)?.to_vec();
        Said::Came(Fragment { range: offset..offset.checked_add(len)?, packet })
    };
    Some((datagram, said))
}
