//! The eBPF dataplane: loads and pins the programs, and writes the tables that they read.

pub mod fib;
pub mod table;
