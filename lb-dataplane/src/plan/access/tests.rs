use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use lb_dataplane_common::family::{Family, V4, V6};
use lb_dataplane_common::list::{
    List, ListTables, MAX_NODES, MAX_PREFIXES, NODE_WORDS, admits, bits,
};
use proptest::prelude::*;

use super::*;

/// The list of one service, as packets have it, and how many nodes were read.
struct Tables {
    /// Of another service.
    before: u32,
    words: Vec<u64>,
    read: Cell<u32>,
}

impl ListTables for Tables {
    type Node = u32;

    fn list(&self, service: u32) -> Option<u64> {
        assert_eq!(service, 7);
        let nodes = self.words.len() as u32 / NODE_WORDS;
        Some(List { first: self.before, nodes }.to_word())
    }

    fn list_node(&self, index: u32) -> Option<u32> {
        let first = index.checked_sub(self.before)? * NODE_WORDS;
        self.read.set(self.read.get() + 1);
        ((first as usize) < self.words.len()).then_some(first)
    }

    fn list_word(&self, node: u32, place: u32) -> u64 {
        self.words[(node + place) as usize]
    }
}

impl Tables {
    fn of(access: &[Access]) -> Self {
        Self { before: 40, words: words(access), read: 0.into() }
    }

    /// What packets meet, and in how many nodes.
    fn meets(&self, client: IpAddr) -> (bool, u32) {
        self.read.set(0);
        let client = match client {
            IpAddr::V4(client) => bits::<V4>(u32::from_ne_bytes(client.octets())),
            IpAddr::V6(client) => bits::<V6>(V6::from_bytes(client.octets())),
        };
        let admits = admits(self, 7, client);
        (admits.expect("it is as it was written"), self.read.get())
    }
}

/// What the list says, prefix by prefix.
fn says(access: &[Access], client: IpAddr) -> bool {
    let unlisted = !access.iter().any(|access| access.is_admitted);
    // Of the same prefix the last.
    let holding = access.iter().filter(|access| access.prefix.contains(client));
    let longest = holding.max_by_key(|access| access.prefix.prefix());
    longest.map_or(unlisted, |access| access.is_admitted)
}

/// Addresses at which the answer may change: the first and the last of each prefix, and those around.
fn edges(access: &[Access]) -> Vec<IpAddr> {
    let of = |prefix: IpNetwork| match prefix {
        IpNetwork::V4(prefix) => {
            let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1), 0, u32::MAX];
            all.map(|address| IpAddr::V4(address.into()))
        }
        IpNetwork::V6(prefix) => {
            let first = prefix.network().to_bits();
            let last = first | u128::MAX.checked_shr(prefix.prefix().into()).unwrap_or(0);
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1), 0, u128::MAX];
            all.map(|address| IpAddr::V6(address.into()))
        }
    };
    access.iter().flat_map(|access| of(access.prefix)).collect()
}

fn access(prefix: &str, is_admitted: bool) -> Access {
    Access { prefix: prefix.parse().unwrap(), is_admitted }
}

