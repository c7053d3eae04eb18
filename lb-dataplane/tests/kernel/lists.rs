//! Who may begin flows of a service with a long list.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use lb_dataplane::table::Access;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Reason, Sizes};

use crate::frame::{SYN, packet};
use crate::scene::{BOTH, Scene, small};

const V4: (&str, &str) = ("192.0.2.1:80", "10.2.0.1:80");
const V6: (&str, &str) = ("[2001:db8:f::1]:80", "[2001:db8:2::1]:80");

/// A number in a row that is scattered (Fibonacci hashing).
fn scattered(n: u32) -> u16 {
    (n.wrapping_mul(0x9e37_79b9) >> 16) as u16
}

fn prefix(address: IpAddr, len: u8, is_admitted: bool) -> Access {
    Access { prefix: IpNetwork::new(address, len).unwrap(), is_admitted }
}

/// Scattered addresses, and prefixes within each other.
fn list4(count: u32) -> Vec<Access> {
    let nested =
        [([10, 1, 64, 0], 18, false), ([10, 1, 80, 0], 20, true), ([10, 1, 80, 8], 29, false)];
    let nested = nested.map(|(address, len, is)| prefix(address.into(), len, is));
    let address = |n| {
        let [high, low] = scattered(n).to_be_bytes();
        prefix(IpAddr::from([10, 1, high, low | 1]), 32, n % 3 != 0)
    };
    nested.into_iter().chain((0..count).map(address)).collect()
}

/// Scattered networks and addresses, of which bounds have 48 bits, 96, and all.
fn list6(count: u32) -> Vec<Access> {
    let network = |n| {
        let address = [0x2001, 0xdb8, 1, scattered(n) | 1, 0, 0, 0, 0];
        prefix(IpAddr::from(address), 64, n % 3 != 0)
    };
    let address = |n| {
        let address = [0x2001, 0xdb8, 1, 0xfffe, 0, 0, n as u16 % 3, scattered(n) | 1];
        prefix(IpAddr::from(address), [128, 127, 112][n as usize % 3], n % 2 != 0)
    };
    let whole = [prefix("2001:db8::".parse().unwrap(), 32, false)];
    let nested = prefix("2001:db8:1:8000::".parse().unwrap(), 49, true);
    let all = whole.into_iter().chain([nested]);
    all.chain((0..count / 2).map(network)).chain((0..count / 2).map(address)).collect()
}

fn says(list: &[Access], client: IpAddr) -> bool {
    let longest = list
        .iter()
        .filter(|access| access.prefix.contains(client))
        .max_by_key(|access| access.prefix.prefix());
    longest.map_or(!list.iter().any(|access| access.is_admitted), |access| access.is_admitted)
}

/// Of some of its prefixes the first address, and those around.
fn clients(list: &[Access]) -> Vec<IpAddr> {
    let step = list.len() / 40;
    let around = |access: &Access| match access.prefix.network() {
        IpAddr::V4(address) => {
            [-1, 0, 1].map(|n| IpAddr::V4(address.to_bits().wrapping_add_signed(n).into())).to_vec()
        }
        IpAddr::V6(address) => {
            [-1, 0, 1].map(|n| IpAddr::V6(address.to_bits().wrapping_add_signed(n).into())).to_vec()
        }
    };
    list.iter().step_by(step.max(1)).flat_map(around).collect()
}

#[test]
fn a_long_list_holds_for_every_client_and_so_does_the_next_one() {
    for hook in BOTH {
        for ((vip, backend), list_of) in [(V4, list4 as fn(u32) -> Vec<Access>), (V6, list6)] {
            let mut scene = Scene::with_sizes(Sizes { access: 32_768, ..small() });
            let mut port = 1024;
            let mut clients_of: Vec<IpAddr> = Vec::new();
            for list in [list_of(10_000), list_of(9_000), list_of(60), Vec::new()] {
                scene.access.clone_from(&list);
                scene.serve(vip, Tcp, Maglev, &[backend]);
                if !list.is_empty() {
                    clients_of = clients(&list);
                }
                let mut seen = [0, 0];
                for client in &clients_of {
                    port += 1;
                    let from = SocketAddr::new(*client, port).to_string();
                    let sent = scene.send(hook, &packet(SYN, &from, vip));
                    let is_admitted = says(&list, *client);
                    seen[usize::from(is_admitted)] += 1;
                    let expected = if is_admitted {
                        Reason::ForwardedToBackend
                    } else {
                        Reason::SourceRefused
                    };
                    assert_eq!(sent.reason, expected, "{hook:?} {} {client}", list.len());
                }
                assert!(list.is_empty() || seen.iter().all(|count| *count > 3), "{seen:?}");
            }
        }
    }
}
