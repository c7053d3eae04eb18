//! What the suites of traffic have in common: a lab with peers side by side between a client and a server, who take turns.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use integration::lab::{Lab, Options};
use integration::traffic;
use integration::wait::eventually;
use lb_api_types::config::Hook;

use crate::load;

/// Rounds; the median counts. Many short ones: what differs from round to round is who of client and server has which core,
/// and a longer turn does not change that.
pub(crate) const ROUNDS: usize = 25;
/// How long one of them measures one thing of one peer.
pub(crate) const TURN: Duration = Duration::from_millis(230);
pub(crate) const PORT: u16 = 7000;
const READY_WITHIN: Duration = Duration::from_secs(40);
/// Packets that lbd's kernel may forward: what comes before the neighbours' MACs are known.
const FEW: u64 = 1000;

/// A peer's name, and where the client finds the server by it.
pub(crate) type Peer = (&'static str, &'static str);

/// Brings up a suite's network with its server.
pub(crate) fn up(suite: &str, hook: Hook) -> Result<Lab> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(suite);
    let topology = folder.join(format!("network/{suite}.clab.yml"));
    let mut options = Options::of(&topology.to_string_lossy(), None, None)?;
    options.hook = hook;
    let lab = Lab::up(&options)?;
    load::serve(lab.netns("server")?, PORT)?;
    Ok(lab)
}

/// Waits until each peer carries a stream.
pub(crate) fn ready(lab: &Lab, peers: &[Peer]) -> Result<()> {
    let client = lab.netns("client")?;
    for (name, at) in peers {
        let to = address(at)?;
        eventually(&format!("{name} carries a stream"), READY_WITHIN, || {
            load::stream(client, to, Duration::from_millis(10))
        })?;
    }
    Ok(())
}

/// Measures; nothing but lbd's fast path, or it is an error. Returns what its kernel forwarded meanwhile.
pub(crate) fn on_the_fast_path(
    lab: &Lab,
    nodes: &[&str],
    measure: impl FnOnce() -> Result<()>,
) -> Result<u64> {
    let forwarded = || {
        let of = |node: &&str| traffic::forwarded_by_kernel(lab.netns(node)?);
        nodes.iter().map(of).sum::<Result<u64>>()
    };
    let before = forwarded()?;
    measure()?;
    let slow = forwarded()? - before;
    if slow >= FEW {
        let reasons = lab.api().status()?.reasons.into_iter().filter(|reason| reason.packets > 0);
        let reasons: Vec<String> =
            reasons.map(|reason| format!("{} {}", reason.packets, reason.reason)).collect();
        bail!(
            "lbd's kernel forwarded {slow} packets: the fast path was not measured; it saw {}",
            reasons.join(", ")
        );
    }
    Ok(slow)
}

/// The peers in the order of a round, by their places too: each is the first one in its turn.
pub(crate) fn turns(
    peers: &[Peer],
    round: usize,
) -> Result<Vec<(usize, &'static str, SocketAddr)>> {
    let mut places: Vec<usize> = (0..peers.len()).collect();
    places.rotate_left(round % peers.len());
    let turn = |place: usize| Ok((place, peers[place].0, address(peers[place].1)?));
    places.into_iter().map(turn).collect()
}

fn address(host: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse()?, PORT))
}

pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}
