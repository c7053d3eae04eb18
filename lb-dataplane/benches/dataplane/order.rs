//! Established flows in random order, beside a bare lookup of the same packets (D2).

use anyhow::Result;
use lb_dataplane::Hook;

use crate::frames::Connection;
use crate::kinds::{Kind, Side};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::shuffle;

/// Packets in one run, where there are fewer flows.
const REPEAT: usize = 200_000;

/// A packet of each flow in turn, to the backend and back.
pub(crate) struct Order<'a> {
    pub(crate) kind: Kind,
    /// As the report calls how many there are.
    pub(crate) flows: &'a str,
    pub(crate) order: &'a [Connection],
    pub(crate) sides: &'a [Side],
    pub(crate) rounds: usize,
    /// What the ratio is to be, if there is a target.
    pub(crate) target: Option<f64>,
}

impl Order<'_> {
    pub(crate) fn measure(&self, report: &mut Report, rig: &mut Rig) -> Result<()> {
        // In another order than packets come in: the kernel gives out elements one beside the other.
        let mut fill = self.order.to_vec();
        shuffle(&mut fill);
        for side in self.sides {
            self.kind.load(rig, fill.iter().map(|flow| self.kind.packet(flow, *side)));
            rig.run(Hook::Tc, Target::Fill, fill.len())?;
        }
        for side in self.sides {
            let mut costs = [(); 2].map(|()| [(); 2].map(|()| Series::default()));
            self.kind.load(rig, self.order.iter().map(|flow| self.kind.packet(flow, *side)));
            for _ in 0..self.rounds {
                for (hook, costs) in [Hook::Tc, Hook::Xdp].into_iter().zip(&mut costs) {
                    self.round(rig, hook, *side, costs)?;
                }
            }
            for (hook, [cost, lookup]) in ["TC", "XDP"].into_iter().zip(&costs) {
                self.tell(report, &format!("{}, {hook}", self.name(*side)), cost, lookup);
            }
        }
        Ok(())
    }

    fn round(
        &self,
        rig: &mut Rig,
        hook: Hook,
        side: Side,
        [cost, lookup]: &mut [Series; 2],
    ) -> Result<()> {
        let times = REPEAT.div_ceil(self.order.len());
        let packets = times * self.order.len();
        let floor = rig.run(hook, Target::Nothing, packets)?;
        lookup.push(rig.run(hook, Target::Lookup, packets)? - floor);
        let own = self.kind.floor();
        let floor = if own == Target::Nothing { floor } else { rig.run(hook, own, packets)? };
        cost.push(rig.expect(hook, times, &[(self.kind.end(side), self.order.len())])? - floor);
        Ok(())
    }

    fn name(&self, side: Side) -> String {
        let way = match side {
            Side::Client => "to the backend",
            Side::Backend => "from the backend",
        };
        if self.kind == Kind::Dnat {
            format!("D2 {} flows, {way}", self.flows)
        } else {
            format!("{} flows, {}, {way}", self.flows, self.kind.title())
        }
    }

    fn tell(&self, report: &mut Report, name: &str, cost: &Series, lookup: &Series) {
        let against = "a bare lookup of the same packets";
        match self.target {
            Some(target) => report.ratio((name, against), "ns", cost, lookup, target),
            None => report.beside((name, against), "ns", cost, lookup),
        }
    }
}
