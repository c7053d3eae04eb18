//! The FIB's arrays, mapped into this process.

use std::io;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::Map;
use lb_dataplane_common::fib::MemberEntry;
use lb_dataplane_common::fib6::ROOT6_WORDS;
use lb_dataplane_common::service::PAGE_WORDS;

use super::Sizes;
use crate::fib::{Arrays, Fib};
use crate::mapped::Mapped;
use crate::sys;

/// Bytes of a page of words or of groups.
const PAGE_BYTES: usize = PAGE_WORDS * size_of::<u32>();
/// Pages of the first level: one word per /24.
const FIRST_LEVEL_PAGES: usize = (1 << 24) / PAGE_WORDS;

pub(super) fn open(ebpf: &Ebpf, sizes: &Sizes) -> io::Result<Fib> {
    let pages = |n: u32| n as usize * PAGE_BYTES;
    let arrays = Arrays {
        l1: array(ebpf, "FIB4_L1", FIRST_LEVEL_PAGES * PAGE_BYTES)?,
        l2: array(ebpf, "FIB4_L2", pages(sizes.fib_second_level_pages))?,
        root6: array(ebpf, "FIB6_ROOT", ROOT6_WORDS as usize * size_of::<u64>())?,
        nodes6: array(ebpf, "FIB6_NODES", pages(sizes.fib6_pages))?,
        groups: array(ebpf, "FIB_GROUPS", pages(sizes.fib_group_pages))?,
        buckets: array(ebpf, "FIB_BUCKETS", pages(sizes.fib_bucket_pages))?,
        members: array(ebpf, "FIB_MEMBERS", sizes.fib_members as usize * size_of::<MemberEntry>())?,
    };
    Ok(Fib::adopt(arrays, grace))
}

fn array(ebpf: &Ebpf, name: &str, bytes: usize) -> io::Result<Mapped> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Mapped::map(data.fd().as_fd(), bytes),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, name.to_owned())),
    }
}

fn grace() {
    // Without grace periods an index could be reused while a packet still reads it, for some microseconds: the packet
    // would take a wrong way, and nothing worse. The service tables, where it matters more, refuse to go on.
    if let Err(error) = sys::grace_period() {
        tracing::warn!(%error, "cannot wait for running programs (membarrier)");
    }
}
