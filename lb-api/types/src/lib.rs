//! The resources of lbd as REST, the YAML file and `lbctl` all see them: data and serde, nothing else.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access;
pub mod bgp;
pub mod config;
pub mod event;
pub mod peer;
pub mod policy;
pub mod problem;
pub mod resource;
pub mod route;
pub mod view;
pub mod vip;
