//! A netlink route socket: requests with acknowledgements, dumps, events.
//!
//! Reads happen when the owner asks, so nothing queues in this process: an owner that falls behind
//! lets the kernel's buffer overrun, which is an error that it sees (`ENOBUFS`).

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::next_hops::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP};

/// Larger than any datagram of the kernel (32 KiB).
const DATAGRAM: usize = 64 * 1024;
/// Bytes that wait in the kernel for us, before it overruns.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// The least that a message has.
const HEADER: usize = 16;
/// `linux/netlink.h`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A table that changes while it is read is read so often at most.
const DUMP_ATTEMPTS: usize = 5;
/// The kernel answers at once; an answer that is later than this was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of the kernel.
pub(super) type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A socket.
pub(super) struct Socket {
    socket: TokioSocket,
    sequence: u32,
    port: u32,
    buffer: Vec<u8>,
    dump: Option<Dump>,
    /// An event about a next-hop object came by.
    next_hops: bool,
}

/// A reading of a table.
struct Dump {
    request: RouteNetlinkMessage,
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
        Ok(Self {
            socket,
            sequence: 0,
            port: address.port_number(),
            buffer,
            dump: None,
            next_hops: false,
        })
    }

    /// The id by which the kernel names this socket in events that it caused.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// The messages of the next datagram; what cannot be read is left out. Can be cancelled.
    pub(super) async fn receive(&mut self) -> io::Result<Vec<Message>> {
        self.datagram().await?;
        self.next_hops |= wholes(&self.buffer).filter_map(message_type).any(is_of_next_hops);
        Ok(split(&self.buffer))
    }

    /// Whether an event about a next-hop object came since this was asked last.
    pub(super) fn heard_of_next_hops(&mut self) -> bool {
        std::mem::take(&mut self.next_hops)
    }

    async fn datagram(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.reserve(DATAGRAM);
        self.socket.recv_from(&mut self.buffer).await?;
        Ok(())
    }

    /// Begins to read a table; `request` names it.
    pub(super) async fn begin_dump(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
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
    pub(super) async fn next_of_dump(&mut self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
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
            table.extend(messages);
        }
        Ok(table)
    }

    /// Reads a small table whose messages `RouteNetlinkMessage` does not know: what follows their netlink header.
    pub(super) async fn raw_table(
        &mut self,
        kind: u16,
        request: &[u8],
    ) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(table) = self.raw_reading(kind, request).await? {
                return Ok(table);
            }
        }
        Err(changed_too_often())
    }

    /// `None`: the table changed meanwhile.
    async fn raw_reading(&mut self, kind: u16, request: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(HEADER + request.len()).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut datagram = vec![0; HEADER];
        header.emit(&mut datagram);
        datagram.extend_from_slice(request);
        self.socket.send_to(&datagram, &SocketAddr::new(0, 0)).await?;
        let (mut table, mut consistent) = (Vec::new(), true);
        loop {
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.datagram()).await;
            answer.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
            for (header, body) in pieces(&self.buffer) {
                if header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match (header.message_type, errno(body)) {
                    (NLMSG_DONE | NLMSG_ERROR, Some(error)) => return Err(error),
                    (NLMSG_DONE, None) => return Ok(consistent.then_some(table)),
                    (_, _) => table.push(body.to_vec()),
                }
            }
        }
    }

    /// Makes one request whose answer is one message.
    pub(super) async fn ask(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<RouteNetlinkMessage> {
        let sequence = self.send(&[(message, 0)]).await?;
        loop {
            for message in self.answer().await? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
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
            messages.into_iter().map(|(m, flags)| (m, flags | NLM_F_ACK)).collect();
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
    async fn end_of_dump(&mut self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
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
    async fn send(&mut self, messages: &[(RouteNetlinkMessage, u16)]) -> io::Result<u32> {
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
    // Those of next-hop objects are no news here: `heard_of_next_hops` has noted them.
    let known = |message: &&[u8]| !message_type(message).is_some_and(is_of_next_hops);
    for message in wholes(datagram).filter(known) {
        match Message::deserialize(message) {
            Ok(message) => messages.push(message),
            Err(error) => tracing::debug!(%error, "a netlink message cannot be read"),
        }
    }
    messages
}

/// Headers and bodies of a datagram's messages.
fn pieces(datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    wholes(datagram).filter_map(|whole| {
        let header = NetlinkHeader::parse(&NetlinkBuffer::new_checked(whole).ok()?).ok()?;
        Some((header, whole.get(HEADER..)?))
    })
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

fn message_type(whole: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*whole.get(4..)?.first_chunk()?))
}

fn is_of_next_hops(kind: u16) -> bool {
    kind == RTM_NEWNEXTHOP || kind == RTM_DELNEXTHOP
}

/// What the message of an end or of an error says went wrong.
fn errno(body: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*body.first_chunk()?);
    (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

fn changed_too_often() -> io::Error {
    let why = format!("the table changed during each of {DUMP_ATTEMPTS} readings");
    io::Error::new(io::ErrorKind::Interrupted, why)
}
