//! Topologies with their policies, from a seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::config::{Decision, Export, Import, PeerConfig, SpeakerConfig};
use crate::session::Jitter;

/// Speakers, the links between them, and how they are configured.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<SpeakerConfig>,
    pub(super) links: Vec<Link>,
}

/// A link between two speakers; `ends[0]` has the lower index.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) ends: [End; 2],
}

/// One end of a link.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) node: usize,
    pub(super) address: IpAddr,
    /// What this end's speaker knows of the other one.
    pub(super) peer: PeerConfig,
}

pub(super) fn below(random: &mut Jitter, bound: usize) -> usize {
    usize::try_from(random.next() % bound as u64).expect("it is below a usize")
}

/// A prefix that a node may originate.
pub(super) fn prefix(node: usize, number: usize) -> IpNetwork {
    let [node, number] = [node, number].map(|value| u8::try_from(value).expect("worlds are small"));
    if number % 3 == 2 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0xf, node.into(), 0, 0, 0, number.into());
        IpNetwork::new(address.into(), 128).expect("128 fits")
    } else {
        IpNetwork::new(Ipv4Addr::new(203, 0, node, number).into(), 32).expect("32 fits")
    }
}

impl World {
    pub(super) fn random(seed: u64) -> Self {
        let mut random = Jitter::new(seed);
        let count = 2 + below(&mut random, 4);
        let nodes: Vec<_> = (1..)
            .take(count)
            .map(|id| SpeakerConfig {
                // Few, so that there are ASes of some speakers.
                asn: 65001 + u32::try_from(below(&mut random, 3)).expect("it is below 3"),
                router_id: Ipv4Addr::new(10, 255, below(&mut random, 3) as u8, id),
                max_paths: 1 + below(&mut random, 3),
                decision: Decision {
                    max_paths_internal: [None, Some(1), Some(2)][below(&mut random, 3)],
                    mixed_multipath: below(&mut random, 2) == 0,
                    ..Decision::USUAL
                },
                cluster_id: [None, Some(Ipv4Addr::new(10, 255, 255, 1))][below(&mut random, 2)],
            })
            .collect();
        let mut links = Vec::new();
        for left in 0..count {
            for right in left + 1..count {
                // A chain at least, so that the network is connected.
                if right == left + 1 || below(&mut random, 2) == 0 {
                    links.push(link(&mut random, &nodes, [left, right]));
                }
            }
        }
        Self { nodes, links }
    }

    /// A node's neighbours, as it knows them.
    pub(super) fn peers_of(&self, node: usize) -> Vec<PeerConfig> {
        self.ends_of(node).map(|(link, end)| self.links[link].ends[end].peer.clone()).collect()
    }

    /// Changes one setting of an end.
    pub(super) fn change(&mut self, (link, end): (usize, usize), random: &mut Jitter) {
        let ends = &self.links[link].ends;
        let [left, right] = ends.each_ref().map(|end| self.nodes[end.node].asn);
        let other_waits = ends[1 - end].peer.passive;
        let peer = &mut self.links[link].ends[end].peer;
        match below(random, 11) {
            0 => peer.passive = !(peer.passive || other_waits),
            1 => peer.import = if peer.import == Import::None { Import::All } else { Import::None },
            2 => peer.export = exports(random),
            3 => peer.next_hop_self = !peer.next_hop_self,
            4 => peer.add_path_receive = !peer.add_path_receive,
            5 => peer.add_path_send = [0, 2, 3, 64][below(random, 4)],
            6 => peer.route_reflector_client = left == right && !peer.route_reflector_client,
            7 => peer.keep_rejected = !peer.keep_rejected,
            8 => peer.hold_time = hold_time(random),
            9 => peer.restart_time = restart_time(random),
            _ => peer.shutdown = peer.shutdown.is_none().then(|| "for a while".to_owned()),
        }
    }

    /// The ends of a node, in the order of its configuration.
    pub(super) fn ends_of(&self, node: usize) -> impl Iterator<Item = (usize, usize)> {
        let ends = self.links.iter().enumerate().flat_map(|(link, _)| [(link, 0), (link, 1)]);
        ends.filter(move |&(link, end)| self.links[link].ends[end].node == node)
    }
}

fn hold_time(random: &mut Jitter) -> Duration {
    Duration::from_secs([0, 30, 90][below(random, 3)])
}

fn restart_time(random: &mut Jitter) -> Option<Duration> {
    [None, Some(20), Some(120)][below(random, 3)].map(Duration::from_secs)
}

fn exports(random: &mut Jitter) -> Export {
    [Export::None, Export::Vips, Export::All, Export::All][below(random, 4)].clone()
}

fn link(random: &mut Jitter, nodes: &[SpeakerConfig], pair: [usize; 2]) -> Link {
    let six = below(random, 3) == 0;
    let address = |end: usize| {
        let [left, right, last] = [pair[0], pair[1], end + 1].map(|value| value as u8);
        if six {
            IpAddr::from([0xfd00, 0, 0, left.into(), right.into(), 0, 0, last.into()])
        } else {
            IpAddr::from([10, left, right, last])
        }
    };
    let addresses = [address(0), address(1)];
    let passive = below(random, 4);
    let internal = nodes[pair[0]].asn == nodes[pair[1]].asn;
    let ends = [0, 1].map(|end| End {
        node: pair[end],
        address: addresses[end],
        peer: PeerConfig {
            passive: passive == end,
            hold_time: hold_time(random),
            connect_retry: Duration::from_secs(20),
            restart_time: restart_time(random),
            import: if below(random, 8) == 0 { Import::None } else { Import::All },
            export: exports(random),
            next_hop_self: below(random, 2) == 0,
            add_path_receive: below(random, 2) == 0,
            add_path_send: [0, 2, 3, 64][below(random, 4)],
            route_reflector_client: internal && below(random, 2) == 0,
            ..PeerConfig::new(addresses[1 - end], nodes[pair[1 - end]].asn)
        },
    });
    Link { ends }
}
