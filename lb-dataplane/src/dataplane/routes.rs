//! The FIB's arrays, mapped into this process.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::maps::Map;
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::fib::MemberEntry;
use lb_dataplane_common::fib6::ROOT6_MAP_WORDS;
use lb_dataplane_common::flow::{FlowKey, SCTP, TCP, UDP};
use lb_dataplane_common::hash::FlowHash;
use lb_dataplane_common::service::PAGE_WORDS;

use super::Sizes;
use crate::fib::{Arrays, Fib, FibLookup, Packet, grace_period};
use crate::mapped::Mapped;

/// Bytes of a page of words or of groups.
const PAGE_BYTES: usize = PAGE_WORDS * size_of::<u32>();
/// Pages of the first level: one word per /24.
const FIRST_LEVEL_PAGES: usize = (1 << 24) / PAGE_WORDS;

pub(super) fn open(ebpf: &Ebpf, sizes: &Sizes) -> io::Result<Fib> {
    let pages = |n: u32| n as usize * PAGE_BYTES;
    let arrays = Arrays {
        l1: array(ebpf, "FIB4_L1", FIRST_LEVEL_PAGES * PAGE_BYTES)?,
        l2: array(ebpf, "FIB4_L2", pages(sizes.fib_second_level_pages))?,
        root6: array(ebpf, "FIB6_ROOT", ROOT6_MAP_WORDS as usize * size_of::<u64>())?,
        nodes6: array(ebpf, "FIB6_NODES", pages(sizes.fib6_pages))?,
        groups: array(ebpf, "FIB_GROUPS", pages(sizes.fib_group_pages))?,
        buckets: array(ebpf, "FIB_BUCKETS", pages(sizes.fib_bucket_pages))?,
        members: array(ebpf, "FIB_MEMBERS", sizes.fib_members as usize * size_of::<MemberEntry>())?,
    };
    Ok(Fib::adopt(arrays, grace_period))
}

/// What a packet meets.
pub(super) fn lookup(fib: &Fib, packet: &Packet) -> FibLookup {
    let Packet { source, destination, mut protocol, source_port, destination_port } = *packet;
    let (mut source_port, mut destination_port) = (source_port.to_be(), destination_port.to_be());
    // Others go by their addresses; of ICMP, echoes do not, whose number stands for a port.
    if ![TCP, UDP, SCTP, V4::ICMP, V6::ICMP].contains(&protocol) {
        (protocol, source_port, destination_port) = (0, 0, 0);
    }
    let hash = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => FlowHash::of(&FlowKey::<V4> {
            source: u32::from_ne_bytes(source.octets()),
            destination: u32::from_ne_bytes(destination.octets()),
            source_port,
            destination_port,
            protocol: protocol.into(),
            pad: 0,
        }),
        (source, destination) => FlowHash::of(&FlowKey::<V6> {
            source: Family::from_bytes(mapped(source)),
            destination: Family::from_bytes(mapped(destination)),
            source_port,
            destination_port,
            protocol: protocol.into(),
            pad: 0,
        }),
    };
    fib.lookup(destination, hash.for_route())
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn array(ebpf: &Ebpf, name: &str, bytes: usize) -> io::Result<Mapped> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Mapped::map(data.fd().as_fd(), bytes),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, name.to_owned())),
    }
}
