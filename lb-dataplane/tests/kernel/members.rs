//! Routed packets: what they keep, and by which of many members they leave.

use std::collections::BTreeMap;

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::Tcp;
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frame::{SYN, UDP, packet, sum};
use crate::scene::{BACKEND_SIDE, BOTH, Scene, small};

#[test]
fn dscp_ecn_and_flow_label_are_kept() {
    // EF with ECT(1), and with CE.
    let cases =
        [("10.1.0.5:9", "10.2.0.3:9", 0xb9_u8), ("[2001:db8:1::5]:9", "[2001:db8:2::3]:9", 0xbb)];
    for hook in BOTH {
        let mut scene = Scene::new();
        for (from, to, class) in cases {
            let mut bytes = packet(UDP, from, to).bytes();
            if bytes[14] >> 4 == 4 {
                bytes[15] = class;
                bytes[24..26].fill(0);
                let checksum = sum(&[&bytes[14..34]]);
                bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
            } else {
                let first = 6 << 28 | u32::from(class) << 20 | 0xabcde;
                bytes[14..18].copy_from_slice(&first.to_be_bytes());
            }
            let ended = scene.send_bytes(hook, &bytes, None);
            assert_eq!(ended.reason, Reason::Forwarded, "{hook:?} {from}");
            // Every checksum is verified.
            assert_eq!(ended.frame().ttl, 63);
            assert_eq!(ended.bytes()[14..18], bytes[14..18], "{hook:?} {from}");
        }
    }
}

/// The last one of 256.
const LAST: u8 = 255;
const FLOWS: u16 = 8192;

fn members(numbers: impl Iterator<Item = u8>) -> Action {
    let one = |n| Member { destination_mac: Some([2, 0, 0, 0, 9, n]), ..BACKEND_SIDE };
    Action::Forward(numbers.map(one).collect())
}

/// By which member packets leave, by their source port.
fn ways(scene: &mut Scene, hook: Hook, network: &str) -> BTreeMap<u16, u8> {
    let mut bytes = packet(UDP, &network.replace("{}", "1"), &network.replace("{}", "9")).bytes();
    let at = if bytes[14] >> 4 == 4 { 34 } else { 54 };
    let way = |port: u16| {
        // A checksum that is wrong is the receiver's business.
        bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
        let ended = scene.send_bytes(hook, &bytes, None);
        assert_eq!(ended.reason, Reason::Forwarded);
        (port, ended.bytes()[5])
    };
    (1..=FLOWS).map(way).collect()
}

#[test]
fn packets_leave_by_each_of_256_members_and_one_that_goes_moves_only_its_own() {
    for (hook, network) in [(Hook::Tc, "10.{}.0.3:7"), (Hook::Xdp, "[2001:db8:{}::3]:7")] {
        // 4,096 buckets, and as many again while they change.
        let mut scene = Scene::with_sizes(Sizes { fib_bucket_pages: 8, ..small() });
        let group = |action| FibUpdate::Group { id: 9, action };
        let updates = [
            group(members(0..=LAST)),
            FibUpdate::Route { prefix: [10, 9, 0, 0].into(), len: 16, group: 9 },
            FibUpdate::Route { prefix: "2001:db8:9::".parse().unwrap(), len: 48, group: 9 },
        ];
        scene.get().fib_apply(&updates).unwrap();
        let before = ways(&mut scene, hook, network);
        let mut counts = [0_u16; 256];
        before.values().for_each(|member| counts[usize::from(*member)] += 1);
        // 32 each on average.
        assert!(counts.iter().all(|count| (8..80).contains(count)), "{hook:?}: {counts:?}");
        let rest = group(members((0..=LAST).filter(|n| *n != 77)));
        scene.get().fib_apply(&[rest]).unwrap();
        let after = ways(&mut scene, hook, network);
        assert!(after.values().all(|member| *member != 77), "{hook:?}: it still gets flows");
        let moved = before.iter().filter(|(port, way)| **way != 77 && after[port] != **way);
        assert_eq!(moved.count(), 0, "{hook:?}: flows of others moved");
    }
}

/// Routes to a group of more members than one may have.
pub(crate) fn route_to_many(scene: &mut Scene) {
    let many = (0..257_u16).map(|n| Member {
        destination_mac: Some([2, 0, 0, 9, (n >> 8) as u8, n as u8]),
        ..BACKEND_SIDE
    });
    let action = Action::Forward(many.collect());
    let refused = FibUpdate::GroupWith { id: 9, action, like: None, is_apart: true };
    assert!(scene.get().fib_apply(&[refused]).is_err());
    let route =
        |prefix: &str, len| FibUpdate::Route { prefix: prefix.parse().unwrap(), len, group: 9 };
    scene.get().fib_apply(&[route("10.9.0.0", 16), route("2001:db8:9::", 48)]).unwrap();
}

#[test]
fn packets_to_a_group_that_does_not_fit_and_that_the_kernel_knows_nothing_of_are_dropped() {
    let mut scene = Scene::new();
    scene.serve("192.0.2.1:80", Tcp, Maglev, &["10.9.0.8:80"]);
    route_to_many(&mut scene);
    for hook in BOTH {
        for (from, to) in [
            ("10.1.0.3:7", "10.9.0.3:7"),
            ("[2001:db8:1::3]:7", "[2001:db8:9::3]:7"),
            ("10.1.0.3:4000", "192.0.2.1:80"),
        ] {
            let carries = if to.ends_with(":80") { SYN } else { UDP };
            let ended = scene.send(hook, &packet(carries, from, to));
            assert_eq!(ended.reason, Reason::FibFull, "{hook:?} {to}");
        }
    }
}
