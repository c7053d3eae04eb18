//! The appliance: what is wanted, what holds, and the daemon and command that bring the two together.

#![forbid(unsafe_code)]

pub mod access;
pub mod alarms;
pub mod clock;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod delta;
pub mod doctor;
pub mod events;
pub mod health;
pub mod http;
pub mod read;
pub mod registry;
pub mod resources;
#[cfg(test)]
mod small_disk;
pub mod store;
pub mod vip;
pub mod yaml;
