//! Kinds of flows: a service of each, and the packets that its flows have.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;

use anyhow::Result;
use lb_dataplane::table::{Mode, Protocol, Service, ServiceKey, Source};
use lb_dataplane::{Hook, Reason};

use crate::frames::{
    ACK, COOKIE_ACK, COOKIE_ECHO, Carries, Connection, HEARTBEAT, INIT, INIT_ACK, Packet, SYN,
    SYN_ACK, TO_BACKEND, TO_CLIENT,
};
use crate::rig::{Rig, Target};
use crate::tables::Between;
use crate::traffic::{client, key, service, v4, v6, vip};

/// Flows that begin in one run: all of them are half-open for a time, and as many must have a place in the ring of one CPU.
const BATCH: usize = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Dnat,
    Udp,
    FullNat,
    Dnat6,
    Udp6,
    Nat64,
    Sctp,
    L2,
    IpInIp,
    Ip6InIp6,
    Gue,
}

/// From whom a packet of a flow comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Dnat,
        Self::Udp,
        Self::FullNat,
        Self::Dnat6,
        Self::Udp6,
        Self::Nat64,
        Self::Sctp,
        Self::L2,
        Self::IpInIp,
        Self::Ip6InIp6,
        Self::Gue,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dnat => "IPv4 TCP, DNAT",
            Self::Udp => "IPv4 UDP, DNAT",
            Self::FullNat => "IPv4 TCP, full NAT",
            Self::Dnat6 => "IPv6 TCP, DNAT",
            Self::Udp6 => "IPv6 UDP, DNAT",
            Self::Nat64 => "TCP, NAT64",
            Self::Sctp => "IPv4 SCTP, DNAT",
            Self::L2 => "IPv4 TCP, DSR on L2",
            Self::IpInIp => "IPv4 TCP, DSR by IPIP",
            Self::Ip6InIp6 => "IPv6 TCP, DSR by IP6IP6",
            Self::Gue => "IPv4 TCP, DSR by GUE",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Udp | Self::Udp6 => Protocol::Udp,
            Self::Sctp => Protocol::Sctp,
            Self::Dnat
            | Self::FullNat
            | Self::Dnat6
            | Self::Nat64
            | Self::L2
            | Self::IpInIp
            | Self::Ip6InIp6
            | Self::Gue => Protocol::Tcp,
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::L2 => Mode::L2,
            Self::IpInIp | Self::Ip6InIp6 => Mode::IpInIp,
            Self::Gue => Mode::Gue,
            Self::Dnat
            | Self::Udp
            | Self::FullNat
            | Self::Dnat6
            | Self::Udp6
            | Self::Nat64
            | Self::Sctp => Mode::Nat,
        }
    }

    /// The same, and what is not a part of its cost.
    pub(crate) fn title(self) -> String {
        let name = self.name();
        if self.is_moved() { format!("{name}, but for moving it") } else { name.to_owned() }
    }

    /// What is taken off: putting the packet back, and what moves it in its buffer and back for the next one.
    pub(crate) fn floor(self) -> Target {
        if self.is_moved() { Target::Move } else { Target::Nothing }
    }

    /// Whether packets leave longer or shorter than they came.
    pub(crate) fn is_moved(self) -> bool {
        self == Self::Nat64 || matches!(self.mode(), Mode::IpInIp | Mode::Gue)
    }

    /// Whether backends answer clients themselves.
    pub(crate) fn is_direct(self) -> bool {
        self.mode() != Mode::Nat
    }

    fn is_of_v6_clients(self) -> bool {
        matches!(self, Self::Dnat6 | Self::Udp6 | Self::Ip6InIp6)
    }

    fn vip(self) -> SocketAddr {
        let number = 300 + self as u16;
        if self.is_of_v6_clients() { v6(3, number.into(), 80) } else { vip(number) }
    }

    fn client(self, number: u32) -> SocketAddr {
        let client = client(number);
        if self.is_of_v6_clients() { v6(1, number, client.port()) } else { client }
    }

    /// A service of this kind with so many backends.
    pub(crate) fn service(self, backends: u16) -> (ServiceKey, Service) {
        let vip = self.vip();
        // What is sent on as it came goes to the port that it came for.
        let port = if self.is_direct() { vip.port() } else { 8080 };
        let is_v6 = self.is_of_v6_clients() || self == Self::Nat64;
        let address = |n| if is_v6 { v6(2, n, port) } else { v4(2, n, port) };
        // Of a full NAT's ports; of tunnels the address alone.
        let ours = if is_v6 {
            v6(4, 1, 0)
        } else {
            SocketAddrV4::new(Ipv4Addr::new(172, 17, 0, 1), 0).into()
        };
        let source = Source { address: ours.ip(), first_port: 1024, last_port: u16::MAX };
        let has_source = matches!(self, Self::FullNat | Self::Nat64) || self.is_direct();
        let sources = if has_source && self != Self::L2 { &[source][..] } else { &[] };
        let service = service((1..=backends.into()).map(address), sources);
        (key(vip, self.protocol()), Service { mode: self.mode(), ..service })
    }

    /// What a flow's packets carry once it is established.
    fn established(self, from: Side) -> Carries {
        match (self.protocol(), from) {
            (Protocol::Udp | Protocol::Icmp, _) => Carries::Udp,
            (Protocol::Sctp, Side::Client) => Carries::Sctp(HEARTBEAT, TO_BACKEND),
            (Protocol::Sctp, Side::Backend) => Carries::Sctp(HEARTBEAT, TO_CLIENT),
            (Protocol::Tcp, _) => ACK,
        }
    }

    /// What its first packets carry, in turn.
    fn first(self) -> &'static [(Side, Carries)] {
        match self.protocol() {
            _ if self.is_direct() => &[(Side::Client, SYN), (Side::Client, ACK)],
            Protocol::Udp | Protocol::Icmp => &[
                (Side::Client, Carries::Udp),
                (Side::Backend, Carries::Udp),
                (Side::Client, Carries::Udp),
            ],
            Protocol::Tcp => &[(Side::Client, SYN), (Side::Backend, SYN_ACK), (Side::Client, ACK)],
            Protocol::Sctp => &[
                (Side::Client, Carries::Sctp(INIT, 0)),
                (Side::Backend, Carries::Sctp(INIT_ACK, TO_CLIENT)),
                (Side::Client, Carries::Sctp(COOKIE_ECHO, TO_BACKEND)),
                (Side::Backend, Carries::Sctp(COOKIE_ACK, TO_CLIENT)),
            ],
        }
    }

    /// How a packet ends.
    pub(crate) fn end(self, from: Side) -> Reason {
        match (self.mode(), from) {
            (Mode::Nat, Side::Backend) => Reason::ForwardedToClient,
            (Mode::Nat, Side::Client) => Reason::ForwardedToBackend,
            (Mode::L2, _) => Reason::ForwardedDirectly,
            (Mode::IpInIp | Mode::Gue, _) => Reason::ForwardedByTunnel,
        }
    }

    /// A packet of an established flow.
    pub(crate) fn packet(self, flow: &Connection, from: Side) -> Packet {
        packet(flow, (from, self.established(from)))
    }

    /// Takes packets of this kind for the runs that follow.
    pub(crate) fn load(self, rig: &mut Rig, packets: impl IntoIterator<Item = Packet>) {
        if self.is_moved() { rig.load_moved(packets) } else { rig.load(packets) }
    }

    /// The first packets of flows of numbered clients.
    pub(crate) fn load_first(self, rig: &mut Rig, numbers: Range<u32>) {
        let vip = self.vip();
        let packets = numbers.map(|number| {
            let client = self.client(number);
            let nobody = Connection { client, vip, backend: client, towards: client };
            packet(&nobody, self.first()[0])
        });
        self.load(rig, packets);
    }

    /// Begins flows of numbered clients and has them answered, a run for each of their packets.
    pub(crate) fn begin(self, rig: &mut Rig, numbers: Range<u32>) -> Result<Vec<Connection>> {
        let mut flows = Vec::with_capacity(numbers.len());
        for start in numbers.clone().step_by(BATCH) {
            let some = start..numbers.end.min(start + BATCH as u32);
            self.load_first(rig, some.clone());
            rig.expect(Hook::Tc, 1, &[(self.end(Side::Client), some.len())])?;
            let begun = some.map(|number| self.flow(rig, number));
            let begun = begun.collect::<Result<Vec<Connection>>>()?;
            for step in &self.first()[1..] {
                self.load(rig, begun.iter().map(|flow| packet(flow, *step)));
                rig.expect(Hook::Tc, 1, &[(self.end(step.0), begun.len())])?;
            }
            flows.extend(begun);
        }
        Ok(flows)
    }

    /// A client's flow, as the flow table has it.
    fn flow(self, rig: &mut Rig, number: u32) -> Result<Connection> {
        let (client, vip) = (self.client(number), self.vip());
        let [towards, backend] = rig.translated(&self.between(client, vip))?;
        Ok(Connection { client, vip, backend, towards })
    }

    fn between(self, from: SocketAddr, to: SocketAddr) -> Between {
        let protocol = self.protocol().number(from.is_ipv4());
        Between { protocol, from, to }
    }

    /// Takes flows of numbered clients out of the tables that have only begun.
    pub(crate) fn forget(self, rig: &mut Rig, numbers: Range<u32>) -> Result<()> {
        for number in numbers {
            let there = self.between(self.client(number), self.vip());
            if self.is_direct() { rig.remove(&there)? } else { rig.forget(&there)? }
        }
        Ok(())
    }
}

fn packet(flow: &Connection, (from, carries): (Side, Carries)) -> Packet {
    match from {
        Side::Client => flow.there(carries),
        Side::Backend => flow.back(carries),
    }
}
