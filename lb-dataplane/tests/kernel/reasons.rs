//! Every reason is the end of some packet, at each hook and in each family where it can be; where it cannot, it is said why not.

use aya::maps::{Array, MapData};
use lb_dataplane::table::Algorithm::Maglev;
use lb_dataplane::table::Protocol::{Tcp, Udp};
use lb_dataplane::table::{Access, Mode, Source};
use lb_dataplane::{ClientPrefixes, Hook, Reason, Sizes, seconds};

use crate::frame::{ACK, Carries, ECHO, ECHO6, Frame, RST, SYN, SYN_ACK, UDP, packet};
use crate::kernel_handover::without_xdp;
use crate::scene::{BOTH, Scene, small};
use crate::{ageing, members, neighbour, vlan};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const VIPS: [&str; 2] = ["192.0.2.1:80", "[2001:db8:f::1]:80"];
const OTHER_VIPS: [&str; 2] = ["192.0.2.2:80", "[2001:db8:f::2]:80"];
const OURS: [&str; 2] = ["192.0.2.200", "2001:db8:ff::2"];
const KERNELS: &str = "only the kernel knows how long each of the segments is that it merged, and it merges before TC";
const RESOLVES: &str = "the kernel's neighbour code sends for TC only";
const SENDS: &str = "TC sends by the interface itself, which takes any packet";

/// Who sends what is to end for a reason: through a hook, in a family, as a client of its own.
struct Case<'a> {
    scene: &'a mut Scene,
    hook: Hook,
    /// 0 for IPv4, 1 for IPv6.
    n: usize,
    port: u16,
}

