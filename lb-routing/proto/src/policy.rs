//! What is accepted from neighbours and what they are told.
//!
//! Nothing, in either direction, unless the configuration says so (RFC 8212). A neighbour's import and export are
//! ready-made ones or a [`Chain`] of policies:
//!
//! ```text
//! Chain -> Policy -> Statement: Conditions? -> Actions -> accept | reject | next
//! ```
//!
//! `import.rs` and `export.rs` hold what the protocol itself demands, before and after the chain.

mod action;
mod as_path_set;
mod chain;
mod community;
mod condition;
mod export;
mod import;
mod prefix_set;

pub use self::action::{Actions, MAX_PREPEND, NextHop};
pub use self::as_path_set::{AsPathSet, MAX_PATTERN, PatternError};
pub use self::chain::{Chain, Policy, Rule, Statement, Verdict};
pub use self::community::{
    Community, CommunityError, CommunityPattern, CommunitySet, of as communities,
};
pub use self::condition::{Condition, Match, Source};
pub use self::import::is_next_hop;
pub use self::prefix_set::{PrefixRange, PrefixSet, RangeError};

pub(crate) use self::export::{Target, Teller, Withheld, told};
pub(crate) use self::import::{
    Importer, Judge, Rejection, check_next_hop, check_prefix, is_shutting_down,
};
