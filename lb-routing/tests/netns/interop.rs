//! The grid: each feature with each of six other daemons, over a veth.
//!
//! `lb-routing/README.md` has the grid as a table; a cell that is absent there has its reason there.

mod add_path;
mod bird;
mod choice;
mod dynamic;
mod exabgp;
mod extensions;
mod frr;
mod gobgp;
mod graceful;
mod openbgpd;
mod policies;
mod reflection;
mod rotation;
mod storm;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_routing::{Md5Key, PathStatus, PeerConfig, Reach, RouterConfig, State, Transport};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::far::Far;
use crate::lab::{Router, config, eventually, in_namespace, ip, peer, veth};

const KEY: &str = "s3cret";

/// What a daemon announces beside its usual route.
const MORE: [&str; 2] = ["198.51.100.0/24", "198.51.101.0/24"];

/// What a daemon is told to do.
#[derive(Clone, Copy, Default)]
struct Wish {
    /// The session, and the routes, are of IPv6.
    v6: bool,
    /// The session is of IPv6, and routes of IPv4 have its next hops.
    by_ipv6: bool,
    /// Segments are signed with it.
    key: Option<&'static str>,
    /// Its packets start at 255, and ours have to.
    gtsm: bool,
    /// It is in our AS.
    internal: bool,
    /// It tells and takes several paths of a prefix.
    add_path: bool,
    /// It restarts gracefully, and helps others to, as far as it can.
    graceful: bool,
    /// It announces [`MORE`], too, and all with the MED 50.
    more: bool,
}

impl Wish {
    /// `yes` where it is wished.
    fn when(wished: bool, yes: &str) -> &str {
        if wished { yes } else { "" }
    }

    fn us(self) -> &'static str {
        if self.v6 || self.by_ipv6 { "2001:db8::1" } else { "10.0.0.1" }
    }

    fn them(self) -> &'static str {
        if self.v6 || self.by_ipv6 { "2001:db8::2" } else { "10.0.0.2" }
    }

    /// Its AS.
    fn asn(self) -> u32 {
        if self.internal { 64512 } else { 64513 }
    }

    /// What the daemon announces, with the communities 64513:100 and 64513:1:2.
    fn theirs(self) -> &'static str {
        if self.v6 { "2001:db8:244::/64" } else { "10.244.1.0/24" }
    }

    /// What we announce.
    fn ours(self) -> &'static str {
        if self.v6 { "2001:db8:10::1/128" } else { "192.0.2.10/32" }
    }
}

/// How a kind of daemon is started and asked, in commands of the shell with its folder in `$D`.
trait Kind {
    fn files(&self, wish: Wish) -> Vec<(&'static str, String)>;
    /// Becomes the daemon.
    fn command(&self, wish: Wish) -> String;
    /// Announces its route, where its configuration cannot; succeeds once the daemon listens to commands.
    fn announce(&self, _wish: Wish) -> Option<String> {
        None
    }
    /// Shows a route that it learned from us, with its attributes; nothing of the sort where it has none.
    fn show(&self, wish: Wish, prefix: &str) -> String;
    /// Has it take a key that its files have anew; it is started again where it cannot.
    fn take_key(&self, _wish: Wish) -> Option<String> {
        None
    }
    /// It shows everything that it ever heard, also what was withdrawn.
    fn remembers(&self) -> bool {
        false
    }
    /// Whether it says after a restart that it has forwarded all the while.
    fn restarts(&self) -> bool {
        true
    }
    /// Whether it keeps routes of a neighbour that restarts.
    fn helps(&self) -> bool {
        true
    }
    /// Has it look for a session at once, where it would rest for long after one that was lost.
    fn wake(&self, _wish: Wish) -> Option<String> {
        None
    }
    /// Whether it goes on looking for a connection beside one that it has accepted. FRR does not without zebra, which says
    /// what leads to a neighbour; ExaBGP accepts none; the others give up their own.
    fn collides(&self) -> bool {
        false
    }
    /// Whether it tells its routes again when it is asked to (RFC 2918), in the session that there is.
    fn tells_again(&self) -> bool {
        true
    }
    /// Has it send ROUTE-REFRESH, where it does.
    fn refresh(&self, wish: Wish) -> Option<String>;
}

/// A daemon and a router of ours.
struct Pair {
    kind: &'static dyn Kind,
    wish: Wish,
    far: Far,
    router: Router,
    /// As it was told at the start.
    us: RouterConfig,
}

impl Pair {
    async fn start(kind: &'static dyn Kind, wish: Wish, others: Vec<PeerConfig>) -> Self {
        Self::start_with(kind, wish, others, |_| {}).await
    }

