//! Both sides look for a session at once, again and again: each time one connection is left, and it is the session.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use lb_routing::State;

use super::{Kind, Wish};
use crate::far::Far;
use crate::lab::{Router, config, eventually, peer, rounds, veth};

/// Connections between us and it, whoever opened them.
fn connections() -> usize {
    let output = Command::new("ss").args(["-Htn", "state", "established"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    shown.lines().filter(|line| line.contains("10.0.0.2")).count()
}

pub(super) async fn collision_storm(kind: &'static dyn Kind) {
    let wish = Wish::default();
    veth("lbr0", "10.0.0.1/24");
    let far = Far::start(&["10.0.0.2/24"], &kind.files(wish), &kind.command(wish));
    let mut to_far = peer(wish.them(), 179, wish.us(), 64513);
    to_far.restart_time = None;
    let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "0.0.0.0:179", vec![to_far]);
    for round in 0..rounds(5, 200) {
        // Ends as in a crash, so that neither side rests longer each time.
        let (router, _apart) = Router::start_apart(us.clone()).await;
        if round > 0
            && let Some(command) = kind.wake(wish)
        {
            far.run(&command);
        }
        let since = eventually(&format!("round {round}: a session"), async || {
            let peers = router.handle.peers().await;
            (peers[0].state == State::Established).then_some(peers[0].since)
        })
        .await;
        eventually("one connection is left", async || (connections() == 1).then_some(())).await;
        // Whatever was on its way by then has arrived.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let peers = router.handle.peers().await;
        assert_eq!((peers[0].state, connections()), (State::Established, 1), "round {round}");
        assert_eq!(peers[0].since, since, "round {round}: another session");
    }
}
