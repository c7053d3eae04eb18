//! A node: its namespace, the way to it, and its BIRD.

use lb_routing::Reach;

use crate::far::Far;
use crate::lab::{ip, veth};

/// Where `cargo xtask setup` puts BIRD 1.6.
const BIRD: &str = "/usr/local/lib/lbd-test/bird1/usr/sbin";

/// How its connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    Key,
    RotatedKey,
    Gtsm,
    /// Behind two routers.
    GtsmOverThreeHops,
    /// It listens at another port, and speaks from an address that is not the interface's.
    AnotherPort,
}

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::Plain,
        Self::Key,
        Self::RotatedKey,
        Self::Gtsm,
        Self::GtsmOverThreeHops,
        Self::AnotherPort,
    ];

    pub(super) const fn reach(self) -> Reach {
        match self {
            Self::Plain | Self::Key | Self::RotatedKey | Self::AnotherPort => Reach::Anywhere,
            Self::Gtsm => Reach::Secured(1),
            Self::GtsmOverThreeHops => Reach::Secured(3),
        }
    }
}

/// A node.
pub(super) struct Node {
    number: u8,
    pub(super) way: Way,
    pub(super) key: Option<&'static str>,
    pub(super) more_blocks: bool,
    /// It opens no connections itself. BIRD forgets that it recovers when a collision closes one of its two, and its next
    /// OPEN says that it forwarded nothing.
    listens_only: bool,
    asn: u32,
    v6: bool,
    pub(super) far: Far,
    /// The routers before it.
    _routers: Vec<Far>,
}

impl Node {
    pub(super) fn start(number: u8, way: Way, asn: u32, v6: bool) -> Self {
        let link = format!("cal{number}");
        veth(&link, &format!("10.0.{number}.1/24"));
        ip(&format!("addr add 2001:db8:{number}::1/64 dev {link} nodad"));
        let far_link = format!("{link}-far");
        let addresses = [format!("10.0.{number}.2/24"), format!("2001:db8:{number}::2/64")];
        let addresses = [addresses[0].as_str(), addresses[1].as_str()];
        // Not its BIRD yet: the way to it comes first.
        let idle = "exec sleep infinity";
        let (far, routers) = match way {
            Way::GtsmOverThreeHops => behind_routers(number, &far_link, &addresses),
            Way::Plain | Way::Key | Way::RotatedKey | Way::Gtsm | Way::AnotherPort => {
                (Far::start_behind(&far_link, &addresses, &[], idle), Vec::new())
            }
        };
        let key = matches!(way, Way::Key | Way::RotatedKey).then_some("s3cret");
        let mut node = Self {
            number,
            way,
            key,
            more_blocks: false,
            listens_only: false,
            asn,
            v6,
            far,
            _routers: routers,
        };
        if way == Way::AnotherPort {
            let (four, six) = (format!("10.9.{number}.2"), format!("2001:db8:9{number}::2"));
            node.far.run(&format!("ip addr add {four}/32 dev lo; ip addr add {six}/128 dev lo"));
            ip(&format!("route add {four}/32 via 10.0.{number}.2"));
            ip(&format!("route add {six}/128 via 2001:db8:{number}::2"));
        }
        node.restart(false);
        node
    }

    /// The address that it speaks from.
    pub(super) fn address(&self) -> String {
        let (number, v6) = (self.number, self.v6);
        match self.way {
            Way::AnotherPort if v6 => format!("2001:db8:9{number}::2"),
            Way::AnotherPort => format!("10.9.{number}.2"),
            Way::GtsmOverThreeHops if v6 => format!("2001:db8:2{number}::2"),
            Way::GtsmOverThreeHops => format!("10.2.{number}.2"),
            Way::Plain | Way::Key | Way::RotatedKey | Way::Gtsm if v6 => {
                format!("2001:db8:{number}::2")
            }
            Way::Plain | Way::Key | Way::RotatedKey | Way::Gtsm => format!("10.0.{number}.2"),
        }
    }

    /// Ours, in its eyes.
    pub(super) fn gateway(&self) -> String {
        let number = self.number;
        if self.v6 { format!("2001:db8:{number}::1") } else { format!("10.0.{number}.1") }
    }

    pub(super) fn port(&self) -> u16 {
        if self.way == Way::AnotherPort { 1790 } else { 179 }
    }

    /// Its address blocks, as aggregates.
    pub(super) fn blocks(&self) -> Vec<String> {
        let number = self.number;
        let all = if self.v6 {
            [format!("fd00:10:244:{number}::/122"), format!("fd00:10:244:{number}::40/122")]
        } else {
            [format!("10.244.{number}.0/26"), format!("10.244.{number}.64/26")]
        };
        all.into_iter().take(if self.more_blocks { 2 } else { 1 }).collect()
    }

