//! What the kernel is told about a neighbour's connections: time to live, signatures, patience.
//!
//! A listener answers a SYN before anybody knows whose it is, so it answers with a time to live of 255,
//! which no neighbour refuses (RFC 5082 §3). What the SYN came with is asked afterwards
//! (`TCP_SAVED_SYN`): a connection that began too far away never carries a message.

#![expect(unsafe_code, reason = "socket options that no crate offers")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnetwork::IpNetwork;
use libc::{c_int, c_void};
use socket2::SockRef;

use crate::transport::{Md5Key, Transport, Transports};

/// `struct tcp_md5sig` of `linux/tcp.h`: an address, flags, prefix length, key length, interface, key.
const MD5SIG_LEN: usize = 128 + 1 + 1 + 2 + 4 + 80;
const MD5SIG_FLAGS_AT: usize = 128;
const MD5SIG_KEY_LEN_AT: usize = 130;
const MD5SIG_KEY_AT: usize = 136;
/// Octet of the time to live in an IPv4 header, and of the hop limit in an IPv6 one.
const TTL_AT: (usize, usize) = (8, 7);
/// `linux/tcp.h`: the same for all addresses of a prefix.
const TCP_MD5SIG_EXT: c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
/// `linux/tcp.h`.
const TCP_SAVE_SYN: c_int = 27;
const TCP_SAVED_SYN: c_int = 28;
/// Room for a SYN's headers, all of them: the kernel gives nothing where they do not fit.
const SYN_LEN: usize = 512;

/// Before `listen`: keys of all neighbours of the listener's family, and SYNs are kept to be looked at.
pub(super) fn of_listener(
    socket: impl AsFd,
    ipv4: bool,
    transports: &Transports,
) -> io::Result<()> {
    set_ttl(&socket, ipv4, u8::MAX)?;
    for (peers, transport) in transports.all().filter(|(peers, _)| peers.is_ipv4() == ipv4) {
        if let Some(key) = &transport.md5 {
            set_md5(&socket, peers, Some(key))?;
        }
    }
    keep_syns(socket, transports)
}

/// A listener keeps SYNs to be looked at, where a neighbour may only be so far away.
pub(super) fn keep_syns(socket: impl AsFd, transports: &Transports) -> io::Result<()> {
    if transports.all().any(|(_, transport)| transport.reach.min_ttl().is_some()) {
        set(&socket, libc::IPPROTO_TCP, TCP_SAVE_SYN, &1_i32.to_ne_bytes())?;
    }
    Ok(())
}

/// Before `connect`.
pub(super) fn of_connect(socket: impl AsFd, peer: IpAddr, transport: &Transport) -> io::Result<()> {
    if let Some(key) = &transport.md5 {
        set_md5(&socket, peer.into(), Some(key))?;
    }
    of_both(&socket, peer, transport)
}

/// After `accept`, before a byte is read; an error also says that the SYN came from too far away. What the listener had for the
/// neighbour when it connected may be no more.
pub(crate) fn of_accepted(
    socket: impl AsFd,
    peer: IpAddr,
    transport: &Transport,
) -> io::Result<()> {
    if let Some(key) = &transport.md5 {
        set_md5(&socket, peer.into(), Some(key))?;
    }
    of_both(&socket, peer, transport)?;
    let Some(least) = transport.reach.min_ttl() else { return Ok(()) };
    let ttl = ttl_of_syn(&socket)?;
    if ttl < least {
        let why = format!("its packets arrive with time to live {ttl}, below {least} (RFC 5082)");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

fn of_both(socket: &impl AsFd, peer: IpAddr, transport: &Transport) -> io::Result<()> {
    if let Some(ttl) = transport.reach.ttl() {
        set_ttl(socket, peer.is_ipv4(), ttl)?;
    }
    if let Some(least) = transport.reach.min_ttl() {
        let (level, name) = match peer {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        };
        set(socket, level, name, &i32::from(least).to_ne_bytes())?;
    }
    if let Some(patience) = transport.user_timeout {
        SockRef::from(socket).set_tcp_user_timeout(Some(patience))?;
    }
    Ok(())
}

fn set_ttl(socket: &impl AsFd, ipv4: bool, ttl: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if ipv4 { socket.set_ttl_v4(ttl.into()) } else { socket.set_unicast_hops_v6(ttl.into()) }
}

/// RFC 2385: every segment to and from the addresses is signed, or dropped by the kernel. Without a key, none is any more.
pub(super) fn set_md5(socket: impl AsFd, peers: IpNetwork, key: Option<&Md5Key>) -> io::Result<()> {
    let octets = key.map_or(&[][..], Md5Key::octets);
    let set = set(&socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &md5sig(peers, octets));
    set.map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::ENOMEM) => "; raise net.core.optmem_max",
            Some(libc::ENOPROTOOPT) => "; use a kernel with CONFIG_TCP_MD5SIG",
            _ => "",
        };
        io::Error::new(error.kind(), format!("no TCP MD5 key for {peers}: {error}{remedy}"))
    })
}

