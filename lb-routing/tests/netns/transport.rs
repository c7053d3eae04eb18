//! Time to live, signatures and patience on real connections, between two of ours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_routing::{Md5Key, Reach, RouterHandle, State, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Router, config, eventually, in_namespace, ip, nft, peer};

const ONE: [&str; 2] = ["10.0.1.1", "2001:db8::1"];
const TWO: [&str; 2] = ["10.0.1.2", "2001:db8::2"];

fn key(text: &str) -> Transport {
    let md5 = Some(Md5Key::from_text(text.as_bytes()).unwrap());
    Transport { md5, ..Transport::default() }
}

fn reach(reach: Reach) -> Transport {
    Transport { reach, ..Transport::default() }
}

/// Two routers with sessions over IPv4 and IPv6 that each look upon the other one so.
async fn pair(first: &Transport, second: &Transport) -> (Router, Router) {
    for address in ONE.iter().chain(&TWO) {
        let length = if address.contains(':') { 128 } else { 32 };
        ip(&format!("addr add {address}/{length} dev lo"));
    }
    let router = async |asn, us: [&str; 2], them: [&str; 2], transport: &Transport| {
        let far_asn = if asn == 64512 { 64513 } else { 64512 };
        let port = if asn == 64512 { 1791 } else { 1790 };
        let peers = [0, 1].map(|family| peer(them[family], port, us[family], far_asn));
        let id: Ipv4Addr = us[0].parse().unwrap();
        let listen = if asn == 64512 { "0.0.0.0:1790" } else { "0.0.0.0:1791" };
        let mut config = config(asn, id, listen, peers.into());
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        config.transports = them.iter().map(|to| (address(to), transport.clone())).collect();
        Router::start(config).await
    };
    (router(64512, ONE, TWO, first).await, router(64513, TWO, ONE, second).await)
}

async fn all_are(handle: &RouterHandle, state: State) -> bool {
    handle.peers().await.iter().all(|peer| peer.state == state)
}

/// Both families' sessions.
async fn come_up(first: &Transport, second: &Transport) {
    let (one, two) = pair(first, second).await;
    eventually("sessions of both families are Established", async || {
        let (one, two) = (&one.handle, &two.handle);
        (all_are(one, State::Established).await && all_are(two, State::Established).await)
            .then_some(())
    })
    .await;
}

/// How often the kernel dropped a segment for this reason (`/proc/net/netstat`).
fn dropped(counter: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let place = names.split(' ').position(|name| name == counter);
        if let Some(value) = place.and_then(|place| values.split(' ').nth(place)) {
            return value.parse().unwrap();
        }
    }
    panic!("this kernel does not count {counter}");
}

#[test]
fn neighbours_with_the_same_key_talk() {
    in_namespace(async || come_up(&key("s3cret"), &key("s3cret")).await);
}

#[test]
fn neighbours_with_different_keys_do_not_talk() {
    in_namespace(async || {
        let (one, two) = pair(&key("s3cret"), &key("other")).await;
        // Each family, from each side.
        eventually("segments with a wrong signature are dropped", async || {
            (dropped("TCPMD5Failure") >= 4).then_some(())
        })
        .await;
        for router in [one, two] {
            let peers = router.handle.peers().await;
            assert!(peers.iter().all(|peer| peer.messages_received.total() == 0), "{peers:?}");
        }
    });
}

#[test]
fn a_neighbour_with_a_key_and_one_without_do_not_talk() {
    in_namespace(async || {
        let (one, two) = pair(&key("s3cret"), &Transport::default()).await;
        eventually("segments without a signature, and with one, are dropped", async || {
            (dropped("TCPMD5NotFound") >= 2 && dropped("TCPMD5Unexpected") >= 2).then_some(())
        })
        .await;
        for router in [one, two] {
            let peers = router.handle.peers().await;
            assert!(peers.iter().all(|peer| peer.messages_received.total() == 0), "{peers:?}");
        }
    });
}

#[test]
fn neighbours_within_the_bound_of_hops_talk() {
    in_namespace(async || {
        come_up(&reach(Reach::Secured(1)), &reach(Reach::Secured(3))).await;
    });
}

