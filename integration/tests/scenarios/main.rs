//! Scenarios: most over the topology calico-hello, lbd between an upstream router (FRR) and two Calico nodes (BIRD).
//!
//! Each test brings up a lab of its own and shares nothing. A test that panics leaves its logs and captures in `target/lab`.

mod abuse;
mod bad_input;
mod bgp;
mod crowd;
mod drift;
mod dual_stack;
mod families;
mod flood;
mod hello;
mod killed;
mod life;
mod modes;
mod operating;
mod router;
mod routing;
mod schemathesis;
mod secrets;
mod traffic;
