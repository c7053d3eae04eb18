//! Tells senders why their packets were dropped, and both sides of a flow that it has ended: ICMP errors and RSTs by raw
//! sockets, the former from a thread of its own. Another one keeps fragments that come before their first one, and sends them
//! on when that has come, as frames where their next hop's MAC is known: so no filter and no connection tracking of this host
//! meets them, as none meets what the packet path forwards.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use lb_dataplane::{Announcer, Answer, SentOn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

use super::dataplane::DataplaneHandle;

/// Milliseconds for which a packet waits for room in a socket's queue.
const ROOM_WITHIN: u8 = 100;

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
            if let Err(error) = wait(punts.fds(), None) {
                tracing::error!(%error, "no more ICMP errors are sent for dropped packets");
                return;
            }
        }
    })?;
    keep_fragments(dataplane, Arc::clone(&shared)).await?;
    Ok(shared)
}

/// Begins to keep fragments; ends with the process.
async fn keep_fragments(dataplane: &DataplaneHandle, sockets: Arc<Sockets>) -> Result<()> {
    let taken = dataplane.with(|owned| owned.dataplane.take_early_fragments()).await;
    let early = taken.map_err(anyhow::Error::msg)??;
    let mut early = early.context("somebody else keeps fragments for the dataplane")?;
    let frames =
        Announcer::open().context("no socket for frames: run as root or with CAP_NET_RAW")?;
    let send = move |packets: Vec<SentOn>| {
        packets.into_iter().for_each(|packet| send_on(&sockets, &frames, packet));
    };
    thread::Builder::new().name("fragments".into()).spawn(move || {
        loop {
            while let Some(packets) = early.next_packets(Instant::now()) {
                send(packets);
            }
            send(early.overdue(Instant::now()));
            if let Err(error) = wait([early.as_fd()], early.deadline()) {
                tracing::error!(%error, "fragments that come before their first one are lost");
                return;
            }
        }
    })?;
    Ok(())
}

/// Sends a fragment where the packet path would have sent it; where that knew no MAC, by the kernel's routes.
fn send_on(sockets: &Sockets, frames: &Announcer, SentOn { to, packet, link }: SentOn) {
    let Some(link) = link else {
        return sockets.send(&Answer { to, packet, has_header: true });
    };
    if let Err(error) = frames.send(&link, &packet) {
        tracing::debug!(%to, %error, "a fragment is not sent");
    }
}

/// Waits for something to read, until a time if there is one.
fn wait<const N: usize>(rings: [BorrowedFd<'_>; N], until: Option<Instant>) -> Result<(), Errno> {
    let mut rings = rings.map(|ring| PollFd::new(ring, PollFlags::POLLIN));
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now());
        // Up to the next millisecond: not at once again.
        PollTimeout::from(u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX))
    });
    match poll(&mut rings, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
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
        lb_dataplane::host::leave_fragments(&v4).context("a raw socket cannot send fragments")?;
        // This one takes whole packets, too.
        let v6 = raw(AddressFamily::Inet6, SockProtocol::Raw)?;
        // The header and ICMPv6's checksum are the kernel's (RFC 3542 §3.1).
        let icmp6 = raw(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
        Ok(Self { v4, v6, icmp6 })
    }

    /// Sends a packet, if the kernel takes it at once.
    fn send(&self, answer: &Answer) {
        if let Err(error) = self.try_send(answer) {
            // Without a route, or with a full queue: the sender's next packet is another occasion.
            tracing::debug!(to = %answer.to, %error, "a packet is not sent");
        }
    }

    /// Sends packets for which there is no other occasion, as fast as the kernel takes them; blocks. Returns how many it did
    /// not take, with the last reason.
    pub(super) fn send_all(&self, answers: &[Answer]) -> Option<(usize, Errno)> {
        let failed = answers.iter().filter_map(|answer| self.send_in_turn(answer).err());
        failed.fold(None, |lost, error| Some((lost.map_or(0, |(count, _)| count) + 1, error)))
    }

    /// Sends a packet once there is room for it, for which it waits for [`ROOM_WITHIN`].
    fn send_in_turn(&self, answer: &Answer) -> Result<(), Errno> {
        match self.try_send(answer) {
            Err(Errno::EAGAIN) => {
                let mut socket = [PollFd::new(self.of(answer).as_fd(), PollFlags::POLLOUT)];
                poll(&mut socket, PollTimeout::from(ROOM_WITHIN))?;
                self.try_send(answer)
            }
            done => done,
        }
    }

    fn of(&self, answer: &Answer) -> &OwnedFd {
        match (answer.to, answer.has_header) {
            (IpAddr::V4(_), _) => &self.v4,
            (IpAddr::V6(_), true) => &self.v6,
            (IpAddr::V6(_), false) => &self.icmp6,
        }
    }

    fn try_send(&self, answer: &Answer) -> Result<(), Errno> {
        let (socket, packet) = (self.of(answer).as_raw_fd(), &answer.packet);
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = match answer.to {
            IpAddr::V4(to) => {
                sendto(socket, packet, &SockaddrIn::from(SocketAddrV4::new(to, 0)), flags)
            }
            IpAddr::V6(to) => {
                sendto(socket, packet, &SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0)), flags)
            }
        };
        sent.map(drop)
    }
}
