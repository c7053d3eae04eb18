//! System calls that neither aya nor nix has.
#![expect(unsafe_code, reason = "raw system calls")]

pub(crate) mod ethtool;
pub(crate) mod links;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Pod;
use lb_dataplane_common::tables::TICK_SHIFT;

/// `BPF_MAP_LOOKUP_BATCH` of `linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// `BPF_MAP_UPDATE_BATCH` of `linux/bpf.h`.
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
/// `BPF_PROG_QUERY` of `linux/bpf.h`, and its attach type `BPF_TCX_EGRESS`.
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_EGRESS: u32 = 47;
/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// Has the kernel leave fragments that a raw socket of IPv4 sends as they are (`IP_NODEFRAG`).
pub(crate) fn leave_fragments(socket: impl AsFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int, which is there.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_NODEFRAG,
            (&raw const yes).cast(),
            len,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The `batch` part of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads a map's first entries into the buffers, as many as they have keys or as there are; each has as many values as `values` has
/// for a key, which for a per-CPU map are the CPUs.
pub(crate) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<()> {
    if keys.is_empty() || values.is_empty() || !values.len().is_multiple_of(keys.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut next = 0_u32;
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute is the kernel's `batch` layout, and its pointers name buffers that outlive the call and hold
    // `count` keys and their values.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<BatchAttr>())
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        // There are no more.
        error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(error),
    }
}

/// Writes entries, in order; each has as many values as `values` has for a key, which for a per-CPU map are the CPUs.
pub(crate) fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if values.is_empty() || !values.len().is_multiple_of(keys.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as above; the kernel reads `count` keys and their values, and writes nothing but the attribute.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut attr, size_of::<BatchAttr>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The `query` part of `union bpf_attr`, as far as it is used.
#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    flags: [u32; 2],
    ids: u64,
    count: u32,
    reserved: u32,
    rest: [u64; 4],
}

/// How many programs packets meet that leave through an interface (tcx).
pub(crate) fn programs_on_egress(ifindex: u32) -> io::Result<u32> {
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type: BPF_TCX_EGRESS,
        flags: [0; 2],
        ids: 0,
        count: 0,
        reserved: 0,
        rest: [0; 4],
    };
    // SAFETY: the attribute is the kernel's `query` layout; without room for ids it writes nothing but the attribute.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<QueryAttr>())
    };
    if result == 0 { Ok(attr.count) } else { Err(io::Error::last_os_error()) }
}

/// Waits until every program that runs now has ended.
pub(crate) fn grace_period() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    match unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The current tick, as the programs count them.
pub(crate) fn tick() -> u32 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer names a `timespec` of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    ((now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64) >> TICK_SHIFT) as u32
}

/// A socket that sends whole frames and receives none.
pub(crate) fn frame_socket() -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers. Of protocol 0: no frame is handed to it.
    let socket = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Sends a frame through an interface.
pub(crate) fn send_frame(socket: impl AsFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `sockaddr_ll`.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    // SAFETY: both pointers name as many bytes as are said, and outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `NTF_USE` of `linux/neighbour.h`.
const NTF_USE: u8 = 1;
/// `NDA_DST` of `linux/neighbour.h`.
const NDA_DST: u16 = 1;

/// Asks the kernel to find the MACs of neighbours, by interface and address. It answers by what it then knows.
pub(crate) fn find_neighbours(neighbours: &[(u32, IpAddr)]) -> io::Result<()> {
    if neighbours.is_empty() {
        return Ok(());
    }
    // SAFETY: a system call without pointers.
    let socket = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for (ifindex, address) in neighbours {
        let request = use_neighbour(*ifindex, *address);
        // SAFETY: the pointer names as many bytes as are said.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                request.as_ptr().cast(),
                request.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `RTM_NEWNEIGH` with `NTF_USE` (rtnetlink(7)): a `nlmsghdr`, an `ndmsg` and the address.
fn use_neighbour(ifindex: u32, address: IpAddr) -> Vec<u8> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let len = 16 + 12 + 4 + octets.len();
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE) as u16;
    let mut request = Vec::with_capacity(len);
    request.extend((len as u32).to_ne_bytes());
    request.extend(libc::RTM_NEWNEIGH.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family as u8, 0, 0, 0]);
    request.extend(ifindex.to_ne_bytes());
    request.extend([0, 0, NTF_USE, 0]);
    request.extend((4 + octets.len() as u16).to_ne_bytes());
    request.extend(NDA_DST.to_ne_bytes());
    request.extend(octets);
    request
}

const _: () = assert!(size_of::<BatchAttr>() == 56);

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn the_kernel_looks_for_the_neighbours_that_it_is_asked_for() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let ip = |arguments: &str| {
                let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
                assert!(output.status.success(), "ip {arguments}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            ip("link add near type veth peer name far");
            for command in [
                "link set near up",
                "link set far up",
                "address add 192.0.2.1/24 dev near",
                "-6 address add 2001:db8::1/64 dev near nodad",
            ] {
                ip(command);
            }
            let ifindex = nix::net::if_::if_nametoindex("near").unwrap();
            let addresses: [IpAddr; 2] =
                ["192.0.2.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
            find_neighbours(&addresses.map(|address| (ifindex, address))).unwrap();
            let known = ip("neigh show dev near nud all");
            for address in addresses {
                let line = known.lines().find(|line| line.starts_with(&format!("{address} ")));
                assert!(line.is_some_and(|line| !line.contains("NONE")), "{address}: {known}");
            }
        };
        thread::spawn(inside).join().unwrap();
    }
}
