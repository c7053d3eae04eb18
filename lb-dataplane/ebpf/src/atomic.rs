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

/// Sets bits of a word; returns what it was before.
///
/// # Safety
///
/// The word is valid and aligned to 4 bytes.
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u32, mut bits: u32) -> u32 {
    // SAFETY: one instruction on the caller's word.
    unsafe {
        asm!("{b} = atomic_fetch_or((u32 *)({w} + 0), {b})", w = in(reg) word, b = inout(wreg) bits);
    }
    bits
}

/// Keeps only these bits of a word.
///
/// # Safety
///
/// As for [`fetch_or`].
#[inline(always)]
pub unsafe fn and(word: *mut u32, bits: u32) {
    // SAFETY: one instruction on the caller's word.
    unsafe { asm!("lock *(u32 *)({w} + 0) &= {b}", w = in(reg) word, b = in(wreg) bits) }
}
