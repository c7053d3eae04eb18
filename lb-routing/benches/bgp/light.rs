//! The light ends: a feeder that sends what was encoded before, a sink that counts prefixes and does nothing else.
//!
//! They speak no more BGP than an OPEN with hold time 0, so that neither keepalives nor timers cost anything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

const HEADER: usize = 19;
const TRIES: Duration = Duration::from_secs(60);

/// An established session.
pub(crate) struct Session(TcpStream);

impl Session {
    /// Connects from an address, as that AS, until the peer takes the session.
    pub(crate) fn open(from: Ipv4Addr, asn: u32, to: SocketAddr) -> Result<Self> {
        let deadline = Instant::now() + TRIES;
        loop {
            match Self::try_open(from, asn, to) {
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("no session from {from} to {to}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
                Ok(session) => return Ok(session),
            }
        }
    }

    fn try_open(from: Ipv4Addr, asn: u32, to: SocketAddr) -> Result<Self> {
        let SocketAddr::V4(to) = to else { bail!("not an IPv4 address: {to}") };
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        let socket = TcpStream::from(fd);
        socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &SockaddrIn::from(std::net::SocketAddrV4::new(from, 0)),
        )?;
        socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(to))?;
        Self::greet(socket, from, asn)
    }

    /// OPEN and KEEPALIVE both ways.
    pub(crate) fn greet(mut stream: TcpStream, router_id: Ipv4Addr, asn: u32) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.write_all(&open(router_id, asn))?;
        expect(&mut stream, 1)?;
        stream.write_all(&message(4, &[]))?;
        expect(&mut stream, 4)?;
        Ok(Self(stream))
    }

    /// Sends everything.
    pub(crate) fn feed(&mut self, updates: &[u8]) -> Result<()> {
        self.0.write_all(updates).context("the peer under test hung up on its feeder")
    }

    /// Ends the session as a crash does: without a word.
    pub(crate) fn lose(self) -> Result<()> {
        Ok(self.0.shutdown(std::net::Shutdown::Both)?)
    }
}

/// What a sink has heard since it began.
#[derive(Default)]
pub(crate) struct Heard {
    announced: AtomicU64,
    withdrawn: AtomicU64,
}

impl Heard {
    pub(crate) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    pub(crate) fn withdrawn(&self) -> u64 {
        self.withdrawn.load(Ordering::Acquire)
    }
}

/// Counts in a thread of its own until the session ends.
pub(crate) fn sink(session: Session) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    let counting = Arc::clone(&heard);
    thread::spawn(move || {
        // The end of the session ends the count; who waits for more has a deadline.
        let _ended = count(session.0, &counting);
    });
    heard
}

fn count(mut stream: TcpStream, heard: &Heard) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    // Ends: with the stream.
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        ensure!(read > 0, "the peer under test hung up on its sink");
        filled += read;
        let (mut at, mut announced, mut withdrawn) = (0, 0, 0);
        while filled - at >= HEADER {
            let len = usize::from(u16::from_be_bytes([buffer[at + 16], buffer[at + 17]]));
            if filled - at < len {
                break;
            }
            if buffer[at + 18] == 2 {
                let (come, go) = prefixes(&buffer[at + HEADER..at + len]);
                announced += come;
                withdrawn += go;
            }
            at += len;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        heard.announced.fetch_add(announced, Ordering::Release);
        heard.withdrawn.fetch_add(withdrawn, Ordering::Release);
    }
}

/// Prefixes in the two classic fields of an UPDATE's body.
fn prefixes(body: &[u8]) -> (u64, u64) {
    let counted = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let withdrawn = 2 + counted(0);
    let attributes = withdrawn + 2 + counted(withdrawn);
    (entries(&body[attributes..]), entries(&body[2..withdrawn]))
}

fn entries(mut field: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((&len, rest)) = field.split_first() {
        field = &rest[usize::from(len).div_ceil(8)..];
        count += 1;
    }
    count
}

/// IPv4 unicast and four-octet AS numbers.
fn open(router_id: Ipv4Addr, asn: u32) -> Vec<u8> {
    let short = u16::try_from(asn).unwrap_or(23456);
    let mut body = vec![4];
    body.extend(short.to_be_bytes());
    body.extend([0, 0]);
    body.extend(router_id.octets());
    body.extend([14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4]);
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
