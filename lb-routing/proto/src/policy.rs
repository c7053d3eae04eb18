//! What is accepted from neighbours and what they are told.
//!
//! Nothing, in either direction, unless the configuration says so (RFC 8212).

mod export;
mod import;

pub(crate) use self::export::{Target, advertised_attributes, is_exported, next_hop};
pub(crate) use self::import::{Rejection, check_attributes, check_next_hop, check_prefix};
