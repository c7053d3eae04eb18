//! What peering with Calico asks for, in a grid: six nodes with a BIRD 1.6 each, which differ in how their connections are
//! made, live through everything that nodes live through.
//!
//! Their configurations have the shape of Calico's: one daemon a family, `add paths on`, `graceful restart`, `multihop` unless
//! TTL security is asked for, blocks as aggregates, everything imported.

mod node;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lb_routing::{Md5Key, Peers, RouterConfig, State, Transport};

use self::node::{Node, Way};
use crate::lab::{
    Apart, DEADLINE, Router, config, connections, eventually, in_namespace, ip, nft, peer, rounds,
};

/// What the nodes are to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    External,
    Internal,
    Client,
}

impl Role {
    const fn asn(self) -> u32 {
        match self {
            Self::External => 64513,
            Self::Internal | Self::Client => 64512,
        }
    }
}

/// A router of ours and its nodes.
struct Cluster {
    role: Role,
    v6: bool,
    router: Router,
    /// Keeps the router.
    apart: Option<Apart>,
    us: RouterConfig,
    nodes: Vec<Node>,
}

fn transport(way: Way, key: Option<&str>) -> Transport {
    let md5 = key.map(|key| Md5Key::from_text(key.as_bytes()).unwrap());
    Transport { reach: way.reach(), md5, ..Transport::default() }
}

impl Cluster {
    async fn start(role: Role, v6: bool) -> Self {
        let ways = (1..).zip(Way::ALL);
        let nodes: Vec<_> =
            ways.map(|(number, way)| Node::start(number, way, role.asn(), v6)).collect();
        let peers = nodes.iter().map(|node| {
            let mut to = peer(&node.address(), node.port(), &node.gateway(), role.asn());
            to.hold_time = Duration::from_secs(90);
            to.route_reflector_client = role == Role::Client;
            to
        });
        let id = Ipv4Addr::new(10, 99, 0, 1);
        let mut us = config(64512, id, "0.0.0.0:179", peers.collect());
        for node in &nodes {
            let address: IpAddr = node.address().parse().unwrap();
            us.transports.insert(address, transport(node.way, node.key));
        }
        let (router, apart) = Router::start_apart(us.clone()).await;
        let this = Self { role, v6, router, apart: Some(apart), us, nodes };
        this.originate().await;
        this
    }

    async fn originate(&self) {
        let vip = if self.v6 { "2001:db8:99::10/128" } else { "192.0.2.10/32" };
        self.router.handle.originate(vec![vip.parse().unwrap()]).await;
    }

    /// Prefixes of the RIB, and whether each is left from a session that ended.
    async fn known(&self) -> Vec<(String, bool)> {
        let routes = self.router.handle.routes().await;
        routes.iter().map(|path| (path.prefix.to_string(), path.stale)).collect()
    }

    /// Waits until each node has its session, its blocks are learned and installed, and it has the VIP.
    async fn converges(&self, after: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{after}: {missing:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let (known, peers) = (self.known().await, self.router.handle.peers().await);
        let family = if self.v6 { "-6 " } else { "" };
        let installed = ip(&format!("{family}route show proto 179"));
        for (node, peer) in self.nodes.iter().zip(&peers) {
            let name = format!("{:?}", node.way);
            if peer.state != State::Established || peer.stale_until.is_some() {
                missing.push(format!("{name}: {:?}, {}", peer.state, peer.last_error));
            }
            for block in node.blocks() {
                if !known.contains(&(block.clone(), false)) || !installed.contains(&block) {
                    missing.push(format!("{name}: {block}"));
                }
            }
        }
        if missing.is_empty() {
            let without = self.nodes.iter().filter(|node| !node.has_vip());
            missing.extend(without.map(|node| format!("{:?}: the VIP", node.way)));
        }
        missing
    }

    /// The nodes' daemons end as by `kill -9`. Started without recovery they have forgotten what they forwarded.
    async fn crashes(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.far.kill());
        self.all_down().await;
        self.nodes.iter_mut().for_each(|node| node.restart(false));
        self.converges("kill -9").await;
    }

    async fn all_down(&self) {
        eventually("every session has ended", async || {
            let peers = self.router.handle.peers().await;
            peers.iter().all(|peer| peer.state != State::Established).then_some(())
        })
        .await;
    }

    /// An operator's word: the blocks go with the session, and come back with it.
    async fn are_disabled_and_enabled(&mut self) {
        self.nodes.iter().for_each(|node| drop(node.ask("disable lbd")));
        eventually("the blocks are gone", async || {
            self.known()
                .await
                .iter()
                .all(|(prefix, _)| prefix.contains("2.10") || prefix.contains("::10"))
                .then_some(())
        })
        .await;
        self.nodes.iter().for_each(|node| drop(node.ask("enable lbd")));
        self.converges("disable, enable").await;
    }

