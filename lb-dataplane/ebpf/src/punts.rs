//! Handing the heads of packets that are dropped to user space, which tells their senders why.

use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use lb_dataplane_common::punt::{Punt, QUOTED};
use lb_dataplane_common::reason::Reason;

/// Packets for user space to tell their senders of: 64 KiB, 780 of them.
#[map]
static PUNTS: RingBuf = RingBuf::with_byte_size(1 << 16, 0);
/// Those of them that were too long for their way: whoever sends others by the thousand keeps nobody from hearing what fits.
#[map]
static PUNTS_TOO_BIG: RingBuf = RingBuf::with_byte_size(1 << 16, 0);

/// Hands the head of a packet that is dropped to user space. `read` copies bytes of it, from its IP header on, and says
/// whether it could.
#[inline(always)]
pub fn punt(
    reason: Reason,
    len: usize,
    detail: u16,
    read: impl Fn(&mut [u8; QUOTED], usize) -> bool,
) {
    let ring = if reason == Reason::FlowTooBig { &PUNTS_TOO_BIG } else { &PUNTS };
    let Some(mut place) = ring.reserve::<Punt>(0) else { return };
    let punt: *mut Punt = place.as_mut_ptr();
    // SAFETY: the reservation is as large as a `Punt`; all of it is written before it is handed over.
    let is_read = unsafe {
        (*punt).reason = reason as u32;
        (*punt).detail = detail;
        (*punt).len = len as u16;
        (*punt).bytes = [0; QUOTED];
        read(&mut (*punt).bytes, len)
    };
    if is_read {
        place.submit(0);
    } else {
        place.discard(0);
    }
}
