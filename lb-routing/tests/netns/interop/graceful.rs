//! Graceful restart with either side ending as by `kill -9` (RFC 4724): nobody else notices.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lb_routing::{PeerConfig, RouterConfig, State};
use tokio::net::TcpStream;

use super::{Kind, Wish, third_neighbour};
use crate::far::Far;
use crate::lab::{Apart, DEADLINE, Router, config, eventually, ip, peer, veth};

/// A route that is not withdrawn for so long after its origin is gone is kept.
const OUTAGE: Duration = Duration::from_secs(1);

struct Restarting {
    kind: &'static dyn Kind,
    wish: Wish,
    far: Far,
    us: RouterConfig,
    router: Router,
    /// Keeps the router.
    apart: Option<Apart>,
}

impl Restarting {
    async fn start(kind: &'static dyn Kind) -> Self {
        let wish = Wish { graceful: true, ..Wish::default() };
        veth("lbr0", "10.0.0.1/24");
        let far = Far::start(&["10.0.0.2/24"], &kind.files(wish), &kind.command(wish));
        let mut third = peer("10.0.9.2", 179, "10.0.9.1", 64514);
        third.passive = true;
        let to_far = PeerConfig {
            hold_time: Duration::from_secs(240),
            ..peer(wish.them(), 179, wish.us(), 64513)
        };
        let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "0.0.0.0:179", vec![to_far, third]);
        let (router, apart) = Router::start_apart(us.clone()).await;
        router.handle.originate(vec![wish.ours().parse().unwrap()]).await;
        let this = Self { kind, wish, far, us, router, apart: Some(apart) };
        this.let_announce().await;
        this
    }

    async fn let_announce(&self) {
        let Some(command) = self.kind.announce(self.wish) else { return };
        eventually("the daemon takes commands", async || {
            self.far.run(&format!("({command}) && echo done")).ends_with("done\n").then_some(())
        })
        .await;
    }

    /// Its route is there, and marked or not, with the session as this says.
    async fn learned(&self, stale: bool, up: bool) {
        let wanted = self.wish.theirs().parse().unwrap();
        let mut last = String::new();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (routes, peers) =
                (self.router.handle.routes().await, self.router.handle.peers().await);
            let found = routes.iter().find(|path| path.prefix == wanted).map(|path| path.stale);
            let state = (peers[0].state == State::Established, peers[0].stale_until.is_some());
            if found == Some(stale) && state == (up, stale) {
                return;
            }
            assert!(Instant::now() < deadline, "{stale}, {up}: {last}");
            last = format!("{found:?} {:?}", peers[0]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the daemon has our route.
    fn has_ours(&self) -> bool {
        let shown = self.far.run(&self.kind.show(self.wish, self.wish.ours()));
        shown.contains("64512")
    }
}

/// What a third neighbour hears until it is quiet: how many UPDATEs withdraw something.
async fn withdrawals(stream: &TcpStream) -> usize {
    let (mut heard, mut count) = (Vec::new(), 0);
    while let Ok(Ok(())) = tokio::time::timeout(OUTAGE, stream.readable()).await {
        let mut buffer = [0; 4096];
        match stream.try_read(&mut buffer) {
            Ok(0) => panic!("the third neighbour's session ended"),
            Ok(read) => heard.extend_from_slice(&buffer[..read]),
            Err(_would_block) => {}
        }
    }
    let mut rest = &heard[..];
    while let Some(length) = rest.get(16..18) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        count += usize::from(rest[18] == 2 && length > 23 && rest[19..21] != [0, 0]);
        rest = &rest[length..];
    }
    count
}

pub(super) async fn graceful_restart(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    let mut pair = Restarting::start(kind).await;
    pair.learned(false, true).await;
    eventually("it has our route", async || pair.has_ours().then_some(())).await;
    let third = third_neighbour(64514).await;
    assert_eq!(withdrawals(&third).await, 0);

    if kind.restarts() {
        pair.far.kill();
        pair.learned(true, false).await;
        let route = crate::lab::ip("route show proto 179");
        assert!(route.contains(pair.wish.theirs()), "the kernel forwards on: {route}");
        pair.far.restart(&kind.files(pair.wish), &kind.command(pair.wish));
        pair.let_announce().await;
        pair.learned(false, true).await;
        assert_eq!(withdrawals(&third).await, 0, "the third neighbour notices");
        eventually("it has our route again", async || pair.has_ours().then_some(())).await;
    }
    if kind.helps() {
        pair.us.peers.truncate(1);
        drop(pair.apart.take());
        let crashed = Instant::now();
        while crashed.elapsed() < OUTAGE {
            assert!(pair.has_ours(), "it forgets us while we are gone");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let us = RouterConfig { preserved: true, ..pair.us.clone() };
        let (router, apart) = Router::start_apart(us).await;
        (pair.router, pair.apart) = (router, Some(apart));
        pair.router.handle.originate(vec![pair.wish.ours().parse().unwrap()]).await;
        let deadline = Instant::now() + DEADLINE;
        while pair.router.handle.peers().await[0].prefixes_advertised == 0 {
            assert!(Instant::now() < deadline, "{:?}", pair.router.handle.peers().await);
            assert!(pair.has_ours(), "it forgets us before we have told all");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pair.learned(false, true).await;
        assert!(pair.has_ours());
    }
}
