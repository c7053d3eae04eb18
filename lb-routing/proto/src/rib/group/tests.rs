use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::piece::PIECE;
use super::*;
use crate::config::{Import, SpeakerConfig};
use crate::policy::{Actions, Chain, NextHop, Policy, Statement, Verdict};
use crate::rib::{PathEntry, Ranking, Rules, Source, Usage};
use crate::session::{Negotiated, Up};
use crate::speaker::ConnId;
use crate::wire::{self, AsPath, Attributes, Block, Context, Family, Parts, PathId, PathIds};

const US: u32 = 65001;
const CONTEXT: Context = Context { four_octet_as: true, external: true };
const FAMILIES: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
/// Neighbours; every one can send routes and be a member.
const PEERS: PeerIndex = 4;

fn address(peer: PeerIndex) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 10 + peer])
}

fn config(peer: PeerIndex) -> PeerConfig {
    PeerConfig {
        import: Import::All,
        export: Export::All,
        ..PeerConfig::new(address(peer), 65100 + u32::from(peer))
    }
}

fn prefix(number: u16) -> IpNetwork {
    if number.is_multiple_of(3) {
        let address = IpAddr::from([0x2001, 0xdb8, number, 0, 0, 0, 0, 0]);
        return IpNetwork::new(address, 48).unwrap();
    }
    let [high, low] = number.to_be_bytes();
    IpNetwork::new(IpAddr::from([10, high, low, 0]), 24).unwrap()
}

/// What a member knows, from the bytes that it got.
#[derive(Default)]
struct Knows {
    routes: BTreeMap<IpNetwork, Attributes>,
    /// With path identifiers.
    paths: BTreeMap<(IpNetwork, PathId), Attributes>,
    ended: BTreeSet<Family>,
    messages: u64,
}

impl Knows {
    fn hear(&mut self, sending: &Sending, ids: PathIds) {
        let mut rest = &sending.bytes[..];
        let mut messages = 0;
        while let Some(len) = wire::frame(rest).unwrap() {
            let (message, after) = rest.split_at(len);
            rest = after;
            messages += 1;
            let parts = Parts::new(wire::update_body(message).expect("an UPDATE"), ids).unwrap();
            let block = Block::new(&parts.block, CONTEXT).unwrap();
            assert_eq!(parts.judge(&block.verdict, CONTEXT).unwrap().faults, []);
            for field in [Some(parts.withdrawn), parts.unreach()].into_iter().flatten() {
                for (id, prefix) in field.paths() {
                    self.routes.remove(&prefix);
                    self.paths.remove(&(prefix, id));
                }
            }
            let reach = parts.reach().map(|(_, field)| field);
            for field in [Some(parts.nlri), reach].into_iter().flatten() {
                for (id, prefix) in field.paths() {
                    self.routes.insert(prefix, block.attributes.clone());
                    self.paths.insert((prefix, id), block.attributes.clone());
                }
            }
            if let Some(family) = parts.end_of_rib {
                assert!(self.ended.insert(family), "the end of a family comes once");
            }
        }
        assert!(rest.is_empty(), "whole messages only");
        assert_eq!(messages, sending.messages);
        self.messages += messages;
    }

    /// Each prefix's paths, without their identifiers.
    fn sorted(&self) -> BTreeMap<IpNetwork, Vec<String>> {
        let mut sorted = BTreeMap::<_, Vec<_>>::new();
        for (&(prefix, _), attributes) in &self.paths {
            sorted.entry(prefix).or_default().push(format!("{attributes:?}"));
        }
        sorted.values_mut().for_each(|paths| paths.sort());
        sorted
    }
}

struct Rig {
    rib: Rib,
    group: Group,
    members: BTreeMap<PeerIndex, Knows>,
    /// Paths lead to neighbours, whoever told us, and members are told so.
    kept: bool,
}

