//! The one place that touches a packet's memory: bounds first.
//!
//! Invariant: `data` and `end` come from the context after the last helper that may move the packet.

use core::arch::asm;

use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::vlan::{self, TagWord};

/// The same number, which the verifier does not know to be the same: it follows copies and sums, but no other operations.
#[inline(always)]
pub fn unlinked(mut n: u32) -> u32 {
    // SAFETY: a register is changed and changed back.
    unsafe { asm!("{0} ^= 1", "{0} ^= 1", inout(wreg) n, options(pure, nomem, nostack)) };
    n
}

/// Zero, of which the verifier knows nothing, given a number of which it knows nothing either: both halves of it.
#[inline(always)]
pub fn zero(unknown: u32) -> u64 {
    let mut unknown = u64::from(unknown) | u64::from(unknown) << 32;
    // SAFETY: two registers that hold the same.
    unsafe {
        asm!("{0} ^= {1}", inout(reg) unknown, in(reg) unknown, options(pure, nomem, nostack));
    }
    unknown
}

/// The same reason, of which the verifier knows nothing, given what [`zero`] made.
#[inline(always)]
pub fn any(reason: Reason, zero: u64) -> Reason {
    let mut number = u64::from(reason as u32);
    // SAFETY: a number is combined with zero, and so is that of the reason that it was.
    unsafe {
        asm!("{0} ^= {1}", inout(reg) number, in(reg) zero, options(pure, nomem, nostack));
        core::mem::transmute::<u32, Reason>(number as u32)
    }
}

/// A packet's bytes in place.
#[derive(Clone, Copy)]
pub struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    /// The bytes between the two addresses that the context holds, which the verifier takes for pointers. They are loaded
    /// by hand: the context has them as 32 bits, and the compiler would copy them as such, which makes numbers of them.
    ///
    /// # Safety
    ///
    /// The context is the program's, with the packet's beginning and end at these offsets.
    #[inline(always)]
    pub unsafe fn of<C, const DATA: usize, const END: usize>(context: *const C) -> Self {
        let (data, end): (usize, usize);
        // SAFETY: two loads from the caller's context.
        unsafe {
            asm!("{d} = *(u32 *)({c} + {at})", d = out(reg) data, c = in(reg) context, at = const DATA,
                options(pure, readonly, nostack));
            asm!("{e} = *(u32 *)({c} + {at})", e = out(reg) end, c = in(reg) context, at = const END,
                options(pure, readonly, nostack));
        }
        Self { data, end }
    }

    /// Bytes between the two.
    #[inline(always)]
    pub fn len(self) -> u32 {
        (self.end - self.data) as u32
    }

    /// Whether the first `len` bytes are there.
    #[inline(always)]
    pub fn has(self, mut len: u32) -> bool {
        // The compiler is not to see that this makes a later check needless: the verifier would not.
        // SAFETY: a register is copied to itself.
        unsafe { asm!("{0} = {0}", inout(wreg) len, options(pure, nomem, nostack)) };
        self.data + len as usize <= self.end
    }

    /// The first VLAN tag; 0 if there is none.
    #[inline(always)]
    pub fn tag(self) -> TagWord {
        match self.read::<2>(12) {
            Some([protocol, control]) if vlan::is_tag(protocol) => vlan::word(protocol, control),
            _ => 0,
        }
    }

    /// The address of N words, if they are within the packet.
    #[inline(always)]
    fn words<const N: usize>(self, at: u32) -> Option<usize> {
        let start = self.data + at as usize;
        if start + 2 * N > self.end { None } else { Some(start) }
    }

    /// The first bytes, if they are there.
    #[inline(always)]
    pub fn reach(self, len: u32) -> Option<Near> {
        (self.data + len as usize <= self.end).then_some(Near { data: self.data })
    }

    /// Copies words out; `at` is even.
    #[inline(always)]
    pub fn read<const N: usize>(self, at: u32) -> Option<[u16; N]> {
        let from = self.words::<N>(at)?;
        // SAFETY: `words` checked that N words lie within the packet.
        Some(unsafe { load(from) })
    }

    /// Copies words in; `at` is even.
    #[inline(always)]
    pub fn write<const N: usize>(self, at: u32, words: [u16; N]) -> Option<()> {
        let to = self.words::<N>(at)?;
        // SAFETY: `words` checked that N words lie within the packet, whose only user the program is while it runs.
        unsafe { store(to, words) };
        Some(())
    }
}

