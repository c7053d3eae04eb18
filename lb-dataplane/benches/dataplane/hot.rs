//! One flow at a time, all of it in the cache: D1, the other ways to a backend beside it, and the packets that are no service's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use lb_dataplane::table::Protocol;
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::{ACK, Carries, Connection, Packet, error, fragment, packet};
use crate::kinds::{Kind, Side};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, table, v4, vip};
use crate::{ROUNDS, fresh};

/// Packets in one run.
const REPEAT: usize = 200_000;
/// The same where each has a test run of its own.
const APART: usize = 5_000;
/// D1's target, and what a bare lookup took on the machine that it was set for: on any other one the two together say more.
const MOST: f64 = 75.0;
const OF_A_LOOKUP: f64 = 32.0;
/// What the others of a hook are compared with.
const PLAIN: [&str; 2] = ["D1 established v4 dnat", "D1 its reverse"];
/// What those are compared with that have test runs of their own.
const PLAIN_APART: &str = "established v4 dnat, a test run for each";

/// A packet that is run again and again.
struct Case {
    name: String,
    hook: Hook,
    run: Run,
    ends: Vec<(Reason, usize)>,
    cost: Series,
}

#[derive(Clone, Copy)]
enum Run {
    Again(Packet),
    /// To a backend of the other family and back, by turns.
    Across(Packet, Packet),
    /// One that leaves longer or shorter. What moves it in its buffer, and back for the next one, is not a part of it.
    Moved(Packet),
    /// In a test run for each.
    Apart(Packet),
}

impl Run {
    fn load(&self, rig: &mut Rig) {
        match self {
            Self::Again(packet) => rig.load([*packet]),
            Self::Across(there, back) => rig.load_moved([*there, *back]),
            Self::Moved(packet) => rig.load_moved([*packet]),
            Self::Apart(packet) => rig.load_apart([*packet]),
        }
    }

    fn packets(&self) -> usize {
        if matches!(self, Self::Apart(_)) { APART } else { REPEAT }
    }

    /// What putting it back costs, with the loop. Nothing makes a frame longer where nothing runs, so packets by turns are
    /// measured one after the other.
    fn floor(&self, rig: &mut Rig, hook: Hook) -> Result<f64> {
        match self {
            Self::Again(_) | Self::Apart(_) => {
                self.load(rig);
                rig.run(hook, Target::Nothing, self.packets())
            }
            Self::Moved(_) => {
                self.load(rig);
                rig.run(hook, Target::Move, REPEAT)
            }
            Self::Across(there, back) => {
                rig.load_moved([*there]);
                let of_there = rig.run(hook, Target::Nothing, REPEAT)?;
                rig.load_moved([*back]);
                Ok((of_there + rig.run(hook, Target::Nothing, REPEAT)?) / 2.0)
            }
        }
    }
}

/// Measures what is called so, and what it is compared with.
pub(crate) fn measure(report: &mut Report, named: &str) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 64)?;
    let mut cases = scene(&mut rig)?;
    let is_wanted = |name: &str| {
        name.starts_with(named) || PLAIN.into_iter().any(|plain| name.starts_with(plain))
    };
    cases.retain(|case| is_wanted(&case.name));
    let (mut lookup, mut nothing) = ([Series::default(), Series::default()], Series::default());
    let mut moved = [Series::default(), Series::default()];
    for round in 1..=ROUNDS {
        crate::say(&format!("one flow, round {round} of {ROUNDS}"));
        for (hook, series) in [Hook::Tc, Hook::Xdp].into_iter().zip(&mut lookup) {
            if let Some(of_flow) = cases.first() {
                of_flow.run.load(&mut rig);
            }
            rig.run(Hook::Tc, Target::Fill, 1)?;
            let floor = rig.run(hook, Target::Nothing, REPEAT)?;
            series.push(rig.run(hook, Target::Lookup, REPEAT)? - floor);
            nothing.push(floor);
        }
        for case in &mut cases {
            let floor = case.run.floor(&mut rig, case.hook)?;
            case.run.load(&mut rig);
            if matches!(case.run, Run::Across(..)) {
                let both = rig.run(case.hook, Target::Move, REPEAT)?;
                moved[usize::from(case.hook == Hook::Xdp)].push(both - floor);
            }
            let packets = case.ends.iter().map(|(_, count)| count).sum::<usize>();
            let times = case.run.packets() / packets;
            case.cost.push(rig.expect(case.hook, times, &case.ends)? - floor);
        }
    }
    tell(report, &cases, &lookup, &nothing);
    for (hook, moved) in ["TC", "XDP"].into_iter().zip(&moved) {
        if !moved.0.is_empty() {
            let what =
                format!("a part of NAT64, both ways: to move the packet in its buffer, {hook}");
            report.note(&what, "ns", moved.median());
        }
    }
    Ok(())
}

