//! A flow's first packet, of each kind of flows.

use anyhow::Result;
use lb_dataplane::{Hook, Sizes};

use crate::ROUNDS;
use crate::fresh::NEW;
use crate::kinds::{Kind, Side};
use crate::report::{Report, Series};
use crate::rig::Rig;
use crate::traffic::table;

const KINDS: [Kind; 5] = [Kind::Dnat, Kind::Udp, Kind::FullNat, Kind::Dnat6, Kind::Nat64];

/// What first packets of flows of a kind cost, by hook.
#[derive(Default)]
pub(crate) struct Costs {
    tc: Series,
    xdp: Series,
    used: u32,
}

impl Costs {
    /// That of flows whose clients have numbers from this one on.
    pub(crate) fn from(used: u32) -> Self {
        Self { used, ..Self::default() }
    }

    pub(crate) fn round(&mut self, rig: &mut Rig, kind: Kind) -> Result<()> {
        for (hook, costs) in [(Hook::Tc, &mut self.tc), (Hook::Xdp, &mut self.xdp)] {
            let numbers = self.used..self.used + NEW as u32;
            self.used = numbers.end;
            kind.load_first(rig, numbers.clone());
            let floor = rig.run(hook, kind.floor(), NEW)?;
            costs.push(rig.expect(hook, 1, &[(kind.end(Side::Client), NEW)])? - floor);
            kind.forget(rig, numbers)?;
        }
        Ok(())
    }

    pub(crate) fn tell(&self, report: &mut Report, name: &str, (against, other): (&str, &Self)) {
        for (hook, cost, other) in [("TC", &self.tc, &other.tc), ("XDP", &self.xdp, &other.xdp)] {
            let name = format!("a flow's first packet, {name}, {hook}");
            report.beside((&name, against), "ns", cost, other);
        }
    }
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    // As many flows of IPv6 as of IPv4: in a table of half the size some would end others that are half-open.
    let sizes = Sizes { flow_entries6: Sizes::default().flow_entries, ..Sizes::default() };
    // A packet of IPv6 takes the room of two.
    let mut rig = Rig::new(sizes, 2 * NEW)?;
    rig.apply(&table(KINDS.map(|kind| kind.service(100))))?;
    let mut costs = KINDS.map(|_| Costs::default());
    for round in 1..=ROUNDS {
        crate::say(&format!("first packets, round {round} of {ROUNDS}"));
        for (kind, costs) in KINDS.into_iter().zip(&mut costs) {
            costs.round(&mut rig, kind)?;
        }
    }
    for (kind, cost) in KINDS.into_iter().zip(&costs) {
        cost.tell(report, &kind.title(), (&Kind::Dnat.title(), &costs[0]));
    }
    Ok(())
}
