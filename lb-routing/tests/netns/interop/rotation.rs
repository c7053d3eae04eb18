//! Keys that come, change and go while the rest of the configuration stays.

use lb_routing::{Peers, State};

use super::{KEY, Kind, Pair, Wish, signed, third_neighbour};
use crate::lab::{eventually, ip, peer};

impl Pair {
    /// Both sides have another key; ours is told first, as theirs would be by somebody else's hand.
    async fn rotate(&mut self, key: Option<&'static str>) {
        let before = self.far_session().await;
        let them = self.wish.them().parse().unwrap();
        if let Some(transport) = self.us.transports.get_mut(&them) {
            *transport = signed(transport.clone(), key);
        }
        let us = self.us.clone();
        let wanted = Peers::from(us);
        self.router.handle.configure(wanted).await.unwrap();
        self.wish.key = key;
        let files = self.kind.files(self.wish);
        match self.kind.take_key(self.wish) {
            Some(command) => {
                self.far.write(&files);
                self.far.run(&command);
            }
            None => {
                self.far.restart(&files, &self.kind.command(self.wish));
                self.let_announce().await;
            }
        }
        eventually("a session under the other key", async || {
            let (state, since) = self.far_session().await;
            (state == State::Established && since > before.1).then_some(())
        })
        .await;
        self.talk().await;
    }

    async fn far_session(&self) -> (State, std::time::Instant) {
        let peers = self.router.handle.peers().await;
        (peers[0].state, peers[0].since)
    }
}

/// Added, changed and removed; a neighbour that has none notices nothing.
pub(super) async fn md5_rotation(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    let mut third = peer("10.0.9.2", 179, "10.0.9.1", 64514);
    third.passive = true;
    let mut pair = Pair::start(kind, Wish::default(), vec![third]).await;
    pair.talk().await;
    let _stream = third_neighbour(64514).await;
    let untouched = eventually("the third neighbour's session", async || {
        let peers = pair.router.handle.peers().await;
        (peers[1].state == State::Established).then_some(peers[1].since)
    })
    .await;
    for key in [Some(KEY), Some("an0ther"), None] {
        pair.rotate(key).await;
    }
    let peers = pair.router.handle.peers().await;
    assert_eq!((peers[1].state, peers[1].since), (State::Established, untouched));
}
