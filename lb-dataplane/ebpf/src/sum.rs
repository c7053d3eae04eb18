//! What needs bytes of a packet beside it, and only a few packets need: sums over all of them, of datagrams that get a checksum and
//! ICMP errors in another form, and extensions of these that are moved.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_csum_diff;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use lb_dataplane_common::packet::{MOST_MOVED, MOST_ZEROES};

/// Bytes that are summed at a time: what older kernels take.
const PIECE: u32 = 512;
/// Pieces at most: 9,216 bytes, the longest packets of common links.
const PIECES: u32 = 18;

/// Room for a piece.
#[map]
static SUMMED: PerCpuArray<[u32; PIECE as usize / 4]> = PerCpuArray::with_max_entries(1, 0);

/// The sum of `len` bytes of a packet, folded. `load` copies some into the room.
#[inline(always)]
pub fn of(mut at: u32, len: u32, load: impl Fn(u32, *mut u32, u32) -> bool) -> Option<u16> {
    let room = SUMMED.get_ptr_mut(0)?.cast::<u32>();
    let (mut sum, mut left, mut pieces) = (0_u32, len, 0);
    while pieces < PIECES && left >= PIECE {
        if !load(at, room, PIECE) {
            return None;
        }
        sum = add(room, PIECE, sum)?;
        at += PIECE;
        left -= PIECE;
        pieces += 1;
    }
    if left >= PIECE {
        return None;
    }
    if left > 0 {
        let last = bounded::<PIECE>(left - 1) >> 2;
        // SAFETY: `last` is one of the room's words. It is the one that the bytes end in.
        unsafe { room.add(last as usize).write_volatile(0) };
        if !load(at, room, bounded::<PIECE>(left - 1) + 1) {
            return None;
        }
        sum = add(room, (bounded::<PIECE>(left - 1) >> 2) * 4 + 4, sum)?;
    }
    let once = (sum & 0xffff) + (sum >> 16);
    Some(((once & 0xffff) + (once >> 16)) as u16)
}

/// Moves the last bytes of a packet, from `at` to its end at `end`, by so many, and writes zeroes where they were. `load` copies
/// bytes into the room, `grow` makes the packet longer, `store` copies the room out.
#[inline(always)]
pub fn insert_zeroes(
    at: u32,
    end: u32,
    zeroes: u32,
    load: impl Fn(u32, *mut u32, u32) -> bool,
    grow: impl Fn(u32) -> bool,
    store: impl Fn(u32, *mut u32, u32) -> bool,
) -> Option<()> {
    let room = SUMMED.get_ptr_mut(0)?.cast::<u32>();
    let less = end.wrapping_sub(at).wrapping_sub(1);
    if less >= MOST_MOVED {
        return None;
    }
    let mut n = 0;
    while n < MOST_ZEROES / 4 {
        // SAFETY: it is within the room.
        unsafe { room.add(n as usize).write_volatile(0) };
        n += 1;
    }
    let len = bounded::<MOST_MOVED>(less) + 1;
    let zeroes = bounded::<MOST_ZEROES>(zeroes);
    // SAFETY: both together are less than the room.
    let behind = unsafe { room.byte_add(zeroes as usize) };
    let is_done = load(at, behind, len) && grow(zeroes) && store(at, room, zeroes + len);
    is_done.then_some(())
}

const _: () = assert!(MOST_MOVED + MOST_ZEROES <= PIECE);

/// Less than a power of two. The compiler is not to see that this is needless: the verifier would not.
#[inline(always)]
pub fn bounded<const END: u32>(mut n: u32) -> u32 {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{0} = {0}", inout(wreg) n, options(pure, nomem, nostack)) };
    n & (END - 1)
}

/// A sum with `len` bytes of the room, a multiple of 4.
#[inline(always)]
fn add(room: *mut u32, len: u32, sum: u32) -> Option<u32> {
    // SAFETY: the room holds as many bytes; no bytes are taken out.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, room, len, sum) };
    if sum < 0 { None } else { Some(sum as u32) }
}
