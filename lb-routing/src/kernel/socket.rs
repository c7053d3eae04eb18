//! A netlink route socket: requests with acknowledgements, dumps, events.
//!
//! Reads happen when the owner asks, so nothing queues in this process: an owner that falls behind
//! lets the kernel's buffer overrun, which is an error that it sees (`ENOBUFS`).

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::next_hops::{NextHops, Object, Wire};

/// Larger than any datagram of the kernel (32 KiB).
const DATAGRAM: usize = 64 * 1024;
/// Bytes that wait in the kernel for us, before it overruns.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// The least that a message has.
const HEADER: usize = 16;
/// A table that changes while it is read is read so often at most.
const DUMP_ATTEMPTS: usize = 5;
/// The kernel answers at once; an answer that is later than this was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of the kernel.
pub(super) type Message = NetlinkMessage<Wire>;

/// A socket.
pub(super) struct Socket {
    socket: TokioSocket,
    sequence: u32,
    port: u32,
    buffer: Vec<u8>,
    dump: Option<Dump>,
}

/// A reading of a table.
struct Dump {
    request: Wire,
    sequence: u32,
    /// The kernel said that this is all.
    done: bool,
    /// The table did not change meanwhile.
    consistent: bool,
    attempts_left: usize,
}

impl Socket {
    /// Opens one that hears the given groups (`RTMGRP_*`).
    pub(super) fn open(groups: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.bind(&SocketAddr::new(0, groups))?;
        inner.set_cap_ack(true)?;
        if setsockopt(&*inner, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            // Without CAP_NET_ADMIN: as much as the system's limit allows.
            setsockopt(&*inner, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        let mut address = SocketAddr::new(0, 0);
        inner.get_address(&mut address)?;
        let buffer = Vec::with_capacity(DATAGRAM);
        Ok(Self { socket, sequence: 0, port: address.port_number(), buffer, dump: None })
    }

    /// The id by which the kernel names this socket in events that it caused.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// The messages of the next datagram; what cannot be read is left out. Can be cancelled.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<Message>> {
        self.buffer.clear();
        self.buffer.reserve(DATAGRAM);
        self.socket.recv_from(&mut self.buffer).await?;
        Ok(split(&self.buffer))
    }

    /// The messages that are there by now, about as many as `bound` at most.
    pub(super) fn drain(&mut self, bound: usize) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        while messages.len() < bound {
            self.buffer.clear();
            self.buffer.reserve(DATAGRAM);
            match self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => messages.append(&mut split(&self.buffer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(messages)
    }

    /// Begins to read a table; `request` names it.
    pub(super) async fn begin_dump(&mut self, request: impl Into<Wire>) -> io::Result<()> {
        let request = request.into();
        let sequence = self.send(&[(request.clone(), NLM_F_DUMP)]).await?;
        self.dump = Some(Dump {
            request,
            sequence,
            done: false,
            consistent: true,
            attempts_left: DUMP_ATTEMPTS,
        });
        Ok(())
    }

    /// The table's next messages, `None` at its end. Some come twice if the table changed meanwhile.
    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink's enums are open")]
    pub(super) async fn next_of_dump(&mut self) -> io::Result<Option<Vec<Wire>>> {
        if self.dump.as_ref().is_none_or(|dump| dump.done) {
            return self.end_of_dump().await;
        }
        let messages = self.answer().await?;
        let Some(dump) = &mut self.dump else { return Ok(None) };
        let mut taken = Vec::new();
        for message in messages {
            if message.header.sequence_number != dump.sequence {
                continue;
            }
            dump.consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => taken.push(inner),
                // A dump that fails half-way says so at its end.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => dump.done = true,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(Some(taken))
    }

    /// How often the table that is being read may be read from its beginning again.
    pub(super) fn dump_attempts_left(&self) -> usize {
        self.dump.as_ref().map_or(0, |dump| dump.attempts_left)
    }

    /// Reads a whole, small table.
    pub(super) async fn table(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.begin_dump(request).await?;
        let mut table = Vec::new();
        while let Some(messages) = self.next_of_dump().await? {
            table.extend(messages.into_iter().filter_map(known));
        }
        Ok(table)
    }

    /// Reads all next-hop objects; none where the kernel knows no such thing.
    pub(super) async fn next_hops(&mut self) -> io::Result<NextHops> {
        self.begin_dump(Wire::GetNextHops).await?;
        let (mut objects, mut attempts_left) = (Vec::new(), self.dump_attempts_left());
        loop {
            match self.next_of_dump().await {
                Ok(Some(messages)) => {
                    if attempts_left != self.dump_attempts_left() {
                        // They changed meanwhile, and are read again.
                        attempts_left = self.dump_attempts_left();
                        objects.clear();
                    }
                    objects.extend(messages.into_iter().filter_map(next_hop));
                }
                Ok(None) => return Ok(objects.into_iter().collect()),
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    return Ok(NextHops::default());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes one request whose answer is one message.
    pub(super) async fn ask(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<RouteNetlinkMessage> {
        let sequence = self.send(&[(message.into(), 0)]).await?;
        loop {
            for message in self.answer().await? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                if let NetlinkPayload::InnerMessage(Wire::Known(inner)) = message.payload {
                    return Ok(inner);
                } else if let NetlinkPayload::Error(error) = message.payload {
                    return Err(error.to_io());
                }
            }
        }
    }

    /// Makes one request; the answer is an acknowledgement.
    pub(super) async fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<()> {
        let mut results = self.requests(vec![(message, flags)]).await?;
        results.pop().unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Makes requests in one datagram; the answers in their order.
    pub(super) async fn requests(
        &mut self,
        messages: Vec<(RouteNetlinkMessage, u16)>,
    ) -> io::Result<Vec<io::Result<()>>> {
        let with_ack: Vec<_> =
            messages.into_iter().map(|(m, flags)| (m.into(), flags | NLM_F_ACK)).collect();
        let last = self.send(&with_ack).await?;
        let count = u32::try_from(with_ack.len()).unwrap_or(u32::MAX);
        let first = last.wrapping_sub(count.saturating_sub(1));
        let mut results: Vec<Option<io::Result<()>>> = with_ack.iter().map(|_| None).collect();
        let mut missing = results.len();
        while missing > 0 {
            for message in self.answer().await? {
                let NetlinkPayload::Error(error) = &message.payload else { continue };
                let place = message.header.sequence_number.wrapping_sub(first) as usize;
                if let Some(slot @ None) = results.get_mut(place) {
                    let refused = error.code.is_some();
                    *slot = Some(if refused { Err(error.to_io()) } else { Ok(()) });
                    missing -= 1;
                }
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Reads the table again if it changed meanwhile.
    async fn end_of_dump(&mut self) -> io::Result<Option<Vec<Wire>>> {
        let Some(dump) = self.dump.take().filter(|dump| !dump.consistent) else { return Ok(None) };
        let attempts_left = dump.attempts_left - 1;
        if attempts_left == 0 {
            return Err(changed_too_often());
        }
        self.begin_dump(dump.request).await?;
        if let Some(dump) = &mut self.dump {
            dump.attempts_left = attempts_left;
        }
        Ok(Some(Vec::new()))
    }

    async fn answer(&mut self) -> io::Result<Vec<Message>> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.receive()).await {
            Ok(messages) => messages,
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends messages as one datagram; returns the last one's sequence number.
    async fn send(&mut self, messages: &[(Wire, u16)]) -> io::Result<u32> {
        let mut datagram = Vec::new();
        for (message, flags) in messages {
            self.sequence = self.sequence.wrapping_add(1);
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let payload = NetlinkPayload::InnerMessage(message.clone());
            let mut message = NetlinkMessage::new(header, payload);
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut datagram[start..]);
        }
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(&datagram, &kernel).await?;
        if sent < datagram.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(self.sequence)
    }
}

/// A datagram's messages.
fn split(datagram: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    for message in wholes(datagram) {
        match Message::deserialize(message) {
            Ok(message) => messages.push(message),
            Err(error) => tracing::debug!(%error, "a netlink message cannot be read"),
        }
    }
    messages
}

fn known(message: Wire) -> Option<RouteNetlinkMessage> {
    match message {
        Wire::Known(message) => Some(message),
        Wire::GetNextHops | Wire::NextHop(..) | Wire::NextHopGone(_) => None,
    }
}

fn next_hop(message: Wire) -> Option<(u32, Object)> {
    match message {
        Wire::NextHop(id, object) => Some((id, object)),
        Wire::Known(_) | Wire::GetNextHops | Wire::NextHopGone(_) => None,
    }
}

/// A datagram's messages, each with its header.
fn wholes(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*datagram.first_chunk()?) as usize;
        let whole = datagram.get(..length).filter(|_| length >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(whole)
    })
}

fn changed_too_often() -> io::Error {
    let why = format!("the table changed during each of {DUMP_ATTEMPTS} readings");
    io::Error::new(io::ErrorKind::Interrupted, why)
}
