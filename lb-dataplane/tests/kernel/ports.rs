//! Services of several ports, up to all.

use lb_dataplane::Reason;
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};

use crate::frame::{ACK, SYN, SYN_ACK, UDP, packet};
use crate::scene::{BOTH, Scene};

/// A VIP, a client and a backend of one family, without ports.
const FAMILIES: [[&str; 3]; 2] = [
    ["192.0.2.1", "10.1.0.5", "10.2.0.9"],
    ["[2001:db8:f::1]", "[2001:db8:1::5]", "[2001:db8:2::9]"],
];

fn at(address: &str, port: u16) -> String {
    format!("{address}:{port}")
}

#[test]
fn each_port_of_a_range_leads_to_the_backends_port_that_is_as_far_from_its_first() {
    for hook in BOTH {
        for [vip, client, backend] in FAMILIES {
            let mut scene = Scene::new();
            scene.more_ports = 999;
            scene.serve(&at(vip, 8000), Tcp, Maglev, &[&at(backend, 18_000)]);
            let client = at(client, 40_000);
            for (port, there) in [(8000, 18_000), (8001, 18_001), (8500, 18_500), (8999, 18_999)] {
                let sent = scene.send(hook, &packet(SYN, &client, &at(vip, port)));
                assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?} {vip} {port}");
                assert_eq!(sent.frame().to.to_string(), at(backend, there), "{hook:?}");
                let back = scene.send(hook, &packet(SYN_ACK, &at(backend, there), &client));
                assert_eq!(back.frame().from.to_string(), at(vip, port), "{hook:?}");
                let more = scene.send(hook, &packet(ACK, &client, &at(vip, port)));
                assert_eq!(more.frame().to.to_string(), at(backend, there), "{hook:?}");
            }
            for (carries, port) in [(SYN, 7999), (SYN, 9000), (UDP, 8500)] {
                let sent = scene.send(hook, &packet(carries, &client, &at(vip, port)));
                assert_eq!(sent.reason, Reason::VipWithoutService, "{hook:?} {vip} {port}");
            }
        }
    }
}

#[test]
fn a_service_of_all_ports_has_them_all_and_of_its_protocol_only() {
    for hook in BOTH {
        for [vip, client, backend] in FAMILIES {
            let mut scene = Scene::new();
            scene.more_ports = u16::MAX - 1;
            scene.serve(&at(vip, 1), Udp, Maglev, &[&at(backend, 1)]);
            for port in [1, 2, 53, 32_768, 65_534, 65_535] {
                let sent = scene.send(hook, &packet(UDP, &at(client, 40_000), &at(vip, port)));
                assert_eq!(sent.reason, Reason::ForwardedToBackend, "{hook:?} {vip} {port}");
                assert_eq!(sent.frame().to.to_string(), at(backend, port));
                let tcp = scene.send(hook, &packet(SYN, &at(client, 40_000), &at(vip, port)));
                assert_eq!(tcp.reason, Reason::VipWithoutService, "{hook:?} {port}");
            }
            let zero = scene.send(hook, &packet(UDP, &at(client, 40_000), &at(vip, 0)));
            assert_eq!(zero.reason, Reason::VipWithoutService, "{hook:?}: port 0 is none");
        }
    }
}

#[test]
fn a_range_grows_shrinks_and_is_known_to_another_process() {
    for hook in BOTH {
        let [vip, client, backend] = FAMILIES[0];
        let mut scene = Scene::new();
        let mut client_port = 40_000;
        for more_ports in [0, 20, 7, 0] {
            scene.more_ports = more_ports;
            let backend = at(backend, 18_000);
            scene.serve(&at(vip, 8000), Tcp, Maglev, &[&backend]);
            scene.open();
            scene.serve(&at(vip, 8000), Tcp, Maglev, &[&backend]);
            for port in [8000, 8001, 8007, 8008, 8020, 8021] {
                client_port += 1;
                let sent = scene.send(hook, &packet(SYN, &at(client, client_port), &at(vip, port)));
                let expected = if port <= 8000 + more_ports {
                    Reason::ForwardedToBackend
                } else {
                    Reason::VipWithoutService
                };
                assert_eq!(sent.reason, expected, "{hook:?} {port} of {more_ports} more");
            }
        }
    }
}