/// Sends a packet that ends for the reason.
type Sends = fn(&mut Case<'_>) -> Reason;

/// How a packet comes to end for a reason.
enum Row {
    /// At both hooks, in both families.
    Everywhere(Sends),
    /// At one hook. The same packet ends otherwise at the other one, and why.
    At(Hook, &'static str, Sends),
    /// In one family, 0 for IPv4 and 1 for IPv6, and why not in the other.
    In(usize, &'static str, Sends),
    /// Not by a packet alone, and why; and which test shows it instead.
    Elsewhere(&'static str),
}

use Row::{At, Elsewhere, Everywhere, In};

impl Case<'_> {
    fn vip(&self) -> &'static str {
        VIPS[self.n]
    }

    fn client(&self) -> String {
        self.at(1, self.port)
    }

    /// Nobody's packets come from there but this case's.
    fn at(&self, network: u16, port: u16) -> String {
        at(self.n, network, port)
    }

    fn serve(&mut self, backend: &str) {
        self.scene
            .apply(&[(self.vip(), Tcp, Maglev, &[backend]), (self.vip(), Udp, Maglev, &[backend])]);
    }

    fn send(&mut self, frame: &Frame) -> Reason {
        self.scene.send(self.hook, frame).reason
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> Reason {
        self.scene.send_bytes(self.hook, bytes, None).reason
    }

    /// To the VIP, from this case's client.
    fn sent_to_vip(&mut self, carries: Carries) -> Reason {
        let frame = packet(carries, &self.client(), self.vip());
        self.send(&frame)
    }

    /// Of no service, to a host of a network.
    fn to(&mut self, network: u16, change: impl FnOnce(Frame) -> Frame) -> Reason {
        let frame = change(packet(UDP, &self.client(), &self.at(network, 53)));
        self.send(&frame)
    }

    /// Of no service, to a host that is there.
    fn datagram(&self) -> Frame {
        packet(UDP, &self.client(), &self.at(2, 53))
    }

    /// A connection's first packet, whose backend is in this network.
    fn begun_towards(&mut self, network: u16) -> Reason {
        let backend = self.at(network, 8080);
        self.serve(&backend);
        self.sent_to_vip(SYN)
    }

    /// The same where backends see packets as they came, or from an address of ours.
    fn begun_by(&mut self, mode: Mode, network: u16) -> Reason {
        let address = OURS[self.n].parse().unwrap();
        self.scene.sources = match mode {
            Mode::L2 => vec![],
            _ => vec![Source { address, first_port: 2000, last_port: 2000 }],
        };
        self.scene.mode = mode;
        let backend = self.at(network, 80);
        self.serve(&backend);
        self.sent_to_vip(SYN)
    }

    /// A whole connection's first packets; the reason of the last one.
    fn connect(&mut self, port: u16) -> Reason {
        let client = self.at(1, port);
        self.connect_from(&client)
    }

    fn connect_from(&mut self, client: &str) -> Reason {
        let begun = self.send(&packet(SYN, client, self.vip()));
        if begun != Reason::ForwardedToBackend {
            return begun;
        }
        let answer = packet(SYN_ACK, &self.at(2, 8080), client);
        self.send(&answer);
        self.send(&packet(ACK, client, self.vip()))
    }

    /// The second connection of a service with these bounds.
    fn second_within(&mut self, bounds: [u32; 3]) -> Reason {
        self.scene.bounds = bounds;
        let backend = self.at(2, 8080);
        self.serve(&backend);
        assert_eq!(self.connect(self.port), Reason::ForwardedToBackend);
        self.connect(self.port + 1)
    }

    /// Connections until one ends otherwise, in a table with little room.
    fn fill(&mut self, hashes_when_full: bool) -> Reason {
        let sizes = Sizes { flow_entries: 64, flow_entries6: 64, ..small() };
        let mut scene = Scene::with_sizes(sizes);
        scene.hashes_when_full = hashes_when_full;
        let mut case = Case { scene: &mut scene, hook: self.hook, n: self.n, port: self.port };
        let backend = case.at(2, 8080);
        case.scene.apply(&[(case.vip(), Tcp, Maglev, &[&backend])]);
        let ends = (0..64).map(|n| case.connect(case.port + n));
        ends.into_iter().find(|reason| *reason != Reason::ForwardedToBackend).unwrap()
    }

    /// An error that quotes a datagram's header and ports.
    fn error(&self, about: &Frame, from: &str, to: &str) -> Frame {
        let (kind, code, header) = if self.n == 0 { (3, 3, 20) } else { (1, 4, 40) };
        let payload = about.bytes()[14..][..header + 8].to_vec();
        Frame { payload, ..packet(Carries::Icmp { kind, code }, from, to) }
    }

    /// An error about what the backend has had of this client.
    fn error_to_client(&self) -> Frame {
        let about = packet(UDP, &self.client(), &self.at(2, 8080));
        self.error(&about, &self.at(2, 0), &self.client())
    }

    /// Writes each page of the rings; what was there.
    fn with_rings(&mut self, write: impl Fn(usize) -> [u8; 4096]) -> Vec<[u8; 4096]> {
        let mut rings: Array<_, [u8; 4096]> =
            self.scene.get().map_mut("RINGS").unwrap().try_into().unwrap();
        let before: Vec<_> = rings.iter().map(Result::unwrap).collect();
        (0..rings.len()).for_each(|page| rings.set(page, write(page as usize), 0).unwrap());
        before
    }

    /// A client's packet, with which the kernel refuses to put another one around it: merged segments of no kind that it knows at
    /// TC, and at XDP metadata where there would be room.
    fn where_none_can_be_put_around(&mut self) -> Reason {
        const METADATA: usize = 200;
        let frame = packet(ACK, &self.client(), self.vip()).payload(1000).bytes();
        let (bytes, context) = if self.hook == Hook::Tc {
            (frame, merged(500).to_vec())
        } else {
            let bytes = [vec![0; METADATA], frame].concat();
            // `data`, `data_end` and four zeroes of `struct xdp_md`.
            let ends = [METADATA, bytes.len(), 0, 0, 0, 0].map(|at| (at as u32).to_ne_bytes());
            (bytes, ends.concat())
        };
        self.scene.send_bytes(self.hook, &bytes, Some(&context)).reason
    }

    /// Sends while each member of the FIB is changed so.
    fn with_members(&mut self, change: impl Fn(&mut [u8; 48]), act: Sends) -> Reason {
        let mut before = Vec::new();
        let mut members = self.members();
        for index in 0..members.len() {
            let mut member = members.get(&index, 0).unwrap();
            before.push(member);
            change(&mut member);
            members.set(index, member, 0).unwrap();
        }
        let reason = act(self);
        let mut members = self.members();
        (0..).zip(before).for_each(|(index, member)| members.set(index, member, 0).unwrap());
        reason
    }

    fn members(&mut self) -> Array<&mut MapData, [u8; 48]> {
        self.scene.get().map_mut("FIB_MEMBERS").unwrap().try_into().unwrap()
    }
}

fn at(n: usize, network: u16, port: u16) -> String {
    if n == 0 {
        format!("10.{network}.0.9:{port}")
    } else {
        format!("[2001:db8:{network}::9]:{port}")
    }
}

/// A packet of two segments of this size, as `struct __sk_buff` says it: `gso_segs` and `gso_size`.
fn merged(size: u32) -> [u8; 192] {
    let mut context = [0; 192];
    context[164..168].copy_from_slice(&2_u32.to_ne_bytes());
    context[176..180].copy_from_slice(&size.to_ne_bytes());
    context
}

/// The packet that ends for a reason.
#[expect(clippy::too_many_lines, reason = "a row for each reason")]
fn row(reason: Reason) -> Row {
    match reason {
        Reason::ForwardedToBackend => Everywhere(|case| case.begun_towards(2)),
        Reason::ForwardedToClient => Everywhere(|case| {
            case.begun_towards(2);
            let answer = packet(SYN_ACK, &case.at(2, 8080), &case.client());
            case.send(&answer)
        }),
        Reason::Forwarded => Everywhere(|case| case.to(2, |frame| frame)),
        Reason::FlowThroughNeighbour => At(Hook::Tc, RESOLVES, |case| case.begun_towards(5)),
        Reason::ThroughNeighbour => At(Hook::Tc, RESOLVES, |case| case.to(5, |frame| frame)),
        Reason::EchoAnswered => Everywhere(|case| {
            case.begun_towards(2);
            case.sent_to_vip(if case.n == 0 { ECHO } else { ECHO6 })
        }),
        Reason::NotForUs => {
            Everywhere(|case| case.to(2, |frame| Frame { destination_mac: [0xff; 6], ..frame }))
        }
        Reason::VlanTagged => Everywhere(|case| {
            let mut bytes = case.datagram().bytes();
            bytes.splice(12..12, [0x81, 0, 0, 6]);
            case.send_bytes(&bytes)
        }),
        Reason::NotIp => Everywhere(|case| {
            let mut bytes = case.datagram().bytes();
            bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
            case.send_bytes(&bytes)
        }),
        Reason::MergedSegments => At(Hook::Tc, KERNELS, |case| {
            let gre = packet(Carries::Other(47), &case.client(), &case.at(2, 0)).payload(2900);
            let context = merged(1450);
            let context = (case.hook == Hook::Tc).then_some(&context[..]);
            case.scene.send_bytes(case.hook, &gre.bytes(), context).reason
        }),
        Reason::ProtocolNotHandled => {
            In(1, "IPv4 asks for neighbours by ARP, which is no IP", |case| {
                let carries = Carries::Icmp { kind: 135, code: 0 };
                case.to(2, |frame| Frame { carries, ..frame })
            })
        }
        Reason::SpecialDestination => Everywhere(|case| {
            let to = ["224.0.0.5:53", "[ff02::1]:53"][case.n];
            let frame = packet(UDP, &case.client(), to);
            case.send(&frame)
        }),
        Reason::LinkLocalSource => Everywhere(|case| {
            let from = ["169.254.1.1:9", "[fe80::1]:9"][case.n];
            case.to(2, |frame| Frame { from: from.parse().unwrap(), ..frame })
        }),
        Reason::VipWithoutService => Everywhere(|case| {
            case.begun_towards(2);
            let frame = packet(SYN, &case.client(), &case.vip().replace(":80", ":81"));
            case.send(&frame)
        }),
        Reason::TtlExpired => Everywhere(|case| case.to(2, |frame| frame.ttl(1))),
        Reason::RoutedByKernel => Everywhere(|case| case.to(3, |frame| frame)),
        Reason::NoRoute => Everywhere(|case| case.to(99, |frame| frame)),
        Reason::NextHopUnresolved => At(Hook::Xdp, RESOLVES, |case| case.to(5, |frame| frame)),
        Reason::TooBig => Everywhere(|case| case.to(2, |frame| frame.payload(1473))),
        Reason::FlowRoutedByKernel => Everywhere(|case| case.begun_towards(3)),
        Reason::FlowNoRoute => Everywhere(|case| case.begun_towards(99)),
        Reason::FlowNextHopUnresolved => At(Hook::Xdp, RESOLVES, |case| case.begun_towards(5)),
        Reason::FlowToBeFragmented => Everywhere(|case| {
            case.begun_towards(2);
            if case.n == 0 {
                let frame = packet(ACK, &case.client(), case.vip()).payload(1461);
                return case.send(&frame);
            }
            // No router fragments IPv6, but what every link of it takes is fragmented as IPv4.
            case.scene.sources =
                vec![Source { address: OURS[0].parse().unwrap(), first_port: 1, last_port: 9 }];
            case.serve(&at(0, 2, 8080));
            let of_1200 = |member: &mut [u8; 48]| {
                member[6..8].copy_from_slice(&1200_u16.to_ne_bytes());
            };
            case.with_members(of_1200, |case| {
                let frame = packet(SYN, &case.at(1, case.port + 1), case.vip()).payload(1220);
                case.send(&frame)
            })
        }),
        Reason::Malformed => Everywhere(|case| {
            let bytes = packet(SYN, &case.client(), case.vip()).bytes();
            case.send_bytes(&bytes[..bytes.len() - 8])
        }),
        Reason::MartianSource => Everywhere(|case| {
            let from = ["127.0.0.1:9", "[::1]:9"][case.n];
            case.to(2, |frame| Frame { from: from.parse().unwrap(), ..frame })
        }),
        Reason::FragmentToVip => Everywhere(|case| {
            // Its ports are no service's.
            case.begun_towards(2);
            let vip = case.vip().replace(":80", ":81");
            let first = packet(UDP, &case.client(), &vip);
            case.send(&Frame { fragment: MORE_FRAGMENTS, ..first })
        }),
        Reason::FlowTtlExpired => Everywhere(|case| {
            case.begun_towards(2);
            let frame = packet(ACK, &case.client(), case.vip()).ttl(1);
            case.send(&frame)
        }),
        Reason::NoBackend => Everywhere(|case| {
            case.scene.serve(case.vip(), Tcp, Maglev, &[]);
            case.sent_to_vip(SYN)
        }),
        Reason::FlowTableFull => Everywhere(|case| case.fill(false)),
        Reason::FlowCollision => Everywhere(|case| {
            let backend = &*case.at(2, 8080);
            let both = [case.vip(), OTHER_VIPS[case.n]];
            case.scene.apply(&both.map(|vip| (vip, Tcp, Maglev, std::slice::from_ref(&backend))));
            case.sent_to_vip(SYN);
            let second = packet(SYN, &case.client(), both[1]);
            case.send(&second)
        }),
        Reason::UnknownFlow => Everywhere(|case| {
            let backend = case.at(2, 8080);
            case.serve(&backend);
            case.sent_to_vip(RST)
        }),
        Reason::FlowExpiring => Everywhere(|case| {
            case.begun_towards(2);
            ageing::mark(case.scene);
            case.sent_to_vip(ACK)
        }),
        Reason::Blackhole => Everywhere(|case| case.to(4, |frame| frame)),
        Reason::FlowBlackhole => Everywhere(|case| case.begun_towards(4)),
        Reason::TableFault => Everywhere(|case| {
            let backend = case.at(2, 8080);
            case.serve(&backend);
            // Backends far beyond those that there are.
            let before = case.with_rings(|_| [0x7f; 4096]);
            let reason = case.sent_to_vip(SYN);
            case.with_rings(|page| before[page]);
            reason
        }),
        Reason::FlowTooBig => Everywhere(|case| {
            case.begun_towards(2);
            let frame = packet(ACK, &case.client(), case.vip()).payload(1461);
            case.send(&Frame { fragment: DONT_FRAGMENT, ..frame })
        }),
        Reason::ErrorToBackend => Everywhere(|case| {
            case.begun_towards(2);
            case.sent_to_vip(UDP);
            let about = packet(UDP, case.vip(), &case.client());
            let vip = case.vip().replace(":80", ":0");
            let error = case.error(&about, &case.client(), &vip);
            case.send(&error)
        }),
        Reason::ErrorToClient => Everywhere(|case| {
            case.begun_towards(2);
            case.sent_to_vip(UDP);
            let error = case.error_to_client();
            case.send(&error)
        }),
        Reason::NoSourcePort => Everywhere(|case| {
            case.begun_by(Mode::Nat, 2);
            let other = packet(SYN, &case.at(1, case.port + 1), case.vip());
            case.send(&other)
        }),
        Reason::ExtensionHeaders => In(1, "IPv4 has none", |case| {
            let frame = Frame { options: vec![1; 8], ..case.datagram() };
            let mut bytes = frame.bytes();
            // A routing header with a stop left.
            (bytes[20], bytes[56], bytes[57]) = (43, 0, 1);
            case.send_bytes(&bytes)
        }),
        Reason::SourceRefused => Everywhere(|case| {
            let prefix = ["10.1.0.0/16", "2001:db8:1::/48"][case.n].parse().unwrap();
            case.scene.access = vec![Access { prefix, is_admitted: false }];
            case.begun_towards(2)
        }),
        Reason::ServiceFull => Everywhere(|case| case.second_within([1, 0, 0])),
        Reason::ClientFull => Everywhere(|case| case.second_within([0, 1, 0])),
        Reason::BackendsFull => Everywhere(|case| case.second_within([0, 0, 1])),
        Reason::ForwardedDirectly => Everywhere(|case| case.begun_by(Mode::L2, 2)),
        Reason::ForwardedByTunnel => Everywhere(|case| case.begun_by(Mode::IpInIp, 2)),
        Reason::DirectUnreachable => Everywhere(|case| case.begun_by(Mode::L2, 3)),
        Reason::ForwardedWithoutFlow => Everywhere(|case| case.fill(true)),
        Reason::Untranslatable => Everywhere(|case| {
            case.begun_towards(2);
            case.sent_to_vip(UDP);
            let first = Frame { fragment: MORE_FRAGMENTS, ..case.error_to_client() };
            case.send(&first)
        }),
        Reason::WayOutWithoutXdp => At(Hook::Xdp, SENDS, |case| {
            case.with_members(without_xdp, |case| case.to(2, |frame| frame))
        }),
        Reason::FlowWayOutWithoutXdp => At(Hook::Xdp, SENDS, |case| {
            case.with_members(without_xdp, |case| case.begun_towards(2))
        }),
        Reason::SourceRouted => {
            In(0, "a routing header of IPv6 is one that leads elsewhere", |case| {
                case.begun_towards(2);
                let options = vec![1, 131, 7, 4, 10, 1, 0, 1];
                let frame = packet(ACK, &case.client(), case.vip());
                case.send(&Frame { options, ..frame })
            })
        }
        Reason::IpOptions => Everywhere(|case| {
            let mut bytes = Frame { options: vec![1; 8], ..case.datagram() }.bytes();
            if case.n == 1 {
                // For every hop.
                bytes[20] = 0;
            }
            case.send_bytes(&bytes)
        }),
        Reason::OwnBackend => Everywhere(|case| case.begun_towards(1)),
        Reason::NeighbourAnswered => Everywhere(|case| {
            case.begun_towards(2);
            neighbour::answers(case.scene, true);
            case.send_bytes(&neighbour::question(case.n == 1))
        }),
        Reason::FibFull => Everywhere(|case| {
            members::route_to_many(case.scene);
            case.to(9, |frame| frame)
        }),
        Reason::FragmentKept => Everywhere(|case| {
            case.begun_towards(2);
            let later = packet(Carries::Other(17), &case.client(), case.vip());
            case.send(&Frame { fragment: 9, ..later })
        }),
        Reason::UnknownEncapsulation => Everywhere(|case| {
            case.with_members(vlan::unknown_encapsulation, |case| case.to(2, |frame| frame))
        }),
        Reason::ClientsFull => Everywhere(|case| {
            let mut scene = Scene::with(|options| {
                options.client_prefixes = ClientPrefixes { v4: 32, v6: 128 };
                options.sizes.counted_clients = 1;
            });
            scene.bounds = [0, 2, 0];
            let (hook, n, port) = (case.hook, case.n, case.port);
            let mut case = Case { scene: &mut scene, hook, n, port };
            let backend = case.at(2, 8080);
            case.serve(&backend);
            assert_eq!(case.connect(port), Reason::ForwardedToBackend);
            let other = ["10.1.0.10:40000", "[2001:db8:1::10]:40000"][n];
            case.connect_from(other)
        }),
        Reason::WriteFault => Everywhere(|case| {
            case.begun_by(Mode::IpInIp, 2);
            case.where_none_can_be_put_around()
        }),
        Reason::ServiceChanging => {
            Elsewhere("between two looks at the service: pipeline's tests change it at every step")
        }
    }
}

#[test]
fn every_reason_is_the_end_of_some_packet_at_each_hook_and_in_each_family_where_it_can_be() {
    let mut ports = (40_000..).step_by(100);
    let mut scene = Scene::new();
    for reason in Reason::ALL {
        let (only_at, only_in, why, sends) = match row(reason) {
            Everywhere(sends) => (None, None, "", sends),
            At(hook, why, sends) => (Some(hook), None, why, sends),
            In(n, why, sends) => (None, Some(n), why, sends),
            Elsewhere(why) => {
                println!("{reason:?}: {why}");
                continue;
            }
        };
        let each = BOTH.into_iter().flat_map(|hook| [0, 1].map(|n| (hook, n)));
        for (hook, n) in each.filter(|(_, n)| only_in.is_none_or(|only| only == *n)) {
            let port = ports.next().unwrap();
            let ended = sends(&mut Case { scene: &mut scene, hook, n, port });
            let is_here = only_at.is_none_or(|only| only == hook);
            assert_eq!(ended == reason, is_here, "{hook:?} {n} {reason:?}: {ended:?}; {why}");
            forget(&mut scene);
        }
    }
}

/// No flows, and services as they are by default.
fn forget(scene: &mut Scene) {
    scene.apply(&[]);
    scene.let_pass(seconds(1_000_000));
    scene.age();
    assert_eq!(scene.entries().len() + scene.entries6().len(), 0);
    (scene.sources, scene.access) = (Vec::new(), Vec::new());
    (scene.mode, scene.bounds) = (Mode::Nat, [0; 3]);
}
