//! Any bytes as the doings of a neighbour.

#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_routing_proto::fuzz::session(bytes, Instant::now()));
