//! What goes wrong, from a seed, and then the time to come to rest.

use std::time::Duration;

use super::net::Net;
use super::world::{below, prefix};
use crate::session::Jitter;

/// Incidents of a story at most.
const MAX_INCIDENTS: usize = 30;
/// Longer than the initial hold time, the longest rest in Idle and a connect retry together.
const REST: Duration = Duration::from_secs(900);

/// Boots everybody at about the same time, lets things go wrong, repairs everything, and waits.
pub(super) fn tell(net: &mut Net, seed: u64) {
    let mut random = Jitter::new(seed ^ 0x7374_6f72_7921);
    for node in 0..net.nodes.len() {
        net.originate(node, some_prefixes(&mut random, node));
        net.run_for(Duration::from_millis(below(&mut random, 30) as u64));
        net.boot(node);
    }
    for _ in 0..below(&mut random, MAX_INCIDENTS) {
        incident(net, &mut random);
        // Often in the middle of what follows, sometimes after a hold time.
        let pause = [5, 50, 500, 30_000, 120_000][below(&mut random, 5)];
        net.run_for(Duration::from_millis(below(&mut random, pause) as u64));
    }
    net.heal();
    net.open_all();
    net.drain_sockets();
    for node in 0..net.nodes.len() {
        if net.nodes[node].speaker.is_none() {
            net.boot(node);
        }
    }
    net.run_for(REST);
}

fn incident(net: &mut Net, random: &mut Jitter) {
    let node = below(random, net.nodes.len());
    match below(random, 11) {
        0 => net.crash(node),
        1 => {
            if net.nodes[node].speaker.is_none() {
                net.boot(node);
            }
        }
        2 => {
            let links = net.world.links.len();
            net.cut(below(random, links));
        }
        3 => net.heal(),
        4 => net.reset_a_connection(),
        5 => net.fill_a_socket(node),
        6 => net.drain_sockets(),
        7 | 8 => net.reconfigure(node),
        9 => net.clear(node),
        _ => net.originate(node, some_prefixes(random, node)),
    }
}

/// Some of a node's own prefixes, and now and then one of its neighbour's: an anycast address.
fn some_prefixes(random: &mut Jitter, node: usize) -> Vec<ipnetwork::IpNetwork> {
    let mut prefixes = Vec::new();
    for number in 0..6 {
        if below(random, 2) == 0 {
            prefixes.push(prefix(node, number));
        }
    }
    if below(random, 3) == 0 {
        prefixes.push(prefix(0, below(random, 6)));
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}
