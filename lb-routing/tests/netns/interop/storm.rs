//! Both sides look for a session at once, again and again: each time one connection is left, and it is the session.
//!
//! Where the daemon both connects and accepts, nothing that either side says arrives before both connections are there: what
//! was said comes then in the order in which TCP happens to repeat it, and one of the two has to become the session.

use std::net::Ipv4Addr;
use std::time::Duration;

use lb_routing::State;

use super::{Kind, Wish};
use crate::far::Far;
use crate::lab::{Router, config, connections, eventually, nft, peer, rounds, veth};

/// Drops what has data, on either side.
const SILENCE: &str = "table inet silence { chain input { type filter hook input priority 0; iifname \"lbr0*\" tcp flags & psh == psh drop; }; }";

fn hush(far: &Far) {
    nft(SILENCE);
    let said = far.run(&format!("echo '{SILENCE}' | nft -f - && echo done"));
    assert_eq!(said, "done\n");
}

fn unhush(far: &Far) {
    nft("delete table inet silence");
    let said = far.run("nft delete table inet silence && echo done");
    assert_eq!(said, "done\n");
}

pub(super) async fn collision_storm(kind: &'static dyn Kind) {
    let wish = Wish::default();
    veth("lbr0", "10.0.0.1/24");
    let far = Far::start(&["10.0.0.2/24"], &kind.files(wish), &kind.command(wish));
    let mut to_far = peer(wish.them(), 179, wish.us(), 64513);
    to_far.restart_time = None;
    // No hold timer speaks while nothing arrives.
    to_far.hold_time = Duration::from_secs(240);
    let us = config(64512, Ipv4Addr::new(10, 0, 0, 1), "0.0.0.0:179", vec![to_far]);
    for round in 0..rounds(if kind.collides() { 3 } else { 5 }, 200) {
        if kind.collides() {
            hush(&far);
        }
        // Before we are there: it would end the session that has just come.
        if round > 0
            && let Some(command) = kind.wake(wish)
        {
            far.run(&command);
        }
        // Ends as in a crash, so that neither side rests longer each time.
        let (router, _apart) = Router::start_apart(us.clone()).await;
        let mut opened = None;
        if kind.collides() {
            let both = async || Some(connections("10.0.0.2")).filter(|it| it.len() == 2);
            opened = Some(eventually(&format!("round {round}: two connections"), both).await);
            unhush(&far);
        }
        let since = eventually(&format!("round {round}: a session"), async || {
            let peers = router.handle.peers().await;
            (peers[0].state == State::Established).then_some(peers[0].since)
        })
        .await;
        let one = async || Some(connections("10.0.0.2")).filter(|it| it.len() == 1);
        let left = eventually("one connection is left", one).await;
        let tried_again = opened.is_some_and(|opened| !left.is_subset(&opened));
        assert!(!tried_again, "round {round}: neither of the two became the session");
        // Whatever was on its way by then has arrived.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let peers = router.handle.peers().await;
        let now = (peers[0].state, connections("10.0.0.2"));
        assert_eq!(now, (State::Established, left), "round {round}");
        assert_eq!(peers[0].since, since, "round {round}: another session");
    }
}
