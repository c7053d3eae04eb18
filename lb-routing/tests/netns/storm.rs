//! Neighbours, and strangers, that open far too many connections: one session at most comes of it, and nobody else notices.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lb_routing::{RouterHandle, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::lab::{Router, config, eventually, in_namespace, ip, peer, rounds};

const OPEN: [u8; 29] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0, 29, 1, 4, 0xfc, 0x01, 0, 90, 10, 0, 1, 2, 0,
];
const KEEPALIVE: [u8; 19] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0, 19, 4,
];

/// A connection to our router at 127.0.0.1:1790.
async fn dial(from: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse().unwrap())?;
    socket.connect("127.0.0.1:1790".parse().unwrap()).await
}

/// Speaks BGP as far as a session needs it; returns when the connection has ended.
async fn speak(mut stream: TcpStream) {
    if stream.write_all(&OPEN).await.is_err() {
        return;
    }
    let mut header = [0; 19];
    while stream.read_exact(&mut header).await.is_ok() {
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length - header.len()];
        if stream.read_exact(&mut body).await.is_err() || header[18] == 3 {
            return;
        }
        if header[18] == 1 && stream.write_all(&KEEPALIVE).await.is_err() {
            return;
        }
    }
}

/// A router with the neighbour 127.0.0.2, played by hand, and the neighbour 10.0.1.2: another router.
async fn two_routers() -> (Router, Router) {
    ip("addr add 10.0.1.1/32 dev lo");
    ip("addr add 10.0.1.2/32 dev lo");
    let mut wild = peer("127.0.0.2", 1791, "127.0.0.1", 64513);
    wild.passive = true;
    let tame = peer("10.0.1.2", 1792, "10.0.1.1", 64514);
    let to_us = peer("10.0.1.1", 1790, "10.0.1.2", 64512);
    let id = |last| Ipv4Addr::new(10, 0, 1, last);
    let router = Router::start(config(64512, id(1), "0.0.0.0:1790", vec![wild, tame])).await;
    let mut second = config(64514, id(3), "10.0.1.2:1792", vec![to_us]);
    second.forward = false;
    let second = Router::start(second).await;
    eventually("the tame neighbour's session", async || {
        (router.handle.peers().await[1].state == State::Established).then_some(())
    })
    .await;
    (router, second)
}

/// The tame neighbour's session is the same as before, and routes go over it.
async fn nothing_happened(router: &Router, second: &RouterHandle, since: Instant) {
    let vip = "192.0.2.77/32".parse().unwrap();
    router.handle.originate(vec![vip]).await;
    eventually("a route reaches the tame neighbour", async || {
        second.routes().await.iter().any(|path| path.prefix == vip).then_some(())
    })
    .await;
    let tame = &router.handle.peers().await[1];
    assert_eq!((tame.state, tame.since), (State::Established, since), "{}", tame.last_error);
}

#[test]
fn of_200_connections_that_all_open_at_once_one_session_is_left() {
    in_namespace(async || {
        let mut to_us = peer("127.0.0.2", 1791, "127.0.0.1", 64513);
        to_us.restart_time = None;
        let listener = TcpListener::bind("127.0.0.2:1791").await.unwrap();
        let us = config(64512, Ipv4Addr::new(10, 0, 1, 1), "127.0.0.1:1790", vec![to_us]);
        for round in 0..rounds(3, 50) {
            let (router, _apart) = Router::start_apart(us.clone()).await;
            let mut talking = JoinSet::new();
            for _ in 0..200 {
                talking.spawn(async {
                    if let Ok(stream) = dial("127.0.0.2").await {
                        speak(stream).await;
                    }
                });
            }
            // Ours comes between theirs, or is given up for one of them.
            if let Ok(accepted) =
                tokio::time::timeout(Duration::from_secs(2), listener.accept()).await
            {
                talking.spawn(speak(accepted.unwrap().0));
            }
            eventually("all but one have ended", async || {
                while talking.try_join_next().is_some() {}
                (talking.len() <= 1).then_some(())
            })
            .await;
            // Where a storm left none, as the last ones displaced each other, our own attempts bring one.
            eventually(&format!("round {round}: one session"), async || {
                if let Ok(accepted) =
                    tokio::time::timeout(Duration::from_millis(10), listener.accept()).await
                {
                    talking.spawn(speak(accepted.unwrap().0));
                }
                while talking.try_join_next().is_some() {}
                let peers = router.handle.peers().await;
                (peers[0].state == State::Established && talking.len() == 1).then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_thousand_connections_that_say_nothing_cost_nobody_anything() {
    in_namespace(async || {
        let (router, second) = two_routers().await;
        let since = router.handle.peers().await[1].since;
        // Half of a neighbour, of which one at most is kept; half of a stranger, all of which are closed.
        let mut silent = Vec::new();
        for from in ["127.0.0.2", "127.0.0.3"] {
            for _ in 0..500 {
                silent.push(dial(from).await.unwrap());
            }
        }
        let mut left = silent.len();
        let deadline = Instant::now() + crate::lab::DEADLINE;
        while left > 1 {
            assert!(Instant::now() < deadline, "{left} connections are open");
            tokio::time::sleep(Duration::from_millis(20)).await;
            silent.retain(|stream| !has_ended(stream));
            left = silent.len();
        }
        nothing_happened(&router, &second.handle, since).await;
    });
}

/// Reads whatever there is; whether that was all.
fn has_ended(stream: &TcpStream) -> bool {
    let mut buffer = [0; 256];
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_neighbour_that_reconnects_in_a_loop_rests_and_harms_nobody() {
    in_namespace(async || {
        let (router, second) = two_routers().await;
        let since = router.handle.peers().await[1].since;
        let mut opened = 0;
        for _ in 0..rounds(300, 3000) {
            let Ok(mut stream) = dial("127.0.0.2").await else { continue };
            let _refused = stream.write_all(&OPEN).await;
            let _refused = stream.write_all(&KEEPALIVE).await;
            let mut header = [0; 19];
            // Ends: with a message, or with the connection.
            opened += usize::from(stream.read_exact(&mut header).await.is_ok());
        }
        // The rest after each failure doubles, so few of them get as far as an OPEN.
        assert!((1..50).contains(&opened), "{opened} were answered");
        nothing_happened(&router, &second.handle, since).await;
    });
}
