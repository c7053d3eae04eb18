//! Atomic read-modify-write of the kernel's virtual machine (kernel 5.12 and later). Rust's own are not to be had for it:
//! the target is described as having loads and stores only.

use core::arch::asm;

/// Adds to a word; returns what it was before.
///
/// # Safety
///
/// The word is valid and aligned to 8 bytes, and is only accessed atomically.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, mut value: u64) -> u64 {
    // SAFETY: one instruction on the caller's word.
    unsafe {
        asm!("{v} = atomic_fetch_add((u64 *)({w} + 0), {v})", w = in(reg) word, v = inout(reg) value);
    }
    value
}

/// Adds to a word, around at its end.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: one instruction on the caller's word.
    unsafe { asm!("lock *(u64 *)({w} + 0) += {v}", w = in(reg) word, v = in(reg) value) }
}

/// Adds to a word of 32 bits, around at its end.
///
/// # Safety
///
/// The word is valid and aligned to 4 bytes.
#[inline(always)]
pub unsafe fn add_word(word: *mut u32, value: u32) {
    // SAFETY: one instruction on the caller's word.
    unsafe { asm!("lock *(u32 *)({w} + 0) += {v}", w = in(reg) word, v = in(wreg) value) }
}

/// Puts another value in the place of one, if the word has that; returns what it had.
///
/// # Safety
///
/// The word is valid and aligned to 8 bytes.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let was;
    // SAFETY: one instruction on the caller's word; the machine compares with `r0` and returns in it.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({w} + 0, r0, {n})",
            w = in(reg) word,
            n = in(reg) new,
            inout("r0") old => was,
        );
    }
    was
}

/// Puts another value in the place of one of 32 bits, if the word has that; returns what it had.
///
/// # Safety
///
/// The word is valid and aligned to 4 bytes.
#[inline(always)]
pub unsafe fn compare_exchange_word(word: *mut u32, old: u32, new: u32) -> u32 {
    let was: u32;
    // SAFETY: one instruction on the caller's word; the machine compares with `w0` and returns in it.
    unsafe {
        asm!(
            "w0 = cmpxchg32_32({w} + 0, w0, {n})",
            w = in(reg) word,
            n = in(wreg) new,
            inout("w0") old => was,
        );
    }
    was
}

/// Has the compiler keep loads before it before it, and those after it after it. The machine keeps them so by itself where
/// it is an x86-64.
#[inline(always)]
pub fn barrier() {
    // SAFETY: no instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) }
}
