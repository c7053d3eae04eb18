//! Neighbours that nobody named: they come from a range that is listened for, here with a key of the range.

use lb_routing::{Listen, Peers, State};

use super::{KEY, Kind, Pair, Wish, by_hand};
use crate::lab::{eventually, ip, net};

/// A neighbour that was named is known by its range from now on, comes by itself, and goes with the range.
pub(super) async fn dynamic(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    ip("addr add 10.0.9.3/32 dev lo");
    let wish = Wish { key: Some(KEY), ..Wish::default() };
    let pair = Pair::start(kind, wish, Vec::new()).await;
    pair.talk().await;
    let mut wanted = Peers::from(pair.us.clone());
    let mut template = wanted.peers.remove(0);
    let mut others = template.clone();
    // It may have one of many AS numbers, and says which.
    let asn = std::mem::replace(&mut template.asn, 64_599);
    template.asns = vec![64_513..=64_599];
    others.asn = 64514;
    let transport = wanted.transports.remove(&wish.them().parse().unwrap()).unwrap();
    let listen = |name: &str, range: &str, template| {
        let (name, ranges) = (name.to_owned(), vec![net(range)]);
        Listen { name, ranges, limit: 1, template }
    };
    wanted.dynamic = vec![
        (listen("nodes", "10.0.0.0/24", template), transport.clone()),
        (listen("hosts", "10.0.9.0/24", others), super::signed(transport, None)),
    ];
    pair.router.handle.configure(wanted.clone()).await.unwrap();
    if let Some(command) = kind.wake(wish) {
        pair.far.run(&command);
    }
    eventually("it has come by itself", async || {
        let peers = pair.router.handle.peers().await;
        let peer = peers.first().filter(|peer| peer.state == State::Established)?;
        assert_eq!(peer.dynamic.as_deref(), Some("nodes"));
        assert_eq!((&*peer.name, peers.len()), (wish.them(), 1));
        assert_eq!(peer.asn, asn);
        Some(())
    })
    .await;
    pair.talk().await;

    // As many as may come, and one more.
    let _first = by_hand("10.0.9.2", 64514).await;
    let counted = async |wanted: (u16, u64)| {
        eventually("neighbours are counted", async || {
            let hosts = pair.router.handle.listening().await.pop()?;
            ((hosts.neighbours, hosts.refused) == wanted).then_some(())
        })
        .await;
    };
    counted((1, 0)).await;
    let _second = by_hand("10.0.9.3", 64514).await;
    counted((1, 1)).await;

    wanted.dynamic.clear();
    pair.router.handle.configure(wanted).await.unwrap();
    assert!(pair.router.handle.peers().await.is_empty());
    eventually("its routes are gone", async || {
        pair.router.handle.routes().await.iter().all(|path| path.peer.is_none()).then_some(())
    })
    .await;
}
