//! From one flow to a million in one table, in random order (D2), and new ones among them (D4). The same of flows of other kinds,
//! each in a table of its own.

use anyhow::Result;
use lb_dataplane::table::Protocol;
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::Connection;
use crate::fresh::{self, handshake};
use crate::kinds::{Kind, Side};
use crate::order::Order;
use crate::report::Report;
use crate::rig::Rig;
use crate::traffic::{Backends, key, shuffle, table, vip};
use crate::{ROUNDS, first, say};

const FLOWS: usize = 1_000_000;
/// Two entries a flow, and room for new ones.
const ENTRIES: u32 = 1 << 21;
/// Rounds over a whole million.
const LONG_ROUNDS: usize = 7;
/// Connections that begin in one run.
const BATCH: usize = 100_000;
/// Kinds of flows that are measured among many of theirs, beside those that have more rows.
const OTHERS: [Kind; 4] = [Kind::Udp, Kind::FullNat, Kind::Dnat6, Kind::Nat64];
/// Rounds of theirs.
const FEW_ROUNDS: usize = 5;
/// Numbers of clients that have no flows yet.
const UNUSED: u32 = 1 << 24;

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let sizes = Sizes { flow_entries: ENTRIES, ..Sizes::default() };
    let mut rig = Rig::new(sizes, FLOWS)?;
    let backends = Backends::new(100);
    rig.apply(&table([
        (key(vip(0), Protocol::Tcp), backends.service(None, &[])),
        Kind::Dnat.service(100),
    ]))?;
    let mut connections: Vec<Connection> = Vec::new();
    for flows in [1, 1000, 100_000, FLOWS] {
        say(&format!("{flows} flows in random order"));
        let numbers = connections.len() as u32..flows as u32;
        let new: Vec<Connection> = numbers.map(|n| backends.connection(vip(0), n)).collect();
        begin(&mut rig, &new)?;
        connections.extend(new);
        let is_all = flows == FLOWS;
        let rounds = if is_all { LONG_ROUNDS } else { ROUNDS };
        random_order(report, &mut rig, Kind::Dnat, &connections, rounds, is_all.then_some(1.6))?;
    }
    let (mut costs, mut plain) = (fresh::Costs::default(), first::Costs::from(UNUSED));
    for round in 1..=ROUNDS {
        say(&format!("new connections among a million flows, round {round} of {ROUNDS}"));
        for hook in [Hook::Tc, Hook::Xdp] {
            costs.round(&mut rig, hook, &backends, vip(0))?;
        }
        plain.round(&mut rig, Kind::Dnat)?;
    }
    costs.tell(report, "among 1 M flows");
    drop(rig);
    let against = (&*among(Kind::Dnat), &plain);
    plain.tell(report, against.0, against);
    OTHERS.into_iter().try_for_each(|kind| others(report, kind, against))
}

fn among(kind: Kind) -> String {
    format!("{}, among 1 M flows", kind.title())
}

/// The same of another kind, of which a client's numbers say all.
fn others(report: &mut Report, kind: Kind, against: (&str, &first::Costs)) -> Result<()> {
    let (service, of) = kind.service(100);
    let sizes = if service.address.is_ipv4() && kind != Kind::Nat64 {
        Sizes { flow_entries: ENTRIES, ..Sizes::default() }
    } else if kind == Kind::Nat64 {
        // A direction in the table of each family.
        Sizes { flow_entries: ENTRIES / 2, flow_entries6: ENTRIES / 2, ..Sizes::default() }
    } else {
        Sizes { flow_entries6: ENTRIES, ..Sizes::default() }
    };
    let mut rig = Rig::new(sizes, 2 * FLOWS)?;
    rig.apply(&table([(service, of)]))?;
    let mut flows = Vec::new();
    for count in [1000, 100_000, FLOWS] {
        say(&format!("{count} flows in random order: {}", kind.name()));
        flows.extend(kind.begin(&mut rig, flows.len() as u32..count as u32)?);
        random_order(report, &mut rig, kind, &flows, FEW_ROUNDS, None)?;
    }
    let mut costs = first::Costs::from(UNUSED);
    for round in 1..=ROUNDS {
        say(&format!("first packets among a million flows, round {round} of {ROUNDS}"));
        costs.round(&mut rig, kind)?;
    }
    costs.tell(report, &among(kind), against);
    Ok(())
}

fn random_order(
    report: &mut Report,
    rig: &mut Rig,
    kind: Kind,
    flows: &[Connection],
    rounds: usize,
    target: Option<f64>,
) -> Result<()> {
    let mut order = flows.to_vec();
    shuffle(&mut order);
    let (flows, sides) = (flows.len().to_string(), &[Side::Client, Side::Backend][..]);
    Order { kind, flows: &flows, order: &order, sides, rounds, target }.measure(report, rig)
}

pub(crate) fn begin(rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    for some in connections.chunks(BATCH) {
        rig.load(some.iter().flat_map(handshake));
        let ends =
            [(Reason::ForwardedToBackend, 2 * some.len()), (Reason::ForwardedToClient, some.len())];
        rig.expect(Hook::Tc, 1, &ends)?;
    }
    Ok(())
}
