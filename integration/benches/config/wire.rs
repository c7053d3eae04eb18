//! From a VIP in a request to the UPDATE that tells two hundred neighbours of it (target P11).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use integration::lab::Lab;
use integration::wait::eventually;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use serde_json::json;

use crate::changes::high;
use crate::report::Series;
use crate::{PORT, READY_WITHIN, say};

/// Neighbours.
const NEIGHBOURS: u8 = 200;
/// Rounds; each gives its 99th percentile.
const ROUNDS: u8 = 5;
/// VIPs that come in a round.
const VIPS: u8 = 100;
const HEARD_WITHIN: Duration = Duration::from_secs(10);
const HEADER: usize = 19;
const LBD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// Which VIP is waited for, how many have heard of it, and when the last one did.
type Heard = (Mutex<(Ipv4Addr, usize, Instant)>, Condvar);

/// VIPs come, one after the other: milliseconds from the request until the last neighbour has its UPDATE.
pub(crate) fn of_new_vips(lab: &Lab) -> Result<Series> {
    let sessions = neighbours(lab)?;
    let heard: Arc<Heard> =
        Arc::new((Mutex::new((Ipv4Addr::UNSPECIFIED, 0, Instant::now())), Condvar::new()));
    let hearing = Arc::clone(&heard);
    // Ends with the sessions, which end with lbd.
    thread::spawn(move || listen(sessions, &hearing));
    let mut all = Series::default();
    for round in 0..ROUNDS {
        say(&format!("new VIPs to {NEIGHBOURS} neighbours, round {} of {ROUNDS}", round + 1));
        let times = (0..VIPS).map(|n| one(lab, Ipv4Addr::new(100, 66, round, n), &heard));
        all.push(high(times.collect::<Result<_>>()?));
    }
    Ok(all)
}

/// One VIP, to the last neighbour.
fn one(lab: &Lab, address: Ipv4Addr, heard: &Heard) -> Result<Duration> {
    let name = format!("wire-{}", address.to_string().replace('.', "-"));
    let body = json!({
        "metadata": {"name": name},
        "spec": {
            "address": address, "port": 80, "health_check": {"kind": "none"},
            "backends": [{"address": "10.3.0.1", "port": PORT}],
        },
    });
    let start = Instant::now();
    *heard.0.lock().unwrap_or_else(PoisonError::into_inner) = (address, 0, start);
    let answer = lab.api().try_put_vip(&name, &body)?;
    ensure!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    let waiting = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
    let all = |(_, count, _): &mut (Ipv4Addr, usize, Instant)| *count < usize::from(NEIGHBOURS);
    let (told, waited) = heard
        .1
        .wait_timeout_while(waiting, HEARD_WITHIN, all)
        .unwrap_or_else(PoisonError::into_inner);
    ensure!(!waited.timed_out(), "{} of {NEIGHBOURS} have heard of {address}", told.1);
    Ok(told.2 - start)
}

/// Two hundred of them, established.
fn neighbours(lab: &Lab) -> Result<Vec<TcpStream>> {
    let client = lab.netns("client")?;
    for number in 1..=NEIGHBOURS {
        let address = end(number);
        let with_length = format!("{address}/24");
        let arguments = ["addr", "add", &with_length, "dev", "eth1"];
        let added = client.within(|| Command::new("ip").args(arguments).status())??;
        ensure!(added.success(), "{address} cannot be added");
        let spec = json!({
            "address": address, "asn": 65000 + u32::from(number), "passive": true, "export": "vips",
            "hold_time_secs": 0,
        });
        let body = json!({ "metadata": {"name": format!("wire-{number}")}, "spec": spec });
        let path = format!("bgp/peers/wire-{number}");
        let answer = lab.api().request("PUT", &path, Some(&body.to_string()))?;
        ensure!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    }
    let open =
        |number| eventually("a session", READY_WITHIN, || client.within(|| establish(number))?);
    (1..=NEIGHBOURS).map(open).collect()
}

const fn end(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 20 + number)
}

fn establish(number: u8) -> Result<TcpStream> {
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let mut stream = TcpStream::from(fd);
    let [a, b, c, d] = end(number).octets();
    socket::bind(stream.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    let [a, b, c, d] = LBD.octets();
    socket::connect(stream.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 179))?;
    stream.set_read_timeout(Some(HEARD_WITHIN))?;
    stream.set_nodelay(true)?;
    let asn = (65000 + u16::from(number)).to_be_bytes();
    let open = [&[4][..], &asn, &[0, 0], &end(number).octets(), &[0]].concat();
    stream.write_all(&message(1, &open))?;
    stream.write_all(&message(4, &[]))?;
    for expected in [1, 4] {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let mut body = vec![0; length(&header).saturating_sub(HEADER)];
        stream.read_exact(&mut body)?;
        ensure!(header[18] == expected, "a message of type {}: {body:?}", header[18]);
    }
    Ok(stream)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

fn length(header: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([header[16], header[17]]))
}

fn listen(mut sessions: Vec<TcpStream>, heard: &Heard) -> Result<()> {
    let mut buffers: Vec<Vec<u8>> = sessions.iter().map(|_| Vec::new()).collect();
    loop {
        let mut fds: Vec<_> =
            sessions.iter().map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        drop(fds);
        for (place, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            let mut chunk = [0; 4096];
            let read = sessions[place].read(&mut chunk)?;
            ensure!(read > 0, "lbd hung up on a neighbour");
            buffers[place].extend(&chunk[..read]);
            take(&mut buffers[place], heard).context("a neighbour heard no BGP")?;
        }
    }
}

/// Looks at the whole messages of a buffer.
fn take(buffer: &mut Vec<u8>, heard: &Heard) -> Result<()> {
    while buffer.len() >= HEADER && buffer.len() >= length(buffer) {
        ensure!(length(buffer) >= HEADER, "a message of {} octets", length(buffer));
        let rest = buffer.split_off(length(buffer));
        let message = std::mem::replace(buffer, rest);
        let mut told = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The NLRI field is the last one, and one VIP comes at a time.
        let prefix = [&[32][..], &told.0.octets()].concat();
        if message[18] == 2 && message.ends_with(&prefix) {
            told.1 += 1;
            told.2 = Instant::now();
            heard.1.notify_one();
        }
    }
    Ok(())
}