/// Few distinct bytes, so that prefixes lie within each other, and lengths at and around where trees end.
fn prefixes(is_v6: bool) -> impl Strategy<Value = Vec<Access>> {
    let byte = prop::sample::select(vec![0_u8, 0, 1, 0x7f, 0x80, 0xfe, 0xff, 0xff]);
    let lens: Vec<u8> = if is_v6 {
        vec![0, 1, 8, 32, 47, 48, 48, 49, 56, 64, 64, 80, 95, 96, 97, 112, 127, 128, 128]
    } else {
        vec![0, 1, 8, 15, 16, 24, 24, 30, 31, 32, 32]
    };
    let one = (prop::array::uniform16(byte), prop::sample::select(lens), any::<bool>());
    let one = one.prop_map(move |(bytes, len, is_admitted)| {
        let address = if is_v6 {
            IpAddr::from(bytes)
        } else {
            IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        Access { prefix: IpNetwork::new(address, len).unwrap(), is_admitted }
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn packets_meet_what_the_longest_prefix_says(
        list in any::<bool>().prop_flat_map(prefixes), changes in prop::collection::vec(any::<prop::sample::Index>(), 0..4)
    ) {
        let mut list = list;
        // Every prefix says one thing: of two that are the same, which one holds is nobody's business.
        list.sort_by_key(|access| (access.prefix.network(), access.prefix.prefix()));
        list.dedup_by_key(|access| (access.prefix.network(), access.prefix.prefix()));
        let clients = edges(&list);
        for change in changes.iter().map(Some).chain([None]) {
            let tables = Tables::of(&list);
            for client in &clients {
                prop_assert_eq!(tables.meets(*client).0, says(&list, *client), "{}", client);
            }
            if let Some(change) = change && list.len() > 1 {
                list.remove(change.index(list.len()));
            }
        }
    }
}

#[test]
fn lists_that_say_the_same_have_the_same_words() {
    let one = [access("10.0.0.0/8", true), access("10.1.0.0/16", true), access("9.0.0.0/8", false)];
    let other = [access("10.0.0.0/9", true), access("10.128.0.0/9", true)];
    assert_eq!(words(&one), words(&other));
    assert_ne!(words(&one), words(&other[..1]));
}

#[test]
fn prefixes_of_everything_leave_no_bound() {
    for (all, client) in [("0.0.0.0/0", "255.255.255.255"), ("::/0", "ffff::ffff")] {
        for is_admitted in [true, false] {
            let tables = Tables::of(&[access(all, is_admitted)]);
            assert_eq!(tables.words.len(), NODE_WORDS as usize);
            assert_eq!(tables.meets(client.parse().unwrap()), (is_admitted, 1));
        }
    }
}

/// So many prefixes of a length, spread over all addresses by Fibonacci hashing.
fn spread(count: usize, len: u8, is_v6: bool) -> Vec<Access> {
    let prefix = |n: u128| {
        let address = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let address = if is_v6 {
            IpAddr::V6(address.into())
        } else {
            IpAddr::V4(((address >> 96) as u32).into())
        };
        Access { prefix: IpNetwork::new(address, len).unwrap(), is_admitted: true }
    };
    (1..=count as u128).map(prefix).collect()
}

#[test]
fn a_lookup_reads_as_many_nodes_as_the_list_has_levels_wherever_the_client_is() {
    for (count, nodes) in [(1, 1), (3, 1), (4, 2), (100, 3), (10_000, 5), (MAX_PREFIXES, 6)] {
        for (is_v6, len) in [(false, 32), (true, 48)] {
            let list = spread(count, len, is_v6);
            let tables = Tables::of(&list);
            for client in edges(&list) {
                assert_eq!(tables.meets(client).1, nodes, "{count} {client}");
            }
        }
    }
}

#[test]
fn the_longest_list_fits_however_far_its_prefixes_lie_apart() {
    let list = spread(MAX_PREFIXES, 128, true);
    let tables = Tables::of(&list);
    let nodes = tables.words.len() as u32 / NODE_WORDS;
    // Each prefix has two trees of its own.
    assert!((2 * MAX_PREFIXES as u32..MAX_NODES).contains(&nodes), "{nodes}");
    let admitted: BTreeSet<IpAddr> = list.iter().map(|access| access.prefix.ip()).collect();
    for client in edges(&list) {
        assert_eq!(tables.meets(client).0, admitted.contains(&client), "{client}");
    }
}

#[test]
fn words_that_nobody_wrote_lead_nowhere_for_long() {
    // A node that leads to itself.
    let words = vec![1, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX];
    let tables = Tables { before: 40, words, read: 0.into() };
    assert_eq!(admits(&tables, 7, [0; 2]), None);
}
