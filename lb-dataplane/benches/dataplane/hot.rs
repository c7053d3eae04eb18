//! One flow at a time, all of it in the cache: D1, full NAT beside it, and the packets that are no service's.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use lb_dataplane::table::{Protocol, Source};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::{ACK, Carries, Connection, Frame, SYN, SYN_ACK, frame};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, table, vip};
use crate::{ROUNDS, fresh};

/// Packets in one run.
const REPEAT: usize = 200_000;

/// A packet that is run again and again.
struct Case {
    name: String,
    hook: Hook,
    packet: Frame,
    ends: Reason,
    cost: Series,
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 64)?;
    let mut cases = scene(&mut rig)?;
    let (mut lookup, mut nothing) = ([Series::default(), Series::default()], Series::default());
    for round in 1..=ROUNDS {
        crate::say(&format!("one flow, round {round} of {ROUNDS}"));
        for (hook, series) in [Hook::Tc, Hook::Xdp].into_iter().zip(&mut lookup) {
            let of_flow = cases.iter().find(|case| case.ends == Reason::ForwardedToBackend);
            rig.load(of_flow.map(|case| case.packet));
            let floor = rig.run(hook, Target::Nothing, REPEAT)?;
            series.push(rig.run(hook, Target::Lookup, REPEAT)? - floor);
            nothing.push(floor);
        }
        for case in &mut cases {
            rig.load([case.packet]);
            let floor = rig.run(case.hook, Target::Nothing, REPEAT)?;
            case.cost.push(rig.expect(case.hook, REPEAT, &[(case.ends, 1)])? - floor);
        }
    }
    tell(report, &cases, &lookup, &nothing);
    Ok(())
}

fn tell(report: &mut Report, cases: &[Case], lookup: &[Series; 2], nothing: &Series) {
    for case in cases {
        let lookup = &lookup[usize::from(case.hook == Hook::Xdp)];
        if case.name.starts_with("D1") {
            report.bound(&case.name, "ns", &case.cost, 75.0);
        }
        report.beside(
            (&case.name, "a bare lookup in the flow table, hot"),
            "ns",
            &case.cost,
            lookup,
        );
    }
    for hook in ["TC", "XDP"] {
        let named = |name: &str| cases.iter().find(|case| case.name == format!("{name}, {hook}"));
        let (Some(full), Some(plain)) = (named("D3 full NAT"), named("D1 established v4 dnat"))
        else {
            continue;
        };
        let name = format!("D3 full NAT, {hook}");
        report.ratio((&name, "DNAT"), "ns", &full.cost, &plain.cost, 1.15);
    }
    report.note("restoring the packet, with the test run's loop", "ns", nothing.median());
}

/// One service of each kind, with one established flow.
fn scene(rig: &mut Rig) -> Result<Vec<Case>> {
    let backends = Backends::new(1);
    let ours = Ipv4Addr::new(172, 17, 0, 1);
    let source = Source { address: ours.into(), first_port: 5000, last_port: 5000 };
    rig.apply(&table([
        (key(vip(0), Protocol::Tcp), backends.service(None, &[])),
        (key(vip(0), Protocol::Udp), backends.service(None, &[])),
        (key(vip(1), Protocol::Tcp), backends.service(None, &[source])),
    ]))?;
    let plain = backends.connection(vip(0), 1);
    let towards = SocketAddrV4::new(ours, 5000);
    let full = Connection { towards, ..backends.connection(vip(1), 2) };
    let begun = [(Reason::ForwardedToBackend, 2), (Reason::ForwardedToClient, 1)];
    for connection in [plain, full] {
        rig.load([connection.there(SYN), connection.back(SYN_ACK), connection.there(ACK)]);
        rig.expect(Hook::Tc, 1, &begun)?;
    }
    rig.load([plain.there(Carries::Udp), plain.back(Carries::Udp), plain.there(Carries::Udp)]);
    rig.expect(Hook::Tc, 1, &begun)?;

    let elsewhere = |c, d| SocketAddrV4::new(Ipv4Addr::new(10, 2, c, d), 9);
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 9);
    let mut arp = frame(ACK, plain.client, plain.vip);
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut cases = Vec::new();
    for (hook, word) in [(Hook::Tc, "TC"), (Hook::Xdp, "XDP")] {
        for (name, packet, ends) in [
            ("D1 established v4 dnat", plain.there(ACK), Reason::ForwardedToBackend),
            ("D1 its reverse", plain.back(ACK), Reason::ForwardedToClient),
            ("D3 full NAT", full.there(ACK), Reason::ForwardedToBackend),
            ("D3 full NAT, its reverse", full.back(ACK), Reason::ForwardedToClient),
            ("UDP dnat", plain.there(Carries::Udp), Reason::ForwardedToBackend),
            ("UDP, its reverse", plain.back(Carries::Udp), Reason::ForwardedToClient),
            ("echo to a VIP, answered", plain.there(Carries::Echo), Reason::EchoAnswered),
            ("routed, of no service", frame(ACK, plain.client, elsewhere(9, 9)), Reason::Forwarded),
            ("not ours: no route", frame(ACK, plain.client, nowhere), Reason::NoRoute),
            ("not ours: ARP", arp, Reason::NotIp),
        ] {
            let name = format!("{name}, {word}");
            cases.push(Case { name, hook, packet, ends, cost: Series::default() });
        }
    }
    Ok(cases)
}

/// A new connection's three packets above three established ones: D4.
pub(crate) fn measure_new(report: &mut Report) -> Result<()> {
    let mut rig = Rig::new(Sizes::default(), 3 * fresh::NEW)?;
    let backends = Backends::new(100);
    rig.apply(&table([(key(vip(0), Protocol::Tcp), backends.service(None, &[]))]))?;
    let mut costs = fresh::Costs::default();
    for round in 1..=ROUNDS {
        crate::say(&format!("new connections, round {round} of {ROUNDS}"));
        for hook in [Hook::Tc, Hook::Xdp] {
            costs.round(&mut rig, hook, &backends)?;
        }
    }
    costs.tell(report, "table of 262,144");
    Ok(())
}