    /// With a neighbour that is configured otherwise.
    async fn start_with(
        kind: &'static dyn Kind,
        wish: Wish,
        others: Vec<PeerConfig>,
        adjust: impl FnOnce(&mut PeerConfig),
    ) -> Self {
        veth("lbr0", "10.0.0.1/24");
        ip("addr add 2001:db8::1/64 dev lbr0 nodad");
        let addresses = ["10.0.0.2/24", "2001:db8::2/64"];
        let far = Far::start(&addresses, &kind.files(wish), &kind.command(wish));
        let mut to_far = peer(wish.them(), 179, wish.us(), wish.asn());
        // No KEEPALIVE while a test counts messages.
        to_far.hold_time = Duration::from_secs(240);
        adjust(&mut to_far);
        let id = Ipv4Addr::new(10, 0, 0, 1);
        let peers = [vec![to_far], others].concat();
        let mut us = config(64512, id, "0.0.0.0:179", peers);
        us.speaker.cluster_id = Some(Ipv4Addr::new(10, 99, 99, 99));
        let transport = Transport {
            reach: if wish.gtsm { Reach::Secured(1) } else { Reach::Hops(1) },
            ..Transport::default()
        };
        us.transports.insert(wish.them().parse().unwrap(), signed(transport, wish.key));
        let router = Router::start(us.clone()).await;
        router.handle.originate(vec![wish.ours().parse().unwrap()]).await;
        let pair = Self { kind, wish, far, router, us };
        pair.let_announce().await;
        pair
    }

    /// Has the daemon announce its route, where its configuration cannot.
    async fn let_announce(&self) {
        if let Some(command) = self.kind.announce(self.wish) {
            eventually("the daemon takes commands", async || {
                let said = self.far.run(&format!("({command}) && echo done"));
                said.ends_with("done\n").then_some(())
            })
            .await;
        }
    }

    /// Its route as we have it, once it is there.
    async fn learned(&self) -> PathStatus {
        let wanted = self.wish.theirs().parse().unwrap();
        eventually("its route is learned", async || {
            let routes = self.router.handle.routes().await;
            routes.into_iter().find(|path| path.prefix == wanted)
        })
        .await
    }

