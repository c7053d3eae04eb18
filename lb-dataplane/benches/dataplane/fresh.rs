//! New connections: SYN, SYN-ACK and ACK above three packets of an established one (D4).

use std::net::SocketAddr;

use anyhow::Result;
use lb_dataplane::{Hook, Reason};
use lb_dataplane_common::flow::TCP;

use crate::frames::{ACK, Connection, Packet, SYN, SYN_ACK};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::tables::Between;
use crate::traffic::Backends;

/// New connections in a round.
pub(crate) const NEW: usize = 10_000;
/// The first number of their clients: those before it have connections that stay.
const FIRST: u32 = 1 << 24;

/// What three packets cost, by hook.
#[derive(Default)]
pub(crate) struct Costs {
    tc: Pair,
    xdp: Pair,
    used: u32,
}

#[derive(Default)]
struct Pair {
    above: Series,
    established: Series,
}

impl Costs {
    pub(crate) fn round(
        &mut self,
        rig: &mut Rig,
        hook: Hook,
        backends: &Backends,
        vip: SocketAddr,
    ) -> Result<()> {
        let numbers = FIRST + self.used..FIRST + self.used + NEW as u32;
        self.used += NEW as u32;
        let connections: Vec<Connection> = numbers.map(|n| backends.connection(vip, n)).collect();
        rig.load(connections.iter().flat_map(handshake));
        let floor = rig.run(hook, Target::Nothing, 3 * NEW)?;
        let ends = [(Reason::ForwardedToBackend, 2 * NEW), (Reason::ForwardedToClient, NEW)];
        let new = rig.expect(hook, 1, &ends)?;
        rig.load(connections.iter().flat_map(established));
        let established = rig.expect(hook, 1, &ends)?;
        forget(rig, &connections)?;
        let pair = if hook == Hook::Tc { &mut self.tc } else { &mut self.xdp };
        pair.above.push(3.0 * (new - established));
        pair.established.push(3.0 * (established - floor));
        Ok(())
    }

    pub(crate) fn tell(&self, report: &mut Report, beside: &str) {
        for (hook, pair) in [("TC", &self.tc), ("XDP", &self.xdp)] {
            let name = format!("D4 new connection, {beside}, {hook}");
            report.bound(&name, "ns", &pair.above, 1200.0);
            let against = "three established packets of the same connections";
            report.beside((&name, against), "ns", &pair.above, &pair.established);
        }
    }
}

/// What begins a connection.
pub(crate) fn handshake(connection: &Connection) -> [Packet; 3] {
    [connection.there(SYN), connection.back(SYN_ACK), connection.there(ACK)]
}

/// As many packets of an established one, the same ways.
pub(crate) fn established(connection: &Connection) -> [Packet; 3] {
    [connection.there(ACK), connection.back(ACK), connection.there(ACK)]
}

/// Takes connections out of the flow table.
pub(crate) fn forget(rig: &mut Rig, connections: &[Connection]) -> Result<()> {
    connections.iter().flat_map(ways).try_for_each(|way| rig.remove(&way))
}

/// Both directions of a connection of TCP.
pub(crate) fn ways(connection: &Connection) -> [Between; 2] {
    let there = (connection.client, connection.vip);
    [there, (connection.backend, connection.towards)].map(|(from, to)| Between {
        protocol: TCP,
        from,
        to,
    })
}
