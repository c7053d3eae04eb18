//! What is wrong is refused by one clear answer, and nothing else changes.

mod vips;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;
use lb_api_types::peer::{BgpPeer, PeerOptions, PeerSpec};
use lb_api_types::resource::Tags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use crate::hello::{Hello, Holds, SOON};

const OPEN: u8 = 1;
const NOTIFICATION: u8 = 3;
const HEADER: usize = 19;

/// A neighbour that only the test plays, at an address of the upstream router's second interface.
fn played(address: Ipv4Addr) -> BgpPeer {
    let options = PeerOptions {
        asn: Some(65009),
        passive: Some(true),
        hold_time_secs: Some(30),
        connect_retry_secs: Some(1),
        import: Some("all".into()),
        ..PeerOptions::default()
    };
    let name = Some(format!("played-{address}"));
    let tags = Tags::default();
    BgpPeer { name, tags, spec: PeerSpec { address: address.into(), group: None, options } }
}

fn dial(from: Ipv4Addr) -> Result<TcpStream> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 179);
    connect(fd.as_raw_fd(), &SockaddrIn::from(to)).context("lbd does not listen")?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// The next message's type and body (RFC 4271 §4.1).
fn read_message(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).context("no message came")?;
    ensure!(header[..16] == [0xff; 16], "lbd's own marker is wrong");
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.checked_sub(HEADER).context("lbd's own message is short")?];
    stream.read_exact(&mut body)?;
    Ok((header[18], body))
}

/// Sends bytes in place of an OPEN; the NOTIFICATION's code, subcode and data.
fn answer_to(from: Ipv4Addr, bytes: &[u8]) -> Result<(u8, u8, Vec<u8>)> {
    let mut stream = dial(from)?;
    let (kind, _) = read_message(&mut stream)?;
    ensure!(kind == OPEN, "lbd began with a message of type {kind}");
    stream.write_all(bytes)?;
    let (kind, body) = read_message(&mut stream)?;
    ensure!(kind == NOTIFICATION, "lbd answered with a message of type {kind}");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(0) => {}
        Ok(_) => bail!("lbd goes on after its NOTIFICATION: {rest:?}"),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error).context("lbd leaves the connection open"),
    }
    let [code, subcode, data @ ..] = body.as_slice() else { bail!("the NOTIFICATION is empty") };
    Ok((*code, *subcode, data.to_vec()))
}

fn header(marker: u8, length: u16, kind: u8) -> Vec<u8> {
    let mut bytes = vec![marker; 16];
    bytes.extend(length.to_be_bytes());
    bytes.push(kind);
    bytes
}

#[test]
fn a_bgp_peer_that_sends_garbage_gets_the_right_notification_and_disturbs_nobody() {
    // RFC 4271 §6.1: code 1; subcode 1 not synchronised, 2 bad length with the length, 3 bad type with the type.
    let cases = [
        ("a bad marker", Ipv4Addr::new(192, 0, 2, 9), header(0xfe, 29, OPEN), 1, Vec::new()),
        ("a short message", Ipv4Addr::new(192, 0, 2, 10), header(0xff, 18, OPEN), 2, vec![0, 18]),
        ("an unknown type", Ipv4Addr::new(192, 0, 2, 11), header(0xff, 19, 77), 3, vec![77]),
    ];
    let addresses = cases.each_ref().map(|case| case.1);
    let hello = Hello::up_with(Hook::Tc, move |config| {
        config.bgp.peers.extend(addresses.map(played));
    });
    let before = hello.api.peers().holds();
    for (what, from, bytes, subcode, data) in cases {
        hello.lab.run("upstream", &format!("ip addr add {from}/28 dev eth2")).holds();
        let upstream = hello.lab.netns("upstream").holds();
        let answer = eventually(&format!("lbd answers {what}"), SOON, || {
            upstream.within(|| answer_to(from, &bytes))?
        })
        .holds();
        assert_eq!(answer, (1, subcode, data), "{what}");
    }
    assert!(hello.lab.runs("lbd", "lbd"), "lbd has ended");
    for peer in before.iter().filter(|peer| peer.state == "Established") {
        let now = hello.api.peers().holds().into_iter().find(|now| now.name == peer.name);
        let now = now.expect("the peer is still there");
        assert_eq!(now.state, "Established", "{now:?}");
        assert!(now.since_secs >= peer.since_secs, "its session began anew: {now:?}");
    }
    hello.create_vip();
    hello.upstream_routes_the_vip();
}