    /// Waits until the daemon shows a route of ours with these words.
    async fn shows(&self, prefix: &str, words: &[&str]) {
        let question = self.kind.show(self.wish, prefix);
        let mut shown = String::new();
        let deadline = std::time::Instant::now() + crate::lab::DEADLINE;
        while !words.iter().all(|word| shown.contains(word)) {
            assert!(std::time::Instant::now() < deadline, "{words:?} are not all in:\n{shown}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            shown = self.far.run(&question);
        }
    }

    /// Routes go both ways.
    async fn talk(&self) {
        let theirs = self.learned().await;
        let wish = self.wish;
        assert_eq!(theirs.next_hop, Some(wish.them().parse().unwrap()));
        assert_eq!(theirs.attributes.as_path.to_string(), "64513");
        let address = wish.ours().split('/').next().unwrap();
        self.shows(wish.ours(), &[address, wish.us(), "64512"]).await;
    }

    async fn messages(&self) -> (u64, u64) {
        let peers = self.router.handle.peers().await;
        (peers[0].messages_received.total(), peers[0].messages_sent.total())
    }
}

fn signed(transport: Transport, key: Option<&str>) -> Transport {
    Transport { md5: key.map(|key| Md5Key::from_text(key.as_bytes()).unwrap()), ..transport }
}

async fn session_v4(kind: &'static dyn Kind) {
    Pair::start(kind, Wish::default(), Vec::new()).await.talk().await;
}

async fn session_v6(kind: &'static dyn Kind) {
    Pair::start(kind, Wish { v6: true, ..Wish::default() }, Vec::new()).await.talk().await;
}

async fn md5(kind: &'static dyn Kind) {
    Pair::start(kind, Wish { key: Some(KEY), ..Wish::default() }, Vec::new()).await.talk().await;
}

/// Our kernel drops what started below 255, theirs too where they say so.
async fn gtsm(kind: &'static dyn Kind) {
    Pair::start(kind, Wish { gtsm: true, ..Wish::default() }, Vec::new()).await.talk().await;
}

/// Theirs reach us; those of a third neighbour reach them through us.
async fn communities(kind: &'static dyn Kind) {
    ip("addr add 10.0.9.1/32 dev lo");
    ip("addr add 10.0.9.2/32 dev lo");
    let mut third = peer("10.0.9.2", 179, "10.0.9.1", 64514);
    third.passive = true;
    let pair = Pair::start(kind, Wish::default(), vec![third]).await;
    let theirs = pair.learned().await.attributes;
    assert!(theirs.communities.contains(&(64513 << 16 | 100)), "{theirs:?}");
    let large = [64513_u32, 1, 2].map(u32::to_be_bytes).concat();
    assert!(theirs.other.iter().any(|attribute| attribute.value == large), "{theirs:?}");

    let _stream = third_neighbour(64514).await;
    pair.shows("198.51.100.0/24", &["198.51.100.0", "64514:200"]).await;
}

/// The daemon asks for our routes again, and gets them; that its session lasts says that it took them.
async fn route_refresh(kind: &'static dyn Kind) {
    let pair = Pair::start(kind, Wish::default(), Vec::new()).await;
    pair.talk().await;
    let since = pair.router.handle.peers().await[0].since;
    // What belongs to the start (End-of-RIB, a first KEEPALIVE) is over.
    let mut last = (pair.messages().await, 0);
    eventually("nothing is said any more", async || {
        let now = pair.messages().await;
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        (last.1 == 15).then_some(())
    })
    .await;
    let (received, sent) = last.0;
    let said = pair.far.run(&pair.kind.refresh(pair.wish).unwrap());
    eventually(
        &format!("a refresh is asked for and answered; the daemon said {said}"),
        async || {
            let now = pair.messages().await;
            (now.0 > received && now.1 > sent).then_some(())
        },
    )
    .await;
    pair.talk().await;
    let peers = pair.router.handle.peers().await;
    assert_eq!((peers[0].state, peers[0].since), (State::Established, since));
}

async fn third_neighbour(asn: u16) -> TcpStream {
    by_hand("10.0.9.2", asn).await
}

/// BGP by hand, from an address in an AS: announces 198.51.100.0/24 with the community 64514:200.
async fn by_hand(from: &str, asn: u16) -> TcpStream {
    let from: Ipv4Addr = from.parse().unwrap();
    let message = |kind: u8, body: &[u8]| {
        let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
        [&[0xff; 16][..], &length, &[kind], body].concat()
    };
    let internal = asn == 64512;
    let [tag, asn] = [64514, asn].map(u16::to_be_bytes);
    let open = [&[4][..], &asn, &[0, 0], &from.octets(), &[0]].concat();
    let community = [&[0xc0, 8, 4][..], &tag, &200_u16.to_be_bytes()].concat();
    let path = [&[0x40, 2, 4, 2, 1][..], if internal { &tag } else { &asn }].concat();
    let local_pref = [0x40, 5, 4, 0, 0, 0, 100];
    let local_pref = if internal { &local_pref[..] } else { &[] };
    let next_hop = [&[0x40, 3, 4][..], &from.octets()].concat();
    let attributes = [&[0x40, 1, 1, 0][..], &path, &next_hop, local_pref, &community].concat();
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    let update = [&[0, 0][..], &length, &attributes, &[24, 198, 51, 100]].concat();

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect((IpAddr::from([10, 0, 9, 1]), 179).into()).await.unwrap();
    let all = [message(1, &open), message(4, &[]), message(2, &update)].concat();
    stream.write_all(&all).await.unwrap();
    stream
}

use self::add_path::add_path;
use self::choice::{decision, limit};
use self::dynamic::dynamic;
use self::extensions::{extended_messages, ipv4_by_ipv6};
use self::graceful::graceful_restart;
use self::policies::policy;
use self::reflection::reflection;
use self::rotation::md5_rotation;
use self::storm::collision_storm;

macro_rules! grid {
    ($($name:ident: $kind:expr, $feature:ident;)*) => {
        $(#[test] fn $name() { in_namespace(|| $feature(&$kind)); })*

        /// Names of all tests of the grid.
        const GRID: &[&str] = &[$(stringify!($name)),*];
    };
}

grid! {
    interop_frr_session_v4: frr::Frr, session_v4;
    interop_frr_session_v6: frr::Frr, session_v6;
    interop_frr_md5: frr::Frr, md5;
    interop_frr_md5_rotation: frr::Frr, md5_rotation;
    interop_frr_gtsm: frr::Frr, gtsm;
    interop_frr_communities: frr::Frr, communities;
    interop_frr_policy: frr::Frr, policy;
    interop_frr_limit: frr::Frr, limit;
    interop_frr_decision: frr::Frr, decision;
    interop_frr_add_path: frr::Frr, add_path;
    interop_frr_collision_storm: frr::Frr, collision_storm;
    interop_frr_dynamic: frr::Frr, dynamic;
    interop_frr_extended_messages: frr::Frr, extended_messages;
    interop_frr_ipv4_by_ipv6: frr::Frr, ipv4_by_ipv6;
    interop_frr_reflection: frr::Frr, reflection;
    interop_frr_graceful_restart: frr::Frr, graceful_restart;
    interop_frr_route_refresh: frr::Frr, route_refresh;
    interop_bird2_session_v4: bird::Two, session_v4;
    interop_bird2_session_v6: bird::Two, session_v6;
    interop_bird2_md5: bird::Two, md5;
    interop_bird2_md5_rotation: bird::Two, md5_rotation;
    interop_bird2_gtsm: bird::Two, gtsm;
    interop_bird2_communities: bird::Two, communities;
    interop_bird2_policy: bird::Two, policy;
    interop_bird2_limit: bird::Two, limit;
    interop_bird2_decision: bird::Two, decision;
    interop_bird2_add_path: bird::Two, add_path;
    interop_bird2_collision_storm: bird::Two, collision_storm;
    interop_bird2_dynamic: bird::Two, dynamic;
    interop_bird2_extended_messages: bird::Two, extended_messages;
    interop_bird2_ipv4_by_ipv6: bird::Two, ipv4_by_ipv6;
    interop_bird2_reflection: bird::Two, reflection;
    interop_bird2_graceful_restart: bird::Two, graceful_restart;
    interop_bird2_route_refresh: bird::Two, route_refresh;
    interop_bird1_session_v4: bird::One, session_v4;
    interop_bird1_session_v6: bird::One, session_v6;
    interop_bird1_md5: bird::One, md5;
    interop_bird1_md5_rotation: bird::One, md5_rotation;
    interop_bird1_gtsm: bird::One, gtsm;
    interop_bird1_communities: bird::One, communities;
    interop_bird1_policy: bird::One, policy;
    interop_bird1_limit: bird::One, limit;
    interop_bird1_decision: bird::One, decision;
    interop_bird1_add_path: bird::One, add_path;
    interop_bird1_collision_storm: bird::One, collision_storm;
    interop_bird1_dynamic: bird::One, dynamic;
    interop_bird1_extended_messages: bird::One, extended_messages;
    interop_bird1_reflection: bird::One, reflection;
    interop_bird1_graceful_restart: bird::One, graceful_restart;
    interop_bird1_route_refresh: bird::One, route_refresh;
    interop_gobgp_session_v4: gobgp::GoBgp, session_v4;
    interop_gobgp_session_v6: gobgp::GoBgp, session_v6;
    interop_gobgp_md5: gobgp::GoBgp, md5;
    interop_gobgp_md5_rotation: gobgp::GoBgp, md5_rotation;
    interop_gobgp_gtsm: gobgp::GoBgp, gtsm;
    interop_gobgp_communities: gobgp::GoBgp, communities;
    interop_gobgp_policy: gobgp::GoBgp, policy;
    interop_gobgp_limit: gobgp::GoBgp, limit;
    interop_gobgp_decision: gobgp::GoBgp, decision;
    interop_gobgp_add_path: gobgp::GoBgp, add_path;
    interop_gobgp_collision_storm: gobgp::GoBgp, collision_storm;
    interop_gobgp_dynamic: gobgp::GoBgp, dynamic;
    interop_gobgp_ipv4_by_ipv6: gobgp::GoBgp, ipv4_by_ipv6;
    interop_gobgp_reflection: gobgp::GoBgp, reflection;
    interop_gobgp_graceful_restart: gobgp::GoBgp, graceful_restart;
    interop_exabgp_session_v4: exabgp::ExaBgp, session_v4;
    interop_exabgp_session_v6: exabgp::ExaBgp, session_v6;
    interop_exabgp_md5: exabgp::ExaBgp, md5;
    interop_exabgp_md5_rotation: exabgp::ExaBgp, md5_rotation;
    interop_exabgp_gtsm: exabgp::ExaBgp, gtsm;
    interop_exabgp_communities: exabgp::ExaBgp, communities;
    interop_exabgp_policy: exabgp::ExaBgp, policy;
    interop_exabgp_limit: exabgp::ExaBgp, limit;
    interop_exabgp_decision: exabgp::ExaBgp, decision;
    interop_exabgp_add_path: exabgp::ExaBgp, add_path;
    interop_exabgp_collision_storm: exabgp::ExaBgp, collision_storm;
    interop_exabgp_dynamic: exabgp::ExaBgp, dynamic;
    interop_exabgp_extended_messages: exabgp::ExaBgp, extended_messages;
    interop_exabgp_ipv4_by_ipv6: exabgp::ExaBgp, ipv4_by_ipv6;
    interop_exabgp_reflection: exabgp::ExaBgp, reflection;
    interop_exabgp_graceful_restart: exabgp::ExaBgp, graceful_restart;
    interop_exabgp_route_refresh: exabgp::ExaBgp, route_refresh;
    interop_openbgpd_session_v4: openbgpd::OpenBgpd, session_v4;
    interop_openbgpd_session_v6: openbgpd::OpenBgpd, session_v6;
    interop_openbgpd_md5: openbgpd::OpenBgpd, md5;
    interop_openbgpd_md5_rotation: openbgpd::OpenBgpd, md5_rotation;
    interop_openbgpd_gtsm: openbgpd::OpenBgpd, gtsm;
    interop_openbgpd_communities: openbgpd::OpenBgpd, communities;
    interop_openbgpd_policy: openbgpd::OpenBgpd, policy;
    interop_openbgpd_limit: openbgpd::OpenBgpd, limit;
    interop_openbgpd_decision: openbgpd::OpenBgpd, decision;
    interop_openbgpd_add_path: openbgpd::OpenBgpd, add_path;
    interop_openbgpd_collision_storm: openbgpd::OpenBgpd, collision_storm;
    interop_openbgpd_dynamic: openbgpd::OpenBgpd, dynamic;
    interop_openbgpd_reflection: openbgpd::OpenBgpd, reflection;
    interop_openbgpd_graceful_restart: openbgpd::OpenBgpd, graceful_restart;
    interop_openbgpd_route_refresh: openbgpd::OpenBgpd, route_refresh;
}

#[test]
fn the_grid_of_the_readme_has_a_test_for_each_yes_and_a_reason_for_each_other_cell() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Who it talks to\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let (table, words): (Vec<&str>, Vec<&str>) =
        section.lines().partition(|line| line.starts_with('|'));
    let words = words.join("\n");
    let cells = |row: &'static str| row.split('|').skip(1).map(str::trim).collect::<Vec<_>>();
    let quoted = |cell: &'static str| cell.split('`').nth(1).unwrap_or_default();
    let mut rows = table.into_iter().map(cells);
    let columns = rows.next().unwrap();
    let mut tests = BTreeSet::new();
    for row in rows.skip(1) {
        for (peer, cell) in columns.iter().zip(&row).skip(1).filter(|(peer, _)| !peer.is_empty()) {
            let name = format!("interop_{}_{}", quoted(peer), quoted(row[0]));
            if let Some(note) = cell.split('(').nth(1) {
                assert!(words.contains(&format!("({note} ")), "{name}: ({note} is not explained");
            } else {
                assert_eq!(*cell, "yes", "{name}");
            }
            if cell.starts_with("yes") {
                tests.insert(name);
            }
        }
    }
    assert_eq!(tests, GRID.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
}
