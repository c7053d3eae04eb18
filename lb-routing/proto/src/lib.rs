//! The BGP speaker of lbd, without IO: bytes, timers and commands in; bytes, connects, route changes and events out.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod fib;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod policy;
mod rib;
mod session;
#[cfg(test)]
mod sim;
pub mod speaker;
pub mod wire;
