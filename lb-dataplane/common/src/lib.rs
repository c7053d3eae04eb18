//! The packet path of lbd: map layouts and packet logic, shared by the eBPF programs, the loader and the host's tests.

#![cfg_attr(not(any(test, feature = "fuzzing")), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod age;
pub mod checksum;
pub mod choose;
pub mod crc32c;
pub mod early;
pub mod encapsulation;
pub mod family;
pub mod fib;
pub mod fib6;
pub mod flow;
pub mod flow_table;
pub mod fragment;
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../../tests/kernel/frame.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "for tests: those in the kernel use the rest")]
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod half_open;
pub mod hash;
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../../tests/kernel/kept.rs"]
#[allow(clippy::unwrap_used, reason = "for tests")]
mod kept;
pub mod line;
pub mod list;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(dead_code, unused_imports, reason = "the fuzzer does not need all that tests do")]
mod model;
pub mod mss;
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../../tests/kernel/naive.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "for tests: those in the kernel use the rest")]
mod naive;
pub mod packet;
pub mod parse;
pub mod peer;
pub mod pipeline;
pub mod punt;
pub mod quote;
pub mod reason;
pub mod rewrite;
#[cfg(any(test, feature = "fuzzing"))]
#[path = "../../tests/kernel/said.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "for tests: those in the kernel use the rest")]
mod said;
pub mod sample;
mod sctp;
pub mod service;
mod source_route;
pub mod tables;
pub mod vlan;

/// Raised when the meaning of a map's bytes changes though their sizes don't.
pub const LAYOUT: u32 = 17;
