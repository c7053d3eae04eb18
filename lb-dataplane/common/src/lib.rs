//! The packet path of lbd: map layouts and packet logic, shared by the eBPF programs, the loader and the host's tests.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod service;