    /// The daemons end and come back with recovery: no block is ever missing from the kernel's table.
    async fn restart_gracefully(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.far.kill());
        self.all_down().await;
        self.nodes.iter_mut().for_each(|node| node.restart(true));
        let blocks: Vec<_> = self.nodes.iter().flat_map(Node::blocks).collect();
        let family = if self.v6 { "-6 " } else { "" };
        let deadline = Instant::now() + DEADLINE;
        loop {
            let installed = ip(&format!("{family}route show proto 179"));
            let gone = blocks.iter().find(|block| !installed.contains(*block));
            assert_eq!(gone, None, "a block is gone while its node restarts");
            let missing = self.missing().await;
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "graceful restart: {missing:?}");
        }
    }

    /// A block more on each node, in a configuration that is read anew: no session notices.
    async fn get_new_blocks(&mut self) {
        let since = async |cluster: &Self| {
            let peers = cluster.router.handle.peers().await;
            peers.iter().map(|peer| peer.since).collect::<Vec<_>>()
        };
        let before = since(self).await;
        for node in &mut self.nodes {
            node.more_blocks = true;
            node.write();
            node.ask("configure");
        }
        self.converges("a new block").await;
        assert_eq!(since(self).await, before, "a session began anew");
    }

    /// What every node has leads to all that are equally far, and what one of them has besides to that one.
    async fn services_are_where_they_are(&self) {
        let family = if self.v6 { "-6 " } else { "" };
        let [all, one] = Node::services(self.v6);
        eventually("services are reached by several nodes, and by one", async || {
            let shown = ip(&format!("{family}route show {all} proto 179"));
            // Of IPv6, the kernel's routes to nodes behind others have a metric.
            let ways = shown.matches("via ").count();
            let local = ip(&format!("{family}route show {one} proto 179"));
            let at = self.nodes[0].address();
            (ways >= 4 && local.matches("via ").count() == 1 && local.contains(&at)).then_some(())
        })
        .await;
    }

    /// We and all nodes begin at once, and each pair has two connections before anybody hears anything: one of them is left,
    /// and it is the session.
    async fn open_at_once(&mut self) {
        nft(SILENCE);
        // As in a crash, so that nobody rests.
        drop(self.apart.take());
        self.nodes.iter_mut().for_each(|node| node.restart(false));
        let (router, apart) = Router::start_apart(self.us.clone()).await;
        (self.router, self.apart) = (router, Some(apart));
        self.originate().await;
        let mut opened = Vec::new();
        for node in &self.nodes {
            let both = async || Some(connections(&node.address())).filter(|it| it.len() == 2);
            opened.push(eventually(&format!("two connections with {:?}", node.way), both).await);
        }
        nft("delete table inet silence");
        self.converges("a storm").await;
        for (node, opened) in self.nodes.iter().zip(opened) {
            let one = async || Some(connections(&node.address())).filter(|it| it.len() == 1);
            let left = eventually(&format!("one connection with {:?}", node.way), one).await;
            assert!(
                left.is_subset(&opened),
                "{:?}: neither of the two became the session",
                node.way
            );
        }
    }

    /// The key of the node whose key rotates is another one.
    async fn rotate(&mut self) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.way == Way::RotatedKey) else {
            return;
        };
        node.key = Some("an0ther");
        let address: IpAddr = node.address().parse().unwrap();
        self.us.transports.insert(address, transport(node.way, node.key));
        let us = self.us.clone();
        let wanted = Peers::from(us);
        self.router.handle.configure(wanted).await.unwrap();
        node.write();
        node.ask("configure");
        self.converges("another key").await;
    }

    /// What nodes say of preference counts as it is, and clients hear of each other.
    async fn is_as_its_role_says(&self) {
        let [first, second] = [0, 1].map(|place: usize| &self.nodes[place]);
        let routes = self.router.handle.routes().await;
        let block = first.blocks().swap_remove(0);
        let path = routes.iter().find(|path| path.prefix.to_string() == block).unwrap();
        let internal = self.role != Role::External;
        assert_eq!(path.attributes.local_pref, internal.then_some(2_147_483_547));
        if self.role == Role::Client {
            eventually("a node hears of another one's block, reflected", async || {
                second
                    .ask(&format!("show route {block} all"))
                    .contains("originator_id")
                    .then_some(())
            })
            .await;
        }
    }
}

async fn live_through_everything(role: Role, v6: bool) {
    let mut cluster = Cluster::start(role, v6).await;
    cluster.converges("the start").await;
    cluster.is_as_its_role_says().await;
    cluster.services_are_where_they_are().await;
    cluster.rotate().await;
    cluster.crashes().await;
    cluster.are_disabled_and_enabled().await;
    cluster.restart_gracefully().await;
    cluster.get_new_blocks().await;
}

/// Nothing with data passes between us and the nodes.
const SILENCE: &str = "table inet silence {
    chain input { type filter hook input priority 0; iifname \"cal*\" tcp flags & psh == psh drop; }
    chain output { type filter hook output priority 0; oifname \"cal*\" tcp flags & psh == psh drop; }
}";

#[test]
fn calico_storm_of_simultaneous_opens() {
    in_namespace(async || {
        let mut cluster = Cluster::start(Role::Internal, false).await;
        cluster.converges("the start").await;
        // Of six nodes: 204 with all rounds.
        for _ in 0..rounds(3, 34) {
            cluster.open_at_once().await;
        }
    });
}

macro_rules! calico {
    ($($name:ident: $role:expr, $v6:expr;)*) => {
        $(#[test] fn $name() { in_namespace(|| live_through_everything($role, $v6)); })*
    };
}

calico! {
    calico_external_nodes_v4: Role::External, false;
    calico_external_nodes_v6: Role::External, true;
    calico_internal_nodes_v4: Role::Internal, false;
    calico_internal_nodes_v6: Role::Internal, true;
    calico_reflector_clients_v4: Role::Client, false;
    calico_reflector_clients_v6: Role::Client, true;
}