fn md5sig(peers: IpNetwork, key: &[u8]) -> [u8; MD5SIG_LEN] {
    let mut bytes = [0; MD5SIG_LEN];
    let mut put = |at: usize, octets: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(octets) {
            *to = *from;
        }
    };
    match peers.ip() {
        // sockaddr_in: family, port, address.
        IpAddr::V4(address) => {
            put(0, &(libc::AF_INET as u16).to_ne_bytes());
            put(4, &address.octets());
        }
        // sockaddr_in6: family, port, flow, address.
        IpAddr::V6(address) => {
            put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
            put(8, &address.octets());
        }
    }
    put(MD5SIG_FLAGS_AT, &[TCP_MD5SIG_FLAG_PREFIX, peers.prefix()]);
    put(MD5SIG_KEY_LEN_AT, &u16::try_from(key.len()).unwrap_or(u16::MAX).to_ne_bytes());
    put(MD5SIG_KEY_AT, key);
    bytes
}

/// What was left of the time to live of the SYN that began a connection.
fn ttl_of_syn(socket: &impl AsFd) -> io::Result<u8> {
    let mut syn = [0; SYN_LEN];
    let length = get(socket, libc::IPPROTO_TCP, TCP_SAVED_SYN, &mut syn)?;
    let header = syn.get(..length).unwrap_or_default();
    let at = match header.first().map(|first| first >> 4) {
        Some(4) => TTL_AT.0,
        Some(6) => TTL_AT.1,
        Some(_) | None => return Err(io::Error::other("its SYN was not kept")),
    };
    header.get(at).copied().ok_or_else(|| io::Error::other("its SYN was not kept"))
}

fn set(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` octets of `value`, which lives until the call returns.
    let result =
        unsafe { libc::setsockopt(socket, level, name, value.as_ptr().cast::<c_void>(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option; how many octets of it there are.
fn get(socket: &impl AsFd, level: c_int, name: c_int, value: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` octets to `value`, and how many to `length`.
    let result = unsafe {
        libc::getsockopt(socket, level, name, value.as_mut_ptr().cast::<c_void>(), &raw mut length)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    /// How many segments without a signature were dropped that should have had one.
    fn unsigned() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
        let mut lines = text.lines().map(|line| line.split(' '));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut counters = names.zip(values);
        let (_, count) = counters.find(|(name, _)| *name == "TCPMD5NotFound").unwrap();
        count.parse().unwrap()
    }

    #[test]
    fn a_connection_that_waited_while_its_neighbour_got_a_key_needs_it_from_then_on() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, from) = listener.accept().unwrap();
        let before = unsigned();
        let md5 = Some(Md5Key::from_text(b"s3cret").unwrap());
        let transport = Transport { md5, ..Transport::default() };
        of_accepted(&ours, from.ip(), &transport).unwrap();
        theirs.write_all(b"unsigned").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while unsigned() == before {
            assert!(Instant::now() < deadline, "it was taken without a signature");
            std::thread::yield_now();
        }
    }
}
