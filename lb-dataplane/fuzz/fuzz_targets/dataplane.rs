//! Any bytes as packets, changes of the table and time.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lb_dataplane_common::fuzz::script(bytes);
});
