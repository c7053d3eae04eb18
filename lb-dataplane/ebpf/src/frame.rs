//! The one place that touches a packet's memory: bounds first, then two bytes at a time.
//!
//! Invariant: `data` and `end` come from the context after the last helper that may move the packet.

use core::arch::asm;

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

    #[inline(always)]
    fn words<const N: usize>(self, at: u32) -> Option<*mut u16> {
        let start = self.data + at as usize;
        if start + 2 * N > self.end {
            return None;
        }
        Some(start as *mut u16)
    }

    /// Copies words out; `at` is even.
    #[inline(always)]
    pub fn read<const N: usize>(self, at: u32) -> Option<[u16; N]> {
        let from = self.words::<N>(at)?;
        let mut out = [0; N];
        let mut i = 0;
        while i < N {
            // SAFETY: `words` checked that N words lie within the packet. The kernel begins a frame at an even address
            // and `at` is even, so each word is aligned.
            out[i] = unsafe { *from.add(i) };
            i += 1;
        }
        Some(out)
    }

    /// Copies words in; `at` is even.
    #[inline(always)]
    pub fn write<const N: usize>(self, at: u32, words: [u16; N]) -> Option<()> {
        let to = self.words::<N>(at)?;
        let mut i = 0;
        while i < N {
            // SAFETY: as in `read`; the program is the packet's only user while it runs.
            unsafe { *to.add(i) = words[i] };
            i += 1;
        }
        Some(())
    }
}
