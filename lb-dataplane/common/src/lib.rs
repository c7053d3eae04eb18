//! The packet path of lbd: map layouts and packet logic, shared by the eBPF programs, the loader and the host's tests.

#![cfg_attr(not(test), no_std)]
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
pub mod fragment;
#[cfg(test)]
#[path = "../../tests/kernel/frame.rs"]
#[allow(dead_code, reason = "the tests in the kernel use the rest")]
mod frame;
pub mod half_open;
pub mod hash;
#[cfg(test)]
mod model;
pub mod mss;
pub mod packet;
pub mod parse;
pub mod peer;
pub mod pipeline;
pub mod punt;
pub mod quote;
pub mod reason;
pub mod rewrite;
pub mod sample;
mod sctp;
pub mod service;
mod source_route;
pub mod tables;
pub mod vlan;

/// Raised when the meaning of a map's bytes changes though their sizes don't.
pub const LAYOUT: u32 = 9;