/// Passes next hops on.
fn unchanged() -> Export {
    let actions = Actions { next_hop: Some(NextHop::Unchanged), ..Actions::default() };
    let (name, conditions, verdict) = (String::new(), Vec::new(), Verdict::Accept);
    let statements = vec![Statement { name, conditions, actions, verdict }];
    let policy = Policy { name: "p".into(), statements, otherwise: Verdict::Next };
    Export::Policies(Chain::new(vec![policy.into()]))
}

impl Rig {
    fn new() -> Self {
        Self::with(PathIds::NONE, 1, false)
    }

    /// Members hear of so many paths of a prefix.
    fn with(ids: PathIds, paths: u8, kept: bool) -> Self {
        let ranking = |peer: PeerIndex| Ranking {
            external: true,
            client: false,
            router_id: Ipv4Addr::new(1, 1, 1, u8::try_from(peer).unwrap()),
            address: address(peer),
        };
        let rules = Rules { decision: crate::config::Decision::USUAL, max_paths: 1 };
        let rib = Rib::new((0..PEERS).map(ranking).collect(), rules, Keyed::new([1, 2]));
        let negotiated = Negotiated {
            router_id: Ipv4Addr::new(1, 1, 1, 1),
            hold_time: Duration::ZERO,
            context: CONTEXT,
            families: FAMILIES.to_vec(),
            graceful: None,
            route_refresh: true,
            ids_received: PathIds::NONE,
            ids_sent: ids,
            enhanced_refresh: false,
            extended_messages: false,
            ipv4_by_ipv6: false,
        };
        let up = Up { conn: ConnId(1), local: "2001:db8::1".parse().unwrap(), negotiated };
        let speaker =
            SpeakerConfig { max_paths: 1, ..SpeakerConfig::new(US, Ipv4Addr::new(10, 0, 0, 1)) };
        let export = if kept { unchanged() } else { Export::All };
        let config = PeerConfig { add_path_send: paths, export, ..config(0) };
        let key = GroupKey::new(&config, &speaker, &up);
        let group = Group::new(key, config, Keyed::new([1, 2]), &rib);
        Self { rib, group, members: BTreeMap::new(), kept }
    }

    fn learn(&mut self, peer: PeerIndex, prefix: IpNetwork, med: u32) {
        self.learn_path(peer, (prefix, 0), med);
    }

    fn learn_path(&mut self, peer: PeerIndex, (prefix, path_id): (IpNetwork, PathId), med: u32) {
        // Neighbours 2 and 3 are of one AS, so what is heard of their paths is the same.
        let as_path = AsPath::sequence(&[65100 + u32::from(peer.min(2))]);
        let attributes = Attributes { as_path, communities: vec![med], ..Attributes::default() };
        let next_hop = match self.kept {
            true => address((peer + u16::try_from(med).unwrap()) % PEERS),
            false => "2001:db8::2".parse().unwrap(),
        };
        let attributes = self.rib.intern(&attributes, Some(next_hop), Source::of(peer));
        let source = Source::of(peer);
        let path = PathEntry {
            received: attributes,
            attributes,
            path_id,
            source,
            stale: false,
            usage: Usage::Both,
        };
        self.rib.insert(&prefix, path);
        self.rib.release(attributes);
    }

    fn join(&mut self, peer: PeerIndex) {
        if !self.members.contains_key(&peer) {
            self.group.join(peer, address(peer));
            self.members.insert(peer, Knows::default());
        }
    }

    fn mark(&mut self) {
        while let Some(change) = self.rib.next_change() {
            self.group.mark(change.id);
        }
    }

    fn flush(&mut self) -> bool {
        self.mark();
        let Some(sendings) = self.group.flush(&mut self.rib) else { return false };
        for sending in sendings {
            self.members.get_mut(&sending.peer).unwrap().hear(&sending, self.group.key.ids);
        }
        true
    }