fn tell(report: &mut Report, cases: &[Case], lookup: &[Series; 2], nothing: &Series) {
    for case in cases {
        if matches!(case.run, Run::Apart(_)) {
            continue;
        }
        let lookup = &lookup[usize::from(case.hook == Hook::Xdp)];
        let beside = (case.name.as_str(), "a bare lookup in the flow table, hot");
        if case.name.starts_with("D1") {
            report.bound(&case.name, "ns", &case.cost, MOST);
            report.ratio(beside, "ns", &case.cost, lookup, MOST / OF_A_LOOKUP);
        } else {
            report.beside(beside, "ns", &case.cost, lookup);
        }
    }
    for hook in ["TC", "XDP"] {
        let [plain, reverse] = PLAIN;
        let named = |name: &str| cases.iter().find(|case| case.name == format!("{name}, {hook}"));
        for (name, plain, target) in [
            ("D3 full NAT", plain, 1.15),
            ("D3 NAT64, both ways", plain, 1.5),
            ("D3 established v6 dnat", plain, 1.3),
            ("D3 v6 dnat, its reverse", reverse, 1.3),
        ] {
            if let (Some(other), Some(plain)) = (named(name), named(plain)) {
                let name = format!("{name}, {hook}");
                report.ratio((&name, "IPv4 DNAT"), "ns", &other.cost, &plain.cost, target);
            }
        }
    }
    let named = |name: &str| cases.iter().find(|case| case.name == name);
    if let Some(plain) = named(&format!("{PLAIN_APART}, TC")) {
        for case in cases.iter().filter(|case| matches!(case.run, Run::Apart(_))) {
            report.beside((&case.name, "DNAT, likewise"), "ns", &case.cost, &plain.cost);
        }
    }
    report.note("restoring the packet, with the test run's loop", "ns", nothing.median());
}

/// One service of each kind, with one established flow.
fn scene(rig: &mut Rig) -> Result<Vec<Case>> {
    rig.apply(&table(Kind::ALL.map(|kind| kind.service(1))))?;
    let mut flows = Flows::new();
    for kind in Kind::ALL {
        flows.extend(kind.begin(rig, 1..2)?.into_iter().map(|flow| (kind, flow)));
    }
    let mut cases = Vec::new();
    for (hook, word) in [(Hook::Tc, "TC"), (Hook::Xdp, "XDP")] {
        let mut add = |name: &str, run, ends: &[(Reason, usize)]| {
            let name = format!("{name}, {word}");
            cases.push(Case { name, hook, run, ends: ends.to_vec(), cost: Series::default() });
        };
        for (kind, there, back) in [
            (Kind::Dnat, PLAIN[0], PLAIN[1]),
            (Kind::FullNat, "D3 full NAT", "D3 full NAT, its reverse"),
            (Kind::Dnat6, "D3 established v6 dnat", "D3 v6 dnat, its reverse"),
            (Kind::Udp, "UDP dnat", "UDP, its reverse"),
            (Kind::Udp6, "v6 UDP dnat", "v6 UDP, its reverse"),
            (Kind::Sctp, "SCTP dnat", "SCTP, its reverse"),
        ] {
            for (name, side) in [(there, Side::Client), (back, Side::Backend)] {
                add(name, Run::Again(kind.packet(&flows[&kind], side)), &[(kind.end(side), 1)]);
            }
        }
        across(&flows[&Kind::Nat64], &mut add);
        direct(&flows, hook, &mut add);
        odd(&flows, &mut add);
    }
    Ok(cases)
}

