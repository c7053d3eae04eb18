//! Why an update is refused.

use std::net::IpAddr;

use super::groups::GroupError;

/// Why an update was refused. Nothing was written for it, but that packets which its route covers go to the kernel, or are
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FibError {
    /// The prefix is longer than an address or has host bits.
    #[error("{prefix}/{len} is no prefix: it has host bits, or is longer than an address")]
    BadPrefix {
        /// The address.
        prefix: IpAddr,
        /// The length.
        len: u8,
    },
    /// A route names a group that is not there.
    #[error("{prefix}/{len} names group {group}, which is not there: create it first")]
    UnknownGroup {
        /// The address.
        prefix: IpAddr,
        /// The length.
        len: u8,
        /// The group.
        group: u32,
    },
    /// All second-level chunks are in use.
    #[error(
        "no room for {prefix}/{len}: all {chunks} blocks of /24 with longer routes are in use; raise dataplane.max_fib_blocks"
    )]
    ChunksFull {
        /// The address.
        prefix: IpAddr,
        /// The length.
        len: u8,
        /// Chunks that there are.
        chunks: usize,
    },
    /// The memory for the IPv6 trie's nodes is in use.
    #[error(
        "no room for {prefix}/{len}: {kibibytes} KiB for routes of IPv6 are in use; raise dataplane.max_fib_ipv6_kib"
    )]
    NodesFull {
        /// The address.
        prefix: IpAddr,
        /// The length.
        len: u8,
        /// KiB that there are.
        kibibytes: usize,
    },
    /// There is no group for another route.
    #[error("no room for {prefix}/{len}: {source}")]
    NoGroup {
        /// The address.
        prefix: IpAddr,
        /// The length.
        len: u8,
        /// Why.
        source: GroupError,
    },
    /// The group cannot be had.
    #[error("group {id}: {source}")]
    Group {
        /// The caller's name for it.
        id: u32,
        /// Why.
        source: GroupError,
    },
}
