//! Any bytes as a stream of messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_routing_proto::fuzz::codec(bytes));
