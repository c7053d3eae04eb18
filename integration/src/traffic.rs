//! HTTP clients inside a node, and what they saw.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;

/// How long one request may take, connect included.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How long a transfer may stand still: longer than TCP's retransmissions back off while the balancer restarts.
const STALL_WITHIN: Duration = Duration::from_secs(40);
/// How long a datagram may be away, and how often it is sent.
const DATAGRAM_WITHIN: Duration = Duration::from_secs(1);
const DATAGRAM_TRIES: usize = 20;
const MAX_DATAGRAM: usize = 65_535;
/// A block of `GET /stream/...`.
const BLOCK: usize = 1024;

/// How requests were spread.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Answers by the name that the pod gave.
    pub pods: BTreeMap<String, u32>,
    /// Why requests failed, each.
    pub failures: Vec<String>,
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pod, count) in &self.pods {
            write!(f, "{pod} {count}, ")?;
        }
        write!(f, "failures {}", self.failures.len())?;
        if let Some(first) = self.failures.first() {
            write!(f, " (the first: {first})")?;
        }
        Ok(())
    }
}

impl Spread {
    /// Whether nothing failed, `pods` pods answered, and each of them between `least` and `most` times.
    pub fn expect(&self, pods: usize, least: u32, most: u32) -> Result<()> {
        ensure!(
            self.failures.is_empty()
                && self.pods.len() == pods
                && self.pods.values().all(|count| (least..=most).contains(count)),
            "expected {pods} pods with {least} to {most} answers each and no failures, saw: {self}"
        );
        Ok(())
    }
}

/// Sends requests one after the other, each on a connection of its own.
pub fn requests(from: &Netns, to: SocketAddr, count: u32) -> Result<Spread> {
    from.within(|| {
        let mut spread = Spread::default();
        for number in 0..count {
            match pod_name(to) {
                Ok(pod) => *spread.pods.entry(pod).or_default() += 1,
                Err(error) => spread.failures.push(format!("request {number}: {error:#}")),
            }
        }
        spread
    })
}

/// One request; the name that the pod gave.
pub fn request(from: &Netns, to: SocketAddr) -> Result<String> {
    from.within(|| pod_name(to))?
}

/// The address that a pod sees a request come from.
pub fn seen_as(from: &Netns, to: SocketAddr) -> Result<String> {
    from.within(|| ask(to, "/source"))?
}

fn pod_name(to: SocketAddr) -> Result<String> {
    ask(to, "/")
}

fn ask(to: SocketAddr, path: &str) -> Result<String> {
    let mut stream = connect(to, path, REQUEST_WITHIN)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("cannot read the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut short")?;
    ensure!(head.contains(" 200 "), "the answer is {head}");
    Ok(body.trim().to_owned())
}

fn connect(to: SocketAddr, path: &str, patience: Duration) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, REQUEST_WITHIN).context("cannot connect")?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let question = format!("GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n");
    stream.write_all(question.as_bytes()).context("cannot send")?;
    Ok(stream)
}

/// Fetches `blocks` blocks at a bounded rate and checks every byte; `progress` hears after each block how many came, and
/// may break the transfer off.
pub fn transfer(
    from: &Netns,
    to: SocketAddr,
    blocks: usize,
    per_second: usize,
    progress: impl Fn(usize) -> ControlFlow<()> + Sync,
) -> Result<()> {
    from.within(|| {
        let mut stream = connect(to, &format!("/stream/{blocks}/{per_second}"), STALL_WITHIN)?;
        skip_head(&mut stream)?;
        let mut block = [0; BLOCK];
        for number in 0..blocks {
            stream
                .read_exact(&mut block)
                .with_context(|| format!("the transfer broke at block {number} of {blocks}"))?;
            let right = format!("{number:08}").repeat(BLOCK / 8);
            if block != right.as_bytes() {
                bail!("block {number} of the transfer has other bytes than were sent");
            }
            if progress(number + 1).is_break() {
                return Ok(());
            }
        }
        ensure!(stream.read(&mut block)? == 0, "more came than was asked for");
        Ok(())
    })?
}

/// Says so many bytes on a connection to whoever says them back once all are there, and checks every one.
pub fn there_and_back(from: &Netns, to: SocketAddr, bytes: usize) -> Result<()> {
    // Each place of it differs from those a segment further.
    let said: Vec<u8> = (0..bytes.div_ceil(4) as u32).flat_map(u32::to_be_bytes).collect();
    let heard = from.within(|| -> Result<Vec<u8>> {
        let mut stream =
            TcpStream::connect_timeout(&to, REQUEST_WITHIN).context("cannot connect")?;
        stream.set_read_timeout(Some(STALL_WITHIN))?;
        stream.set_write_timeout(Some(STALL_WITHIN))?;
        stream.write_all(&said).context("cannot send")?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = Vec::with_capacity(said.len());
        stream.read_to_end(&mut heard).context("the way back ends early")?;
        Ok(heard)
    })??;
    ensure!(heard == said, "{} other bytes came back", heard.len());
    Ok(())
}

/// Sends a datagram and waits for it to come back; it is sent again like a resolver's question, since datagrams get lost.
pub fn echo(from: &Netns, to: SocketAddr, payload: &[u8]) -> Result<()> {
    from.within(|| {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).context("cannot bind")?;
        socket.connect(to).context("cannot connect")?;
        socket.set_read_timeout(Some(DATAGRAM_WITHIN))?;
        let mut back = vec![0; MAX_DATAGRAM];
        for _ in 0..DATAGRAM_TRIES {
            socket.send(payload).context("cannot send")?;
            match socket.recv(&mut back) {
                Ok(len) => {
                    ensure!(back[..len] == *payload, "{len} other bytes came back");
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("no datagram came back"),
            }
        }
        bail!("no datagram came back")
    })?
}

fn skip_head(stream: &mut TcpStream) -> Result<()> {
    const MAX_HEAD: usize = 4096;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "the answer's header has no end");
        stream.read_exact(&mut byte).context("the answer's header is cut short")?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.contains(" 200 "), "the answer is {head}");
    Ok(())
}

/// Packets that a node's kernel has forwarded (`Ip: ForwDatagrams` of `/proc/net/snmp`).
pub fn forwarded_by_kernel(node: &Netns) -> Result<u64> {
    // The file of the thread: `/proc/net` is that of the process, which is in another namespace.
    let text = node.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = lines.next().zip(lines.next()).context("no Ip: lines in snmp")?;
    let column = names.split(' ').position(|name| name == "ForwDatagrams");
    let value = column.and_then(|column| values.split(' ').nth(column));
    let v4: u64 = value.and_then(|value| value.parse().ok()).context("no ForwDatagrams in snmp")?;
    let text = node.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp6"))??;
    let value = text.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    let v6: u64 = value
        .and_then(|value| value.trim().parse().ok())
        .context("no Ip6OutForwDatagrams in snmp6")?;
    Ok(v4 + v6)
}
