//! A daemon as the client of us as the route reflector (RFC 4456), beside a neighbour in our AS that is none.

use super::{Kind, Pair, Wish, third_neighbour};
use crate::lab::{ip, peer};

/// It hears of the other one's route who brought it, and through which cluster.
pub(super) async fn reflection(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    let mut third = peer("10.0.9.2", 179, "10.0.9.1", 64512);
    third.passive = true;
    let wish = Wish { internal: true, ..Wish::default() };
    // They ask whether a next hop can be reached at all: it is us.
    let pair = Pair::start_with(kind, wish, vec![third], |peer| {
        peer.route_reflector_client = true;
        peer.next_hop_self = true;
    })
    .await;
    let theirs = pair.learned().await;
    assert_eq!(theirs.next_hop, Some(wish.them().parse().unwrap()));
    let _stream = third_neighbour(64512).await;
    // Its next hop, its originator and our cluster.
    pair.shows("198.51.100.0/24", &["10.0.0.1", "10.0.9.2", "10.99.99.99", "64514:200"]).await;
}
