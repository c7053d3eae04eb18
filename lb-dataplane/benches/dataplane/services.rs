//! A thousand and ten thousand services beside one, a hundred backends each (D5), and a change to one of them (D7).

use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use lb_dataplane::host::grace_period;
use lb_dataplane::plan::Waiting;
use lb_dataplane::table::{Change, Protocol};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::{ACK, Connection};
use crate::fresh::{self, handshake};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, shuffle, table, vip};
use crate::{ROUNDS, say};

const SOME: u16 = 1_000;
const MANY: u16 = 10_000;
const BACKENDS: u16 = 100;
/// Flows: one of each service, or as many of the only one.
const FLOWS: u32 = 10_000;
/// Packets of each flow in a run.
const TIMES: usize = 20;
/// Changes of a service.
const CHANGES: usize = 200;

/// A dataplane with its services and their connections.
struct Scene {
    rig: Rig,
    backends: Backends,
    connections: Vec<Connection>,
    services: u16,
    established: Series,
    new: Series,
    used: u32,
}

impl Scene {
    fn new(services: u16) -> Result<Self> {
        let count = u32::from(services);
        let sizes = Sizes {
            services: count * 2 + 64,
            backends: (count + 1) * u32::from(BACKENDS),
            ring_pages: count * 16 + Sizes::default().ring_pages,
            ..Sizes::default()
        };
        let mut rig = Rig::new(sizes, 3 * FLOWS as usize)?;
        let backends = Backends::new(BACKENDS);
        let service = backends.service(None, &[]);
        let table = table((0..services).map(|n| (key(vip(n), Protocol::Tcp), service.clone())));
        rig.apply(&table)?;
        let (established, new) = (Series::default(), Series::default());
        let connections = Vec::new();
        let mut scene = Self { rig, backends, connections, services, established, new, used: 0 };
        scene.connections = scene.more();
        scene.begin()?;
        Ok(scene)
    }

    /// Connections that were not there before, over all services, in random order.
    fn more(&mut self) -> Vec<Connection> {
        let numbers = self.used..self.used + FLOWS;
        self.used += FLOWS;
        let services = u32::from(self.services);
        let of = |n| self.backends.connection(vip((n % services) as u16), n);
        let mut connections: Vec<Connection> = numbers.map(of).collect();
        shuffle(&mut connections);
        connections
    }

    fn begin(&mut self) -> Result<()> {
        self.rig.load(self.connections.iter().flat_map(handshake));
        self.handshakes().map(|_| ())
    }

    /// Nanoseconds per packet.
    fn handshakes(&mut self) -> Result<f64> {
        let flows = FLOWS as usize;
        let ends = [(Reason::ForwardedToBackend, 2 * flows), (Reason::ForwardedToClient, flows)];
        self.rig.expect(Hook::Tc, 1, &ends)
    }

    fn round(&mut self) -> Result<()> {
        self.rig.load(self.connections.iter().map(|c| c.there(ACK)));
        let floor = self.rig.run(Hook::Tc, Target::Nothing, TIMES * FLOWS as usize)?;
        let ends = [(Reason::ForwardedToBackend, FLOWS as usize)];
        self.established.push(self.rig.expect(Hook::Tc, TIMES, &ends)? - floor);
        let new = self.more();
        self.rig.load(new.iter().flat_map(handshake));
        let floor = self.rig.run(Hook::Tc, Target::Nothing, 3 * FLOWS as usize)?;
        let cost = self.handshakes()? - floor;
        self.new.push(3.0 * cost);
        fresh::forget(&mut self.rig, &new)
    }
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    say("ten thousand services of a hundred backends");
    let (mut one, mut some) = (Scene::new(1)?, Scene::new(SOME)?);
    let start = Instant::now();
    let mut many = Scene::new(MANY)?;
    let applied = start.elapsed().as_secs_f64();
    for round in 1..=ROUNDS {
        say(&format!("services, round {round} of {ROUNDS}"));
        for scene in [&mut one, &mut some, &mut many] {
            scene.round()?;
        }
    }
    for (name, value, one) in [
        ("1 k services, established, TC", &some.established, &one.established),
        ("1 k services, new connection, TC", &some.new, &one.new),
    ] {
        report.beside((name, "one service"), "ns", value, one);
    }
    let name = "D5 10 k services, established, TC";
    report.ratio((name, "one service"), "ns", &many.established, &one.established, 1.1);
    let name = "D5 10 k services, new connection, TC";
    report.ratio((name, "one service"), "ns", &many.new, &one.new, 1.3);
    report.note("10 k services of 100 backends: load, apply, first flows", "s", applied);
    change(report, "one service", &mut one)?;
    change(report, "10 k services", &mut many)
}

/// A backend leaves a service and comes back, again and again; every change is followed by a packet.
fn change(report: &mut Report, beside: &str, scene: &mut Scene) -> Result<()> {
    let whole = scene.backends.service(None, &[]);
    let without = scene.backends.service(Some(7), &[]);
    let service = key(vip(0), Protocol::Tcp);
    let first = scene.connections[0];
    scene.rig.load([first.there(ACK)]);
    let mut times = Vec::with_capacity(CHANGES);
    let mut grace: Option<JoinHandle<Result<Waiting>>> = None;
    for n in 0..CHANGES {
        let next = if n % 2 == 0 { &without } else { &whole };
        let change = Change { services: [(service, Some(next.clone()))].into() };
        let start = Instant::now();
        let waiting = scene.rig.change(&change)?;
        scene.rig.expect(Hook::Tc, 1, &[(Reason::ForwardedToBackend, 1)])?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        // Somebody waits beside the changes for what they leave, as in the daemon.
        if let Some(over) = grace.take_if(|grace| grace.is_finished()) {
            scene.rig.passed(over.join().map_err(|_| anyhow!("nobody waits"))??);
        } else if let Some(waiting) = waiting.filter(|_| grace.is_none()) {
            grace = Some(thread::spawn(move || Ok(grace_period().map(|()| waiting)?)));
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let high = times[CHANGES * 99 / 100 - 1];
    let name = format!("D7 a backend of 100 changed, to a packet, p99, {beside}");
    let mut series = Series::default();
    series.push(high);
    report.bound(&name, "ms", &series, 5.0);
    // Every flow is where it was: what its backend sends still finds it.
    let flows = FLOWS as usize;
    scene.rig.load(scene.connections.iter().flat_map(|c| [c.there(ACK), c.back(ACK)]));
    let ends = [(Reason::ForwardedToBackend, flows), (Reason::ForwardedToClient, flows)];
    let broken = scene.rig.expect(Hook::Tc, 1, &ends);
    ensure!(broken.is_ok(), "flows broke while backends changed: {broken:?}");
    Ok(())
}