/// The only flow of each service.
type Flows = BTreeMap<Kind, Connection>;

type Add<'a> = dyn FnMut(&str, Run, &[(Reason, usize)]) + 'a;

fn across(flow: &Connection, add: &mut Add<'_>) {
    let [there, back] = [Side::Client, Side::Backend]
        .map(|side| (Kind::Nat64.packet(flow, side), (Kind::Nat64.end(side), 1)));
    add("D3 NAT64, both ways", Run::Across(there.0, back.0), &[there.1, back.1]);
    add("D3 NAT64, from IPv4, but for moving it", Run::Moved(there.0), &[there.1]);
    add("D3 NAT64, from IPv6, but for moving it", Run::Moved(back.0), &[back.1]);
}

/// Where backends answer clients themselves. At TC nothing undoes a tunnel, of which the kernel takes note.
fn direct(flows: &Flows, hook: Hook, add: &mut Add<'_>) {
    let mut add = |name: &str, run: fn(Packet) -> Run, kind: Kind| {
        let packet = kind.packet(&flows[&kind], Side::Client);
        add(name, run(packet), &[(kind.end(Side::Client), 1)]);
    };
    add("DSR on L2", Run::Again, Kind::L2);
    if hook == Hook::Tc {
        add(PLAIN_APART, Run::Apart, Kind::Dnat);
    }
    for (kind, name) in [(Kind::IpInIp, "IPIP"), (Kind::Ip6InIp6, "IP6IP6"), (Kind::Gue, "GUE")] {
        if hook == Hook::Tc {
            add(&format!("DSR by {name}, a test run for each"), Run::Apart, kind);
        } else {
            add(&format!("DSR by {name}, but for moving it"), Run::Moved, kind);
        }
    }
}

/// Packets of ICMP, fragments, and those of no service.
fn odd(flows: &Flows, add: &mut Add<'_>) {
    let (plain, plain6) = (flows[&Kind::Udp], flows[&Kind::Udp6]);
    // What a router on the way to the client says of the VIP's answer.
    let answer = packet(Carries::Udp, plain.vip, plain.client);
    let unreachable = error(v4(1, 0x6363, 0).ip(), plain.vip.ip(), &answer);
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 9).into();
    let fragment = |first, flow: &Connection| fragment(first, flow.client, flow.vip);
    for (name, packet, end) in [
        ("echo to a VIP, answered", plain.there(Carries::Echo), Reason::EchoAnswered),
        ("fragment, the first", fragment(true, &plain), Reason::ForwardedToBackend),
        ("fragment, a later one", fragment(false, &plain), Reason::ForwardedToBackend),
        ("ICMP error about a flow", unreachable, Reason::ErrorToBackend),
        ("v6 echo to a VIP, answered", plain6.there(Carries::Echo), Reason::EchoAnswered),
        ("v6 fragment, the first", fragment(true, &plain6), Reason::ForwardedToBackend),
        ("v6 fragment, a later one", fragment(false, &plain6), Reason::ForwardedToBackend),
        ("routed, of no service", packet(ACK, plain.client, v4(2, 0x0909, 9)), Reason::Forwarded),
        ("not ours: no route", packet(ACK, plain.client, nowhere), Reason::NoRoute),
        ("not ours: ARP", packet(ACK, plain.client, plain.vip).of_arp(), Reason::NotIp),
    ] {
        add(name, Run::Again(packet), &[(end, 1)]);
    }
}

/// A new connection's three packets above three established ones: D4.
pub(crate) fn measure_new(report: &mut Report) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 3 * fresh::NEW)?;
    let backends = Backends::new(100);
    let plain = backends.service(None, &[]);
    rig.apply(&table([(key(vip(0), Protocol::Tcp), plain)]))?;
    let mut costs = fresh::Costs::default();
    for round in 1..=ROUNDS {
        crate::say(&format!("new connections, round {round} of {ROUNDS}"));
        for hook in [Hook::Tc, Hook::Xdp] {
            costs.round(&mut rig, hook, &backends, vip(0))?;
        }
    }
    costs.tell(report, "table of 262,144");
    Ok(())
}