    fn step(&mut self, (step, peer, number): (u8, PeerIndex, u16)) {
        let backlogs = [Backlog::Little, Backlog::Some, Backlog::Enough];
        match step {
            0..4 => {
                let path = (prefix(number), u32::from(step % 2));
                self.learn_path(peer, path, u32::from(step));
            }
            4 | 5 => {
                let origin = (Source::of(peer), u32::from(step - 4));
                self.rib.remove(&prefix(number), origin);
            }
            6 => self.rib.remove_peer(peer, u64::MAX),
            7 => self.join(peer),
            8 if self.members.remove(&peer).is_some() => self.group.leave(peer, &mut self.rib),
            9 => self.group.set_backlog(peer, backlogs[usize::from(number % 3)]),
            10 => self.group.refresh(peer, FAMILIES[usize::from(number % 2)]),
            _ => drop(self.flush()),
        }
    }

    /// Everybody has room, and everything is said.
    fn settle(&mut self) {
        for peer in 0..PEERS {
            self.group.set_backlog(peer, Backlog::Little);
        }
        while self.flush() {}
    }

    /// Whether a path neither came from a neighbour nor leads there.
    fn may_hear(&self, peer: PeerIndex, path: &PathEntry) -> bool {
        let leads_there = self.rib.next_hop_of(path.attributes) == Some(address(peer));
        path.source != Source::of(peer) && !leads_there
    }

    /// What an Adj-RIB-Out of its own would hold for a neighbour.
    fn expected(&self, peer: PeerIndex) -> BTreeMap<IpNetwork, Attributes> {
        let mut expected = BTreeMap::new();
        for (prefix, id) in self.rib.iter() {
            let best = self.rib.best(id).unwrap();
            // Our end of the session is IPv6.
            if self.may_hear(peer, best) && prefix.is_ipv6() {
                let mut attributes = self.rib.attributes(best.attributes);
                attributes.as_path.prepend(US);
                expected.insert(prefix, attributes);
            }
        }
        expected
    }

