//! The light ends: feeders that send what was encoded before, sinks that count prefixes and do nothing else.
//!
//! With hold time 0 neither keepalives nor timers cost anything.

mod crowd;
mod sink;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6};

pub(crate) use self::crowd::Crowd;
pub(crate) use self::sink::{Heard, STAMP, sink};
use crate::network::{Family, end};
use crate::peer::{Layout, PATIENCE, asn_of};

pub(super) const HEADER: usize = 19;
const TRIES: Duration = Duration::from_secs(60);
/// Octets that are written at once.
const PIECE: usize = 1 << 20;
/// Ends that connect at the same time.
const HANDS: usize = 16;

/// An established session.
pub(crate) struct Session(pub(super) TcpStream);

impl Session {
    /// Connects as an end, until the peer takes the session.
    pub(crate) fn open(layout: &Layout, number: u16) -> Result<Self> {
        let deadline = Instant::now() + TRIES;
        loop {
            match Self::try_open(layout, number) {
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("no session of end {number}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
                Ok(session) => return Ok(session),
            }
        }
    }

    /// Opens all of a layout, many at a time, in order.
    pub(crate) fn open_all(layout: &Layout) -> Result<Vec<Self>> {
        let numbers: Vec<u16> = layout.ends().map(|(number, _)| number).collect();
        let portions = numbers.chunks(numbers.len().div_ceil(HANDS).max(1));
        thread::scope(|scope| {
            let hands: Vec<_> = portions
                .map(|portion| {
                    scope.spawn(|| -> Result<Vec<Self>> {
                        portion.iter().map(|&number| Self::open(layout, number)).collect()
                    })
                })
                .collect();
            let mut sessions = Vec::new();
            for hand in hands {
                sessions.extend(hand.join().ok().context("an end panicked")??);
            }
            Ok(sessions)
        })
    }

    fn try_open(layout: &Layout, number: u16) -> Result<Self> {
        let (from, to) = (layout.family.end(number), layout.family.peer());
        let [from, to] = [SocketAddr::new(from, 0), SocketAddr::new(to, 179)];
        let family = match layout.family {
            Family::Four => AddressFamily::Inet,
            Family::Six => AddressFamily::Inet6,
        };
        let fd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let stream = TcpStream::from(fd);
        let raw = stream.as_raw_fd();
        match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                socket::bind(raw, &SockaddrIn::from(from))?;
                socket::connect(raw, &SockaddrIn::from(to))?;
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                socket::bind(raw, &SockaddrIn6::from(from))?;
                socket::connect(raw, &SockaddrIn6::from(to))?;
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => unreachable!("both are of one family"),
        }
        stream.set_read_timeout(Some(TRIES))?;
        Self::greet(stream, number, layout.hold_time_secs)
    }

    /// OPEN and KEEPALIVE both ways.
    pub(crate) fn greet(mut stream: TcpStream, number: u16, hold_time_secs: u16) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(&open(number, hold_time_secs))?;
        expect(&mut stream, 1)?;
        stream.write_all(&message(4, &[]))?;
        expect(&mut stream, 4)?;
        Ok(Self(stream))
    }

    /// Sends everything.
    pub(crate) fn feed(&mut self, updates: &[u8]) -> Result<()> {
        self.0.write_all(updates).context("the peer under test hung up on its feeder")
    }

    /// Sends everything, of something that has begun then and may not take for ever.
    pub(crate) fn feed_since(&mut self, start: Instant, updates: &[u8]) -> Result<()> {
        self.0.set_write_timeout(Some(PATIENCE))?;
        for piece in updates.chunks(PIECE) {
            ensure!(
                start.elapsed() < PATIENCE,
                "the peer under test does not read within {PATIENCE:?}"
            );
            self.feed(piece)?;
        }
        Ok(())
    }

    /// The same session, to be written to while it is read.
    pub(crate) fn twin(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn keep_alive(&mut self) -> Result<()> {
        self.feed(&message(4, &[]))
    }

    /// Ends the session as a crash does: without a word.
    pub(crate) fn lose(self) -> Result<()> {
        Ok(self.0.shutdown(std::net::Shutdown::Both)?)
    }
}

/// IPv4 and IPv6 unicast, and four-octet AS numbers.
fn open(number: u16, hold_time_secs: u16) -> Vec<u8> {
    let asn = asn_of(number);
    let mut body = vec![4];
    body.extend(u16::try_from(asn).unwrap_or(23456).to_be_bytes());
    body.extend(hold_time_secs.to_be_bytes());
    body.extend(end(number).octets());
    body.extend([20, 2, 18, 1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 65, 4]);
    body.extend(asn.to_be_bytes());
    message(1, &body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

fn expect(stream: &mut TcpStream, kind: u8) -> Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; len.saturating_sub(HEADER)];
    stream.read_exact(&mut body)?;
    ensure!(header[18] == kind, "a message of type {} instead of {kind}: {body:?}", header[18]);
    Ok(())
}

/// The address as a socket sees it; for who listens instead of connecting.
pub(crate) fn any_port(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
