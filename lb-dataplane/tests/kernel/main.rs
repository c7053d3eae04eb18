//! The programs in the kernel: packets in and out by `BPF_PROG_TEST_RUN`, adoption, ageing, attachments. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at the first surprise"
)]

mod across;
mod adoption;
mod ageing;
mod alone;
mod attachment;
mod bounds;
mod choice;
mod counted;
mod direct;
mod early;
mod echo;
mod errors;
mod family;
mod flows;
mod frame;
mod full;
mod kept;
mod kernel_handover;
mod life;
mod lists;
mod members;
mod mounts;
mod mss;
mod mutated;
mod naive;
mod neighbour;
mod net;
mod odd;
mod ports;
mod reasons;
mod routed;
mod said;
mod samples;
mod scene;
mod sctp;
mod sources;
mod spare;
mod summed;
mod together;
mod traffic;
mod v6;
mod verifier;
mod vlan;
mod wire;