/// A packet's first bytes, as many as a check has found to be there.
#[derive(Clone, Copy)]
pub struct Near {
    data: usize,
}

impl Near {
    /// Copies words out; `at` is even.
    #[inline(always)]
    pub fn load<const N: usize>(self, at: u32) -> [u16; N] {
        let mut from = self.data + at as usize;
        // The compiler is not to take the loads before the checks that they stand behind.
        // SAFETY: a register is copied to itself; then what is within the packet is read, as the verifier sees for itself.
        unsafe {
            asm!("{0} = {0}", inout(reg) from, options(nomem, nostack));
            load(from)
        }
    }

    /// Copies words in; `at` is even.
    #[inline(always)]
    pub fn store<const N: usize>(self, at: u32, words: [u16; N]) {
        // SAFETY: as above; the program is the packet's only user while it runs.
        unsafe { store(self.data + at as usize, words) }
    }
}

/// Copies words out. Four words are one load: the compiler may not make one of several, since it is told that memory is to be
/// aligned, and puts them together again where the caller takes them apart.
///
/// # Safety
///
/// The address is even, and N words there lie within the packet, as the verifier sees for itself.
#[inline(always)]
unsafe fn load<const N: usize>(from: usize) -> [u16; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i + 4 <= N {
        let wide: u64;
        // SAFETY: the caller's.
        unsafe {
            asm!("{d} = *(u64 *)({p} + 0)", d = out(reg) wide, p = in(reg) from + 2 * i,
                options(pure, readonly, nostack));
        }
        let [a, b, c, d, e, f, g, h] = wide.to_ne_bytes();
        out[i] = u16::from_ne_bytes([a, b]);
        out[i + 1] = u16::from_ne_bytes([c, d]);
        out[i + 2] = u16::from_ne_bytes([e, f]);
        out[i + 3] = u16::from_ne_bytes([g, h]);
        i += 4;
    }
    if i + 2 <= N {
        let wide: u32;
        // SAFETY: the caller's.
        unsafe {
            asm!("{d} = *(u32 *)({p} + 0)", d = out(wreg) wide, p = in(reg) from + 2 * i,
                options(pure, readonly, nostack));
        }
        let [a, b, c, d] = wide.to_ne_bytes();
        out[i] = u16::from_ne_bytes([a, b]);
        out[i + 1] = u16::from_ne_bytes([c, d]);
        i += 2;
    }
    if i < N {
        // SAFETY: the caller's. The kernel begins a frame at an even address and offsets are even, so a word is aligned.
        out[i] = unsafe { *((from + 2 * i) as *const u16) };
    }
    out
}

/// Copies words in. Four words are one store, as in [`load`].
///
/// # Safety
///
/// As for [`load`].
#[inline(always)]
unsafe fn store<const N: usize>(to: usize, words: [u16; N]) {
    // As a little-endian machine has two words beside one another. Made of their bytes it would be made of each byte.
    let pair = |i: usize| u32::from(words[i]) | u32::from(words[i + 1]) << 16;
    let mut i = 0;
    while i + 4 <= N {
        let wide = u64::from(pair(i)) | u64::from(pair(i + 2)) << 32;
        // SAFETY: the caller's.
        unsafe {
            asm!("*(u64 *)({p} + 0) = {v}", p = in(reg) to + 2 * i, v = in(reg) wide,
                options(nostack));
        }
        i += 4;
    }
    if i + 2 <= N {
        let wide = pair(i);
        // SAFETY: the caller's.
        unsafe {
            asm!("*(u32 *)({p} + 0) = {v}", p = in(reg) to + 2 * i, v = in(wreg) wide,
                options(nostack));
        }
        i += 2;
    }
    if i < N {
        // SAFETY: the caller's; aligned, as in `load`.
        unsafe { *((to + 2 * i) as *mut u16) = words[i] };
    }
}
