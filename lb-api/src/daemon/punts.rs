//! Tells senders why their packets were dropped: ICMP errors by a raw socket, from a thread of its own.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use lb_dataplane::Answer;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::dataplane::DataplaneHandle;

/// Begins to send them; ends with the process.
pub(super) async fn spawn(dataplane: &DataplaneHandle) -> Result<()> {
    let taken = dataplane.with(|owned| owned.dataplane.take_punts()).await;
    let punts = taken.map_err(anyhow::Error::msg)??;
    let mut punts = punts.context("somebody else sends ICMP errors for the dataplane")?;
    // The header is ours, and the kernel fills in its checksum and the source address (raw(7)).
    let socket =
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
            .context("no raw socket for ICMP errors: run as root or with CAP_NET_RAW")?;
    thread::Builder::new().name("icmp-errors".into()).spawn(move || {
        loop {
            while let Some(answer) = punts.next_answer(Instant::now()) {
                send(&socket, &answer);
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
    Ok(())
}

fn send(socket: &OwnedFd, answer: &Answer) {
    let to = SockaddrIn::from(SocketAddrV4::new(answer.to, 0));
    if let Err(error) = sendto(socket.as_raw_fd(), &answer.packet, &to, MsgFlags::MSG_DONTWAIT) {
        // Without a route, or with a full queue: the sender's next packet is another occasion.
        tracing::debug!(to = %answer.to, %error, "no ICMP error was sent");
    }
}
