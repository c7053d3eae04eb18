//! How many routes of a daemon are taken, and which of two to one prefix: by its MED and by identifiers.

use std::time::Duration;

use lb_routing::{
    BeyondLimit, Clear, Decision, Destination, MaxPrefixes, PeerConfig, Peers, State,
};

use super::{Kind, Pair, Wish, by_hand};
use crate::lab::{eventually, ip, peer};

const LIMIT: u32 = 2;

fn limited(peer: &mut PeerConfig, beyond: BeyondLimit) {
    peer.max_prefixes = Some(MaxPrefixes { limit: LIMIT, warn_percent: 80, beyond });
}

/// It tells three prefixes of two: one is not taken; all are, after a word; its session ends and rests, until there are as many
/// as it may tell.
pub(super) async fn limit(kind: &'static dyn Kind) {
    let wish = Wish { more: true, ..Wish::default() };
    let discarding = |peer: &mut PeerConfig| limited(peer, BeyondLimit::Discard);
    let pair = Pair::start_with(kind, wish, Vec::new(), discarding).await;
    let them = wish.them().parse().unwrap();
    let has = async |what: &str, count: u64, refused: bool| {
        eventually(what, async || {
            let peer = pair.router.handle.peers().await.remove(0);
            let up = peer.state == State::Established;
            let same = peer.prefixes_received == count && (peer.routes_refused > 0) == refused;
            (up && same).then_some(peer.since)
        })
        .await
    };
    let since = has("two are taken", LIMIT.into(), true).await;
    let with = async |beyond, limit| {
        let mut wanted = Peers::from(pair.us.clone());
        wanted.peers[0].max_prefixes = Some(MaxPrefixes { limit, warn_percent: 80, beyond });
        pair.router.handle.configure(wanted).await.unwrap();
    };
    with(BeyondLimit::Warn, LIMIT).await;
    let how = if kind.tells_again() { Clear::In } else { Clear::Session };
    pair.router.handle.clear(them, how).await;
    if how == Clear::Session
        && let Some(command) = kind.wake(wish)
    {
        pair.far.run(&command);
    }
    let all = has("all are taken", 3, true).await;
    assert_eq!(all == since, kind.tells_again(), "the session is the same, where it can be");
    with(BeyondLimit::End(Some(Duration::from_secs(1))), LIMIT).await;
    let ended = async |since| {
        eventually("its session ends", async || {
            let peer = pair.router.handle.peers().await.remove(0);
            let said = peer.last_error.contains("Maximum Number of Prefixes");
            (peer.state != State::Established && said && peer.since != since).then_some(peer.since)
        })
        .await
    };
    let first = ended(all).await;
    ended(first).await;
    with(BeyondLimit::End(Some(Duration::from_secs(1))), 3).await;
    if let Some(command) = kind.wake(wish) {
        pair.far.run(&command);
    }
    has("all are taken", 3, true).await;
}

/// Its MED is 50, another neighbour's path has none; its identifier is the lower one.
pub(super) async fn decision(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    let mut third = peer("10.0.9.2", 179, "10.0.9.1", 64514);
    third.passive = true;
    let wish = Wish { more: true, ..Wish::default() };
    let pair = Pair::start(kind, wish, vec![third]).await;
    pair.talk().await;
    let shared = "198.51.100.0/24".parse().unwrap();
    let paths = async || {
        let what = Destination::Prefix(shared);
        pair.router.handle.explain(what).await.map(|it| it.paths).unwrap_or_default()
    };
    let _stream = by_hand("10.0.9.2", 64514).await;
    eventually("both paths are there", async || (paths().await.len() == 2).then_some(())).await;
    let with = async |decision| {
        let mut wanted = Peers::from(pair.us.clone());
        wanted.speaker.decision = decision;
        wanted.speaker.max_paths = 1;
        pair.router.handle.configure(wanted).await.unwrap();
    };
    let best = async |asn: &str, step: &str| {
        eventually(&format!("{asn} wins by {step}"), async || {
            let best = paths().await.into_iter().find(|path| path.best)?;
            let why = best.why.unwrap_or_default();
            (best.attributes.as_path.to_string() == asn && why.ends_with(step)).then_some(())
        })
        .await;
    };
    let usual = Decision::USUAL;
    with(usual).await;
    best("64513", "router id, or ORIGINATOR_ID").await;
    with(Decision { always_compare_med: true, ..usual }).await;
    best("64514", "MULTI_EXIT_DISC").await;
    // Only now the daemon hears of it.
    pair.shows("198.51.100.0/24", &["64512 64514"]).await;
    with(Decision { compare_router_id: false, ..usual }).await;
    best("64514", "it was the best one before").await;
    with(Decision { always_compare_med: true, med_missing_as_worst: true, ..usual }).await;
    best("64513", "MULTI_EXIT_DISC").await;
    let question = kind.show(wish, "198.51.100.0/24");
    eventually("it is told no longer", async || {
        let gone = kind.remembers() || !pair.far.run(&question).contains("64512 64514");
        gone.then_some(())
    })
    .await;
}