    /// The same where it hears of several paths.
    fn expected_paths(&self, peer: PeerIndex) -> BTreeMap<IpNetwork, Vec<String>> {
        let mut expected = BTreeMap::new();
        for (prefix, id) in self.rib.iter().filter(|(prefix, _)| prefix.is_ipv6()) {
            let mut ranked = Vec::new();
            self.rib.ranked(id, |path| {
                ranked.push(*path);
                ranked.len() == usize::from(self.group.key.paths)
            });
            let told = ranked.iter().filter(|path| self.may_hear(peer, path)).map(|path| {
                let mut attributes = self.rib.attributes(path.attributes);
                attributes.as_path.prepend(US);
                format!("{attributes:?}")
            });
            let mut told: Vec<_> = told.collect();
            told.sort();
            if !told.is_empty() {
                expected.insert(prefix, told);
            }
        }
        expected
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_member_knows_what_an_adj_rib_out_of_its_own_would_hold(
        steps in prop::collection::vec((0_u8..14, 0..PEERS, 0_u16..12), 0..200),
        kept in any::<bool>(),
    ) {
        let mut rig = Rig::with(PathIds::NONE, 1, kept);
        for step in steps {
            rig.step(step);
        }
        rig.settle();
        for (peer, knows) in &rig.members {
            prop_assert_eq!(&knows.routes, &rig.expected(*peer), "neighbour {}", peer);
            prop_assert_eq!(rig.group.advertised(*peer), knows.routes.len());
            prop_assert_eq!(knows.ended.len(), 2);
        }
        // Nothing is kept of what is gone.
        for peer in 0..PEERS {
            rig.rib.remove_peer(peer, u64::MAX);
        }
        if rig.members.is_empty() {
            rig.join(0);
        }
        rig.settle();
        prop_assert_eq!(rig.rib.prefixes.len(), 0);
        prop_assert_eq!(rig.rib.attributes.len(), 0);
        prop_assert_eq!(rig.group.outs.len(), 0);
    }

    #[test]
    fn every_member_knows_the_best_paths_of_others_where_it_hears_of_several(
        steps in prop::collection::vec((0_u8..14, 0..PEERS, 0_u16..12), 0..200),
        paths in prop::sample::select(vec![2_u8, 3, 64]),
        kept in any::<bool>(),
    ) {
        let mut rig = Rig::with(PathIds { ipv4: false, ipv6: true }, paths, kept);
        for step in steps {
            rig.step(step);
        }
        rig.settle();
        for (peer, knows) in &rig.members {
            prop_assert_eq!(knows.sorted(), rig.expected_paths(*peer), "neighbour {}", peer);
            prop_assert_eq!(rig.group.advertised(*peer), knows.paths.len());
            prop_assert_eq!(knows.ended.len(), 2);
            let largest = knows.paths.keys().map(|(_, id)| *id).max().unwrap_or(1);
            prop_assert!((1..=u32::from(paths)).contains(&largest), "identifier {}", largest);
        }
        for peer in 0..PEERS {
            rig.rib.remove_peer(peer, u64::MAX);
        }
        if rig.members.is_empty() {
            rig.join(0);
        }
        rig.settle();
        prop_assert_eq!(rig.rib.prefixes.len(), 0);
        prop_assert_eq!(rig.rib.attributes.len(), 0);
        prop_assert_eq!(rig.group.outs.len(), 0);
    }
}

#[test]
fn members_in_step_share_the_bytes() {
    let mut rig = Rig::new();
    (0..3).for_each(|peer| rig.join(peer));
    rig.settle();
    (0..3000).for_each(|number| rig.learn(3, prefix(3 * number), 1));
    rig.mark();
    let sendings = rig.group.flush(&mut rig.rib).unwrap();
    let places: BTreeSet<_> = sendings.iter().map(|it| it.bytes.as_ptr()).collect();
    assert_eq!((sendings.len(), places.len()), (3, 1));
    // 3000 prefixes of 7 octets, in messages of 4096.
    assert_eq!(sendings[0].messages, 6);
}

#[test]
fn who_reads_slowly_hears_the_last_of_many_changes_and_nobody_waits() {
    let mut rig = Rig::new();
    (0..2).for_each(|peer| rig.join(peer));
    rig.settle();
    rig.group.set_backlog(0, Backlog::Enough);
    let before = rig.members[&0].messages;
    for round in 0..50 {
        rig.learn(3, prefix(3), round);
        while rig.flush() {}
        assert_eq!(rig.members[&1].routes[&prefix(3)].communities, [round]);
    }
    assert_eq!(rig.members[&0].messages, before);
    rig.settle();
    assert_eq!(rig.members[&0].routes, rig.expected(0));
    assert_eq!(rig.members[&0].messages, before + 1);
}

#[test]
fn a_withdrawal_reaches_a_slow_member_though_another_prefix_took_the_number() {
    let mut rig = Rig::new();
    (0..2).for_each(|peer| rig.join(peer));
    rig.learn(3, prefix(3), 1);
    rig.settle();
    rig.group.set_backlog(0, Backlog::Enough);
    rig.rib.remove(&prefix(3), (Source::of(3), 0));
    while rig.flush() {}
    rig.learn(3, prefix(6), 1);
    rig.settle();
    assert_eq!(rig.members[&0].routes, rig.expected(0));
}

#[test]
fn the_same_route_from_another_neighbour_is_news_to_these_two_only() {
    let mut rig = Rig::new();
    (0..PEERS).for_each(|peer| rig.join(peer));
    rig.learn(2, prefix(3), 1);
    rig.learn(3, prefix(3), 1);
    rig.settle();
    let messages = |rig: &Rig| rig.members.values().map(|it| it.messages).collect::<Vec<_>>();
    let before = messages(&rig);
    rig.rib.remove(&prefix(3), (Source::of(2), 0));
    rig.settle();
    let said: Vec<_> = messages(&rig).iter().zip(before).map(|(now, then)| now - then).collect();
    assert_eq!(said, [0, 0, 1, 1]);
    assert_eq!(rig.members[&3].routes, BTreeMap::new());
}

#[test]
fn who_stays_behind_while_prefixes_come_and_go_is_given_up() {
    let mut rig = Rig::new();
    (0..2).for_each(|peer| rig.join(peer));
    rig.settle();
    rig.group.max_ghosts = 3;
    rig.group.set_backlog(0, Backlog::Enough);
    for number in 1..=4 {
        assert_eq!(rig.group.overdue(), []);
        rig.learn(3, prefix(3 * number), 1);
        while rig.flush() {}
        rig.rib.remove(&prefix(3 * number), (Source::of(3), 0));
        while rig.flush() {}
    }
    assert_eq!(rig.group.overdue(), [0]);
}

#[test]
fn a_piece_is_bounded_in_octets_whatever_the_attributes() {
    let mut rig = Rig::new();
    (0..2).for_each(|peer| rig.join(peer));
    rig.settle();
    let as_path = AsPath::sequence(&[65103]);
    for number in 0..2000 {
        // 4000 octets beside which hardly a prefix fits.
        let communities = vec![u32::from(number % 700); 1000];
        let attributes =
            Attributes { as_path: as_path.clone(), communities, ..Attributes::default() };
        let next_hop = "2001:db8::2".parse().unwrap();
        let attributes = rig.rib.intern(&attributes, Some(next_hop), Source::of(3));
        let path = PathEntry {
            received: attributes,
            attributes,
            path_id: 0,
            source: Source::of(3),
            stale: false,
            usage: Usage::Both,
        };
        rig.rib.insert(&prefix(3 * number), path);
        rig.rib.release(attributes);
    }
    rig.mark();
    while let Some(sendings) = rig.group.flush(&mut rig.rib) {
        for sending in sendings {
            assert!(sending.bytes.len() < PIECE + PIECE / 4, "{}", sending.bytes.len());
            rig.members.get_mut(&sending.peer).unwrap().hear(&sending, PathIds::NONE);
        }
    }
    assert_eq!(rig.members[&0].routes, rig.expected(0));
}

#[test]
fn a_family_is_walked_once_however_often_it_is_asked_for() {
    let mut rig = Rig::new();
    rig.join(0);
    rig.learn(3, prefix(3), 1);
    rig.settle();
    let before = rig.members[&0].messages;
    (0..1000).for_each(|_| rig.group.refresh(0, Family::IPV6_UNICAST));
    rig.group.refresh(0, Family { afi: 25, safi: 70 });
    rig.settle();
    assert_eq!(rig.members[&0].messages, before + 1);
}

#[test]
fn small_messages_for_many_audiences_are_one_piece() {
    let mut rig = Rig::new();
    (0..PEERS).for_each(|peer| rig.join(peer));
    rig.settle();
    (0..PEERS).for_each(|peer| rig.learn(peer, prefix(3 + 3 * peer), 1));
    rig.mark();
    let sendings = rig.group.flush(&mut rig.rib).unwrap();
    assert_eq!(sendings.len(), usize::from(PEERS));
}

#[test]
fn a_member_that_changes_its_group_stays_though_it_knows_more_than_may_wait() {
    let mut rig = Rig::new();
    (0..2).for_each(|peer| rig.join(peer));
    (1..=5).for_each(|number| rig.learn(3, prefix(3 * number), 1));
    rig.settle();
    let mut other = Group::new(rig.group.key.clone(), config(0), Keyed::new([1, 2]), &rig.rib);
    other.max_ghosts = 3;
    other.adopt(0, &rig.group, &mut rig.rib);
    assert_eq!(other.overdue(), []);
    while other.flush(&mut rig.rib).is_some() {}
    assert_eq!((other.overdue(), other.inherited), (vec![], 0));
}
