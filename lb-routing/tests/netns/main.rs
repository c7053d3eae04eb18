//! The router in network namespaces of its own: netlink, sessions, a real BIRD.

#![expect(clippy::unwrap_used, reason = "a test says by its panic what went wrong")]

mod attributes;
mod calico;
mod far;
mod lab;

mod interop;
mod kernel;
mod next_hops;
mod peers;
mod statics;
mod storm;
mod tables;
mod transport;
