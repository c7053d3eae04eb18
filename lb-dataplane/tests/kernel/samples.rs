//! Flows that are watched: their beginning and end are told, with counts.

use std::os::fd::AsFd;

use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::{Mode, Source};
use lb_dataplane::{FlowEvent, HowEnded, Reason, Sizes, seconds};

use crate::family::each;
use crate::frame::{ACK, Carries, FIN, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene, small};

/// A VIP, a client, a backend, and a source address of ours, of one family.
const FAMILIES: [[&str; 4]; 2] = [
    ["192.0.2.1:80", "10.1.0.5:40000", "10.2.0.9:8080", "192.0.2.7"],
    ["[2001:db8:ff::1]:80", "[2001:db8:1::5]:40000", "[2001:db8:2::9]:8080", "2001:db8:ff::2"],
];

/// Packets and whether they go to the backend, how the flow ends, and packets there and back.
type Talk<'a> = (&'a [(Carries, bool)], HowEnded, [u64; 2]);

fn watching(every: u32) -> Scene {
    Scene::with(|options| {
        options.sample_every = every;
        options.sizes = Sizes { flow_entries: 32_768, flow_entries6: 32_768, ..small() };
    })
}

fn told(event: Option<FlowEvent>) -> (String, String, String, Option<(HowEnded, [u64; 2])>) {
    let event = event.expect("it is told");
    if let Some(end) = &event.end {
        assert!(end.bytes.iter().zip(end.packets).all(|(bytes, packets)| *bytes >= 54 * packets));
    }
    let end = event.end.map(|end| (end.how, end.packets));
    (event.client.to_string(), event.source.to_string(), event.backend.to_string(), end)
}

#[test]
fn a_flow_that_is_watched_is_told_of_when_it_begins_and_with_its_counts_when_it_ends() {
    for [vip, client, backend, source] in FAMILIES {
        let mut scene = watching(1);
        let mut events = scene.get().take_flow_events().unwrap().unwrap();
        for (hook, is_full_nat) in BOTH.into_iter().flat_map(|hook| [(hook, false), (hook, true)]) {
            let address = source.parse().unwrap();
            let ours = Source { address, first_port: 2000, last_port: 2000 };
            scene.sources = if is_full_nat { vec![ours] } else { vec![] };
            scene.apply(&[(vip, Tcp, Maglev, &[backend]), (vip, Udp, Maglev, &[backend])]);
            let talks: [Talk<'_>; 3] = [
                (
                    &[(SYN, true), (SYN_ACK, false), (ACK, true), (FIN, true), (FIN, false)],
                    HowEnded::Closed,
                    [3, 2],
                ),
                (&[(SYN, true), (SYN, true)], HowEnded::HalfOpen, [2, 0]),
                (&[(UDP, true), (UDP, false), (UDP, true)], HowEnded::Expired, [2, 1]),
            ];
            for (talk, how, packets) in talks {
                let mut seen = client.to_owned();
                for (carries, is_there) in talk {
                    let (from, to) = if *is_there { (client, vip) } else { (backend, &seen[..]) };
                    let sent = scene.send(hook, &packet(*carries, from, to));
                    if *is_there {
                        seen = sent.frame().from.to_string();
                    }
                }
                let ends = (client.to_owned(), seen, backend.to_owned());
                let (a, b, c, none) = told(events.next_event());
                assert_eq!(((a, b, c), none), (ends.clone(), None), "{hook:?} {vip}");
                scene.let_pass(seconds(7441));
                assert_eq!(scene.age().0, 1);
                let (a, b, c, end) = told(events.next_event());
                assert_eq!(((a, b, c), end), (ends, Some((how, packets))), "{hook:?} {vip}");
                assert_eq!(events.next_event(), None);
            }
        }
        assert_eq!(scene.get().flow_events_lost().unwrap(), 0);
    }
}

#[test]
fn so_many_flows_are_watched_as_are_asked_for() {
    for (hook, family) in each() {
        let [vip, _, backend] = &family.ends();
        for (every, least, most) in [(0, 0, 0), (1, 400, 400), (4, 60, 140)] {
            let mut scene = watching(every);
            let mut events = scene.get().take_flow_events().unwrap().unwrap();
            scene.serve(vip, Udp, Maglev, &[backend]);
            for port in 1000..1400 {
                scene.send(hook, &packet(UDP, &family.at(1, 5, port), vip));
            }
            let began = std::iter::from_fn(|| events.next_event()).count();
            assert!(
                (least..=most).contains(&began),
                "{hook:?} {family:?}, one in {every}: {began}"
            );
        }
    }
}

#[test]
fn a_reader_that_is_behind_stalls_no_packet_and_what_it_loses_is_counted() {
    for (hook, family) in each() {
        let vip = &family.vip(1);
        let mut scene = watching(1);
        let events = scene.get().take_flow_events().unwrap().unwrap();
        scene.mode = Mode::L2;
        scene.serve(vip, Udp, Maglev, &[&family.at(2, 9, 80)]);
        for n in 0..3000 {
            let from = family.at(1, n / 250 * 256 + n % 250 + 1, 999);
            let ended = scene.send(hook, &packet(UDP, &from, vip));
            assert_eq!(ended.reason, Reason::ForwardedDirectly, "{hook:?} {family:?} {n}");
        }
        let lost = scene.get().flow_events_lost().unwrap();
        assert!((1000..3000).contains(&lost), "{hook:?} {family:?}: {lost}");
        let _still_open = events.as_fd();
    }
}
