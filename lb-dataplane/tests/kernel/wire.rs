//! VLAN tags on real links: beside the frame at TC, in it at XDP. Who receives sees them in their place by a dataplane of its own,
//! which counts what came in by which VLAN.

use std::time::{Duration, Instant};

use lb_dataplane::fib::{Action, FibUpdate, Member};
use lb_dataplane::{Hook, HookChoice, Reason, Vlan, XdpMode};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::frame::{Frame, UDP, packet};
use crate::net::Namespace;
use crate::scene::{BOTH, Scene};

/// Interfaces of VLANs that this host's kernel may not have; nobody asks it for them.
const IN: u32 = 901;
const OUT: u32 = 900;
const FAR_NINE: u32 = 902;
const FAR_FIVE: u32 = 903;
const FAR_TWO: u32 = 904;
const MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
const FIVE: [u8; 4] = [0x81, 0, 0x60, 5];
const SEVEN: [u8; 4] = [0x81, 0, 0, 7];

struct Wire {
    client: Namespace,
    /// It goes with its last holder.
    _balancer: Namespace,
    server: Namespace,
    scene: Scene,
    far: Scene,
}

fn vlan(ifindex: u32, link: u32, id: u16, mac: [u8; 6]) -> Vlan {
    Vlan {
        ifindex,
        link,
        is_service_tag: false,
        id,
        mac,
        mtu: 1500,
        link_mtu: 1500,
        receives: true,
    }
}

impl Wire {
    /// A client and a server, between them a balancer whose fast path is at a hook, and a bridge that floods what that passes.
    fn new(hook: Hook) -> Self {
        let (client, balancer, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        for (host, near, far) in [(&client, "c0", "c1"), (&server, "s0", "s1")] {
            host.ip(&format!(
                "link add {near} type veth peer name {far} netns {}",
                balancer.path()
            ));
            for (namespace, end) in [(host, near), (&balancer, far)] {
                let quiet = format!("-qw net.ipv6.conf.{end}.disable_ipv6=1");
                namespace.command("sysctl", &quiet);
                // Tags are in their place where they arrive, and XDP may send.
                namespace.command("ethtool", &format!("-K {end} txvlan off gro on"));
                namespace.ip(&format!("link set {end} up"));
            }
        }
        balancer.ip("link add br0 type bridge");
        balancer.command("sysctl", "-qw net.ipv6.conf.br0.disable_ipv6=1");
        ["c1", "s1"].iter().for_each(|port| balancer.ip(&format!("link set {port} master br0")));
        balancer.ip("link set br0 up");

        let (mut scene, mut far) = (Scene::new(), Scene::new());
        let native = HookChoice::Xdp(XdpMode::Native);
        let choice = if hook == Hook::Tc { HookChoice::Tc } else { native };
        let dataplane = scene.get();
        balancer.run(|| dataplane.attach("c1", choice)).unwrap();
        let dataplane = far.get();
        server.run(|| dataplane.attach("s0", native)).unwrap();
        let (c1, s1) = (balancer.ifindex("c1"), balancer.ifindex("s1"));
        let member = Member {
            ifindex: OUT,
            source_mac: [2, 0, 0, 0, 9, 9],
            destination_mac: Some(MAC),
            gateway: None,
            mtu: 1500,
            weight: 1,
        };
        let prefix = [10, 9, 0, 0].into();
        let updates = [
            FibUpdate::Group { id: 9, action: Action::Forward(vec![member]) },
            FibUpdate::Route { prefix, len: 16, group: 9 },
        ];
        let dataplane = scene.get();
        // There, since it asks the kernel whether XDP may send on a link.
        balancer.run(|| {
            dataplane.set_vlans(&[vlan(IN, c1, 5, MAC), vlan(OUT, s1, 9, MAC)]).unwrap();
            dataplane.fib_apply(&updates).unwrap();
        });
        let s0 = server.ifindex("s0");
        let all = [(FAR_NINE, s0, 9), (FAR_FIVE, s0, 5), (FAR_TWO, FAR_FIVE, 7)];
        far.get().set_vlans(&all.map(|(ifindex, link, id)| vlan(ifindex, link, id, MAC))).unwrap();
        Self { client, _balancer: balancer, server, scene, far }
    }

    fn send(&self, frame: &Frame, tags: &[[u8; 4]]) {
        let frame = Frame { destination_mac: MAC, ..frame.clone() }.bytes();
        let bytes = [&frame[..12], &tags.concat(), &frame[12..]].concat();
        self.client.run(|| {
            let raw = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, raw, None).unwrap();
            let link = getifaddrs()
                .unwrap()
                .find_map(|of| (of.interface_name == "c0").then_some(*of.address?.as_link_addr()?));
            let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
            // A list of interfaces that changes while it is read may lack one.
            if let Some(link) = link {
                let _sent_again = sendto(fd, &bytes, &link, MsgFlags::empty());
            }
        });
    }

    /// Sends until the server has seen a frame of a VLAN: a link that has just come up drops some. Whether it has.
    fn arrives(&mut self, frame: &Frame, tags: &[[u8; 4]], ifindex: u32) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            self.send(frame, tags);
            let again = Instant::now() + Duration::from_millis(200);
            while Instant::now() < again {
                if self.seen(ifindex) > 0 {
                    return true;
                }
                std::thread::yield_now();
            }
        }
        false
    }

    /// Frames that the server has seen of an interface.
    fn seen(&mut self, ifindex: u32) -> u64 {
        let counts = self.far.get().interface_reasons().unwrap();
        counts[&ifindex].iter().map(|count| count.packets).sum()
    }
}

#[test]
fn frames_are_on_the_wire_with_the_tags_of_their_way_out_and_those_of_the_kernel_with_their_own() {
    for hook in BOTH {
        let mut wire = Wire::new(hook);
        let routed = packet(UDP, "10.1.0.5:40000", "10.9.0.3:53");
        assert!(wire.arrives(&routed, &[FIVE], FAR_NINE), "{hook:?}");
        assert_ne!(wire.scene.count(Reason::Forwarded), 0, "{hook:?}");
        // No route: the kernel's, which has a bridge here.
        let unrouted = packet(UDP, "10.1.0.5:40000", "192.0.2.77:53");
        assert!(wire.arrives(&unrouted, &[FIVE], FAR_FIVE), "{hook:?}");
        assert_ne!(wire.scene.count(Reason::NoRoute), 0, "{hook:?}");
        // Of no VLAN here, behind the first tag.
        assert!(wire.arrives(&routed, &[FIVE, SEVEN], FAR_TWO), "{hook:?}");
        assert_ne!(wire.scene.count(Reason::VlanTagged), 0, "{hook:?}");
        let link = wire.server.ifindex("s0");
        assert_eq!(wire.seen(link), 0, "{hook:?}: nothing without a tag");
    }
}
