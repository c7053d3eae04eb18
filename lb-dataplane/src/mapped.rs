//! Memory of a BPF array that user space writes directly, as words; or of the heap, for tests on the host.
#![expect(unsafe_code, reason = "memory mapping of BPF arrays")]

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Words that packets read while they are written: every access is one aligned atomic load or store.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u64>,
    /// Bytes, a multiple of 8.
    len: usize,
    /// The memory's owner where it is not a mapping.
    heap: Option<Box<[AtomicU64]>>,
}

// SAFETY: the memory is only ever accessed as atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `len` bytes of an array that was made with `BPF_F_MMAPABLE`.
    pub fn map(array: impl AsFd, len: usize) -> io::Result<Self> {
        Self::map_part(array, 0, len)
    }

    /// Maps `len` bytes of it from a multiple of the page size on.
    pub(crate) fn map_part(array: impl AsFd, from: usize, len: usize) -> io::Result<Self> {
        let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
        let length = NonZeroUsize::new(len).filter(|len| len.get().is_multiple_of(8));
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, array, from) }?;
        Ok(Self { start: start.cast(), len, heap: None })
    }

    /// Zeroes on the heap.
    pub fn on_heap(len: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        let start = NonNull::from(&*words).cast();
        Self { start, len: words.len() * 8, heap: Some(words) }
    }

    /// The memory as 32-bit words.
    pub fn words(&self) -> &[AtomicU32] {
        // SAFETY: the memory is mapped while `self` lives, aligned to 8 bytes, and shared as atomics only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 4) }
    }

    /// The memory as 64-bit words.
    pub fn wide_words(&self) -> &[AtomicU64] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 8) }
    }
}

/// Asks the processor to fetch a word that is wanted soon; changes nothing, and does nothing on processors that this does
/// not know.
pub(crate) fn prefetch<T>(word: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address has no effect but on the cache.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.heap.is_none() {
            // SAFETY: the mapping is ours, and nobody borrows from it any more.
            let _ = unsafe { munmap(self.start.cast(), self.len) };
        }
    }
}
