//! Reading what the programs hand over of packets whose senders are to hear of their end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use lb_dataplane_common::punt::{Punt, QUOTED};

use crate::error::ReadError;
use crate::icmp::{Answer, Limit, answer};

/// The ring of packets that were dropped and whose senders are to be told. Its descriptor is readable when there is one.
pub struct Punts {
    ring: RingBuf<MapData>,
    limit: Limit,
}

/// Opens the ring; `None` if it was taken before.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Punts>, ReadError> {
    let failed = |source| ReadError { map: "PUNTS", source: io::Error::other(source) };
    let Some(map) = ebpf.take_map("PUNTS") else { return Ok(None) };
    let ring = RingBuf::try_from(map).map_err(failed)?;
    Ok(Some(Punts { ring, limit: Limit::new(Instant::now()) }))
}

impl Punts {
    /// The next ICMP error or RST to send; `None` when there is nothing more to read. What is over the limit is read and left out.
    pub fn next_answer(&mut self, now: Instant) -> Option<Answer> {
        loop {
            let punt = decode(&self.ring.next()?);
            if let Some(answer) = punt.as_ref().and_then(answer)
                && self.limit.allows(now)
            {
                return Some(answer);
            }
        }
    }
}

impl AsFd for Punts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// An element of the ring, by its layout.
fn decode(item: &[u8]) -> Option<Punt> {
    let (reason, rest) = item.split_first_chunk::<4>()?;
    let (detail, rest) = rest.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let bytes: [u8; QUOTED] = *rest.first_chunk()?;
    Some(Punt {
        reason: u32::from_ne_bytes(*reason),
        detail: u16::from_ne_bytes(*detail),
        len: u16::from_ne_bytes(*len),
        bytes,
    })
}
