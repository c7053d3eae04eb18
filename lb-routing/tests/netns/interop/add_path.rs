//! Several paths of a prefix, both ways (RFC 7911).

use super::{Kind, Pair, Wish, by_hand};
use crate::lab::{eventually, ip, peer};

/// Its route arrives with an identifier before it, and it hears of both paths that two neighbours of ours tell.
pub(super) async fn add_path(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    let others = [("10.0.9.2", 64514), ("10.0.9.3", 64515)];
    let peers = others.map(|(address, asn)| {
        ip(&format!("addr add {address}/32 dev lo"));
        let mut other = peer(address, 179, "10.0.9.1", asn);
        other.passive = true;
        other
    });
    let wish = Wish { add_path: true, ..Wish::default() };
    let pair = Pair::start_with(kind, wish, peers.into(), |peer| {
        peer.add_path_receive = true;
        peer.add_path_send = 8;
    })
    .await;
    pair.talk().await;
    let mut streams = Vec::new();
    for (address, asn) in others {
        streams.push(by_hand(address, u16::try_from(asn).unwrap()).await);
    }
    pair.shows("198.51.100.0/24", &["64512 64514", "64512 64515"]).await;
    // One of them goes, and only that one.
    streams.pop();
    let question = kind.show(wish, "198.51.100.0/24");
    eventually("the other path stays alone", async || {
        let shown = pair.far.run(&question);
        let gone = kind.remembers() || !shown.contains("64512 64515");
        (shown.contains("64512 64514") && gone).then_some(())
    })
    .await;
}
