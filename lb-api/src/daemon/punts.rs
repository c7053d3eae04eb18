//! Tells senders why their packets were dropped, and both sides of a flow that it has ended: ICMP errors and RSTs by raw
//! sockets, the former from a thread of its own.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use lb_dataplane::Answer;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

use super::dataplane::DataplaneHandle;

/// Begins to tell senders; ends with the process. The sockets serve others, too.
pub(super) async fn spawn(dataplane: &DataplaneHandle) -> Result<Arc<Sockets>> {
    let taken = dataplane.with(|owned| owned.dataplane.take_punts()).await;
    let punts = taken.map_err(anyhow::Error::msg)??;
    let mut punts = punts.context("somebody else sends ICMP errors for the dataplane")?;
    let sockets = Arc::new(Sockets::open()?);
    let shared = Arc::clone(&sockets);
    thread::Builder::new().name("icmp-errors".into()).spawn(move || {
        loop {
            while let Some(answer) = punts.next_answer(Instant::now()) {
                sockets.send(&answer);
            }
            let mut ring = [PollFd::new(punts.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ring, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "no more ICMP errors are sent for dropped packets");
                    return;
                }
            }
        }
    })?;
    Ok(shared)
}

/// Raw sockets: one for packets of each family, and one for ICMPv6 messages.
pub(super) struct Sockets {
    v4: OwnedFd,
    v6: OwnedFd,
    icmp6: OwnedFd,
}

impl Sockets {
    fn open() -> Result<Self> {
        let raw = |family, protocol| {
            socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
                .context("no raw socket for ICMP errors and RSTs: run as root or with CAP_NET_RAW")
        };
        // The header is ours, and the kernel fills in its checksum and the source address (raw(7)).
        let v4 = raw(AddressFamily::Inet, SockProtocol::Raw)?;
        // This one takes whole packets, too.
        let v6 = raw(AddressFamily::Inet6, SockProtocol::Raw)?;
        // The header and ICMPv6's checksum are the kernel's (RFC 3542 §3.1).
        let icmp6 = raw(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
        Ok(Self { v4, v6, icmp6 })
    }

    /// Sends a packet, if the kernel takes it at once.
    pub(super) fn send(&self, answer: &Answer) {
        let (packet, flags) = (&answer.packet, MsgFlags::MSG_DONTWAIT);
        let sent = match answer.to {
            IpAddr::V4(to) => {
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendto(self.v4.as_raw_fd(), packet, &to, flags)
            }
            IpAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
                let socket = if answer.has_header { &self.v6 } else { &self.icmp6 };
                sendto(socket.as_raw_fd(), packet, &to, flags)
            }
        };
        if let Err(error) = sent {
            // Without a route, or with a full queue: the sender's next packet is another occasion.
            tracing::debug!(to = %answer.to, %error, "a sender is not told");
        }
    }
}
