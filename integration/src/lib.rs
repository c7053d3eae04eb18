//! The lab: brings up a containerlab topology in network namespaces, drives traffic through it and says what it saw.

pub mod api;
pub mod bpf;
pub mod checks;
pub mod clab;
pub mod demo;
pub mod lab;
pub mod netns;
mod privileges;
pub mod process;
pub mod program;
pub mod traffic;
pub mod wait;
mod words;
