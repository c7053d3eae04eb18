//! Reading what the programs hand over of packets whose senders are to hear of their end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use lb_dataplane_common::punt::{Punt, QUOTED};

use crate::error::ReadError;
use crate::icmp::{Answer, Limit, answer};

/// The packets that were dropped and whose senders are to be told: those that were too long for their way, and others. Each kind
/// has its ring and its limit, so that none keeps senders of the other from hearing.
pub struct Punts {
    kinds: [Kind; 2],
}

struct Kind {
    ring: RingBuf<MapData>,
    limit: Limit,
}

/// Opens the rings; `None` if they were taken before.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<Option<Punts>, ReadError> {
    let too_big = kind(ebpf, "PUNTS_TOO_BIG")?;
    let others = kind(ebpf, "PUNTS")?;
    Ok(too_big.zip(others).map(|(too_big, others)| Punts { kinds: [too_big, others] }))
}

fn kind(ebpf: &mut Ebpf, map: &'static str) -> Result<Option<Kind>, ReadError> {
    let failed = |source| ReadError { map, source: io::Error::other(source) };
    let Some(taken) = ebpf.take_map(map) else { return Ok(None) };
    let ring = RingBuf::try_from(taken).map_err(failed)?;
    Ok(Some(Kind { ring, limit: Limit::new(Instant::now()) }))
}

impl Punts {
    /// The next ICMP error or RST to send; `None` when there is nothing more to read. What is over its limit is read and left out.
    pub fn next_answer(&mut self, now: Instant) -> Option<Answer> {
        self.kinds.iter_mut().find_map(|kind| kind.next_answer(now))
    }

    /// The rings' descriptors: one is readable when there is something to read.
    #[must_use]
    pub fn fds(&self) -> [BorrowedFd<'_>; 2] {
        self.kinds.each_ref().map(|kind| kind.ring.as_fd())
    }
}

impl Kind {
    fn next_answer(&mut self, now: Instant) -> Option<Answer> {
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