#[test]
fn neighbours_whose_time_to_live_is_one_talk_on_one_link() {
    in_namespace(async || come_up(&reach(Reach::Hops(1)), &reach(Reach::Hops(1))).await);
}

#[test]
fn packets_from_beyond_the_bound_of_hops_are_dropped() {
    in_namespace(async || {
        // As if it were two hops away from one who accepts one.
        let (one, two) = pair(&reach(Reach::Secured(1)), &reach(Reach::Hops(254))).await;
        eventually("packets that travelled too far are dropped", async || {
            (dropped("TCPMinTTLDrop") >= 2).then_some(())
        })
        .await;
        for router in [one, two] {
            let peers = router.handle.peers().await;
            assert!(peers.iter().all(|peer| peer.state != State::Established), "{peers:?}");
        }
    });
}

#[test]
fn a_connection_that_began_too_far_away_is_closed_before_a_byte() {
    in_namespace(async || {
        let mut far = peer("127.0.0.2", 1790, "127.0.0.1", 64513);
        far.passive = true;
        let id = Ipv4Addr::new(10, 0, 1, 1);
        let mut config = config(64512, id, "127.0.0.1:1790", vec![far]);
        let transport = reach(Reach::Secured(1));
        config.transports = HashMap::from([("127.0.0.2".parse().unwrap(), transport)]);
        let router = Router::start(config).await;
        let dial = async |ttl: u32| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket2::SockRef::from(&socket).set_ttl_v4(ttl).unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            socket.connect("127.0.0.1:1790".parse().unwrap()).await.unwrap()
        };
        let mut heard = [0; 19];
        dial(254).await.read_exact(&mut heard).await.unwrap_err();
        let mut near = dial(255).await;
        near.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard[18], 1, "an OPEN");
        near.shutdown().await.unwrap();
        assert_eq!(router.handle.peers().await.len(), 1);
    });
}

#[test]
fn a_neighbour_that_takes_nothing_loses_its_session_with_the_send_hold_timer() {
    in_namespace(async || {
        // So that the kernel's buffers do not swallow the routes.
        std::fs::write("/proc/sys/net/ipv4/tcp_wmem", "4096 16384 16384").unwrap();
        let mut stalled = peer("127.0.0.2", 1790, "127.0.0.1", 64513);
        stalled.passive = true;
        let id = Ipv4Addr::new(10, 0, 1, 1);
        let mut config = config(64512, id, "127.0.0.1:1790", vec![stalled]);
        let transport =
            Transport { send_hold_time: Duration::from_secs(2), ..Transport::default() };
        config.transports = HashMap::from([("127.0.0.2".parse().unwrap(), transport)]);
        let router = Router::start(config).await;
        let _stream = crate::peers::by_hand(1790).await;
        let first = u32::from(Ipv4Addr::new(100, 64, 0, 0));
        let prefixes = (first..first + 50_000).map(Ipv4Addr::from);
        let prefixes = prefixes.map(|address| IpAddr::from(address).into()).collect();
        router.handle.originate(prefixes).await;
        eventually("the session ends", async || {
            let peers = router.handle.peers().await;
            peers[0].last_error.contains("send hold timer expired").then_some(())
        })
        .await;
    });
}

#[test]
fn a_neighbour_that_acknowledges_nothing_loses_its_session_with_the_user_timeout() {
    in_namespace(async || {
        let user_timeout = Some(Duration::from_secs(2));
        let patience = Transport { user_timeout, ..Transport::default() };
        let (one, two) = pair(&patience, &patience).await;
        eventually("sessions of both families are Established", async || {
            let (one, two) = (&one.handle, &two.handle);
            (all_are(one, State::Established).await && all_are(two, State::Established).await)
                .then_some(())
        })
        .await;
        // The HoldTimer has 9 s.
        nft(
            "table inet lost { chain input { type filter hook input priority 0; meta l4proto tcp drop; }; }",
        );
        one.handle.originate(vec!["192.0.2.10/32".parse().unwrap()]).await;
        let mut ended = [false; 2];
        eventually("both sessions have ended by the time-out", async || {
            for (ended, peer) in ended.iter_mut().zip(one.handle.peers().await) {
                *ended |= peer.last_error.contains("timed out") && peer.state == State::Idle;
            }
            (ended == [true; 2]).then_some(())
        })
        .await;
    });
}