    /// A range of services, which every node announces, and one of them, whose endpoint is on the first node.
    pub(super) fn services(v6: bool) -> [&'static str; 2] {
        if v6 { ["fd00:10:96::/112", "fd00:10:96::7"] } else { ["10.96.0.0/16", "10.96.0.7"] }
    }

    pub(super) fn write(&self) {
        self.far.write(&[("bird.conf", self.configuration())]);
    }

    /// Starts its BIRD anew; one that recovers says that it has forwarded all the while.
    pub(super) fn restart(&mut self, recovers: bool) {
        let name = if self.v6 { "bird6" } else { "bird" };
        let recover = if recovers { " -R" } else { "" };
        let command = format!("exec {BIRD}/{name} -f{recover} -c $D/bird.conf -s $D/ctl -P $D/pid");
        self.listens_only = recovers;
        let files = [("bird.conf", self.configuration())];
        self.far.restart(&files, &command);
    }

    pub(super) fn ask(&self, question: &str) -> String {
        let name = if self.v6 { "birdc6" } else { "birdc" };
        self.far.run(&format!("{BIRD}/{name} -s $D/ctl {question}"))
    }

    pub(super) fn has_vip(&self) -> bool {
        let vip = if self.v6 { "2001:db8:99::10/128" } else { "192.0.2.10/32" };
        self.ask(&format!("show route {vip} protocol lbd")).contains(vip)
    }

    fn configuration(&self) -> String {
        let (number, asn) = (self.number, self.asn);
        let (address, gateway) = (self.address(), self.gateway());
        let [all, one] = Self::services(self.v6);
        let one = format!("{one}/{}", if self.v6 { 128 } else { 32 });
        let services = [all.to_owned(), one].into_iter().take(if number == 1 { 2 } else { 1 });
        let routes = self.blocks().into_iter().chain(services);
        let routes: String = routes.map(|route| format!("route {route} blackhole; ")).collect();
        let hops = match self.way {
            Way::Gtsm => "ttl security on;",
            Way::GtsmOverThreeHops => "multihop 3; ttl security on;",
            Way::Plain | Way::Key | Way::RotatedKey | Way::AnotherPort => "multihop;",
        };
        let password = self.key.map(|key| format!("password \"{key}\";")).unwrap_or_default();
        let passive = if self.listens_only { "passive on;" } else { "" };
        let listen = if self.way == Way::AnotherPort { "listen bgp port 1790;" } else { "" };
        format!(
            "router id 10.99.1.{number};\n{listen}\n\
             protocol device {{ scan time 2; }}\n\
             protocol static {{ {routes}}}\n\
             filter blocks {{ bgp_local_pref = 2147483547; accept; }}\n\
             template bgp every_node {{\n\
             local as {asn}; gateway recursive; import all; export filter blocks;\n\
             add paths on; graceful restart;\n\
             connect delay time 1; connect retry time 2; error wait time 1, 3;\n\
             }}\n\
             protocol bgp lbd from every_node {{\n\
             neighbor {gateway} as 64512; source address {address};\n{hops}\n{password}\n{passive}\n\
             }}\n"
        )
    }
}

/// `cal4` leads to a router, that to another one, and that to the node.
fn behind_routers(number: u8, link: &str, addresses: &[&str]) -> (Far, Vec<Far>) {
    let idle = "exec sleep infinity";
    let first = Far::start_behind(link, addresses, &[], idle);
    for (one, other) in [("mid", "mid-far"), ("end", "end-far")] {
        ip(&format!("link add {one} type veth peer name {other}"));
    }
    first.take("mid", &[&format!("10.1.{number}.1/24"), &format!("2001:db8:1{number}::1/64")]);
    let four = format!("10.1.{number}.2/24");
    let six = format!("2001:db8:1{number}::2/64");
    let second = Far::start_behind("mid-far", &[&four, &six], &[], idle);
    second.take("end", &[&format!("10.2.{number}.1/24"), &format!("2001:db8:2{number}::1/64")]);
    let four = format!("10.2.{number}.2/24");
    let six = format!("2001:db8:2{number}::2/64");
    let node = Far::start_behind("end-far", &[&four, &six], &[], idle);

    for router in [&first, &second] {
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    let net = |net: &str, host: &str| {
        [
            format!("10.{net}.{number}.{host}"),
            format!("2001:db8:{}{number}::{host}", &net[..usize::from(net != "0")]),
        ]
    };
    for family in 0..2 {
        let whole = |of: &str| match family {
            0 => format!("{}/24", net(of, "0")[0]),
            _ => format!("{}/64", net(of, "")[1]),
        };
        let host = |of: &str, host: &str| net(of, host)[family].clone();
        ip(&format!("route add {} via {}", whole("2"), host("0", "2")));
        first.run(&format!("ip route add {} via {}", whole("2"), host("1", "2")));
        second.run(&format!("ip route add {} via {}", whole("0"), host("1", "1")));
        node.run(&format!("ip route add {} via {}", whole("0"), host("2", "1")));
    }
    (node, vec![first, second])
}
