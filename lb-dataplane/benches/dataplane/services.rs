//! A thousand and ten thousand services beside one, a hundred backends each (D5), and a change to one of them, and to one of
//! 4,096 backends (D7).

use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use lb_dataplane::host::grace_period;
use lb_dataplane::plan::Waiting;
use lb_dataplane::table::{Change, Protocol};
use lb_dataplane::{Hook, Reason, Sizes};

use crate::frames::{ACK, Connection, SYN};
use crate::fresh::{self, handshake};
use crate::report::{Report, Series};
use crate::rig::{Rig, Target};
use crate::traffic::{Backends, key, shuffle, table, vip};
use crate::{ROUNDS, say};

const SOME: u16 = 1_000;
const MANY: u16 = 10_000;
const BACKENDS: u16 = 100;
/// As many as a service may have.
const MOST_BACKENDS: u16 = 4096;
/// Flows: one of each service, or as many of the only one.
const FLOWS: u32 = 10_000;
/// Packets of each flow in a run.
const TIMES: usize = 20;
/// Changes of a service.
const CHANGES: usize = 200;
const HOOKS: [(Hook, &str); 2] = [(Hook::Tc, "TC"), (Hook::Xdp, "XDP")];

/// A dataplane with its services and their connections.
struct Scene {
    rig: Rig,
    backends: Backends,
    connections: Vec<Connection>,
    services: u16,
    /// By hook.
    established: [Series; 2],
    new: [Series; 2],
    chosen: [Series; 2],
    used: u32,
}

impl Scene {
    fn new(services: u16, of_each: u16) -> Result<Self> {
        let count = u32::from(services);
        let sizes = Sizes {
            services: count * 2 + 64,
            backends: (count + 1) * u32::from(of_each),
            ring_pages: count * 16 + Sizes::default().ring_pages,
            ..Sizes::default()
        };
        let mut rig = Rig::new(sizes, 3 * FLOWS as usize)?;
        let backends = Backends::new(of_each);
        let service = backends.service(None, &[]);
        let table = table((0..services).map(|n| (key(vip(n), Protocol::Tcp), service.clone())));
        rig.apply(&table)?;
        let [established, new, chosen] = [(); 3].map(|()| HOOKS.map(|_| Series::default()));
        let (connections, used) = (Vec::new(), 0);
        let mut scene =
            Self { rig, backends, connections, services, established, new, chosen, used };
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
        self.handshakes(Hook::Tc).map(|_| ())
    }

    /// Nanoseconds per packet.
    fn handshakes(&mut self, hook: Hook) -> Result<f64> {
        let flows = FLOWS as usize;
        let ends = [(Reason::ForwardedToBackend, 2 * flows), (Reason::ForwardedToClient, flows)];
        self.rig.expect(hook, 1, &ends)
    }

    fn round(&mut self) -> Result<()> {
        for (at, (hook, _)) in HOOKS.into_iter().enumerate() {
            self.rig.load(self.connections.iter().map(|c| c.there(ACK)));
            let floor = self.rig.run(hook, Target::Nothing, TIMES * FLOWS as usize)?;
            let ends = [(Reason::ForwardedToBackend, FLOWS as usize)];
            let cost = self.rig.expect(hook, TIMES, &ends)? - floor;
            self.established[at].push(cost);
            let new = self.more();
            self.rig.load(new.iter().flat_map(handshake));
            let floor = self.rig.run(hook, Target::Nothing, 3 * FLOWS as usize)?;
            let cost = self.handshakes(hook)? - floor;
            self.new[at].push(3.0 * cost);
            fresh::forget(&mut self.rig, &new)?;
            // Others: their rings' words and their backends are as cold as these were, though their services have just been looked at.
            let others = self.more();
            self.rig.load(others.iter().map(|c| c.there(SYN)));
            let floor = self.rig.run(hook, Target::Nothing, FLOWS as usize)?;
            let cost = self.rig.run(hook, Target::Choose, FLOWS as usize)? - floor;
            self.chosen[at].push(cost);
        }
        Ok(())
    }
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    say("ten thousand services of a hundred backends");
    let (mut one, mut some) = (Scene::new(1, BACKENDS)?, Scene::new(SOME, BACKENDS)?);
    let start = Instant::now();
    let mut many = Scene::new(MANY, BACKENDS)?;
    let applied = start.elapsed().as_secs_f64();
    for round in 1..=ROUNDS {
        say(&format!("services, round {round} of {ROUNDS}"));
        for scene in [&mut one, &mut some, &mut many] {
            scene.round()?;
        }
    }
    for (at, (_, hook)) in HOOKS.into_iter().enumerate() {
        for (what, of, target) in [
            ("established", (|scene| &scene.established) as fn(&Scene) -> &[Series; 2], 1.1),
            ("new connection", |scene| &scene.new, 1.3),
        ] {
            let one = &of(&one)[at];
            let name = format!("1 k services, {what}, {hook}");
            report.beside((&name, "one service"), "ns", &of(&some)[at], one);
            let name = format!("D5 10 k services, {what}, {hook}");
            report.ratio((&name, "one service"), "ns", &of(&many)[at], one, target);
        }
        let name = format!("a part of D5, 10 k services: to choose a backend, alone, {hook}");
        report.beside((&name, "one service"), "ns", &many.chosen[at], &one.chosen[at]);
    }
    report.note("10 k services of 100 backends: load, apply, first flows", "s", applied);
    for (beside, scene) in [("one service", &mut one), ("10 k services", &mut many)] {
        let high = change(scene)?;
        let name = format!("D7 a backend of 100 changed, to a packet, p99, {beside}");
        report.bound(&name, "ms", &high, 5.0);
    }
    drop((one, some, many));
    let mut one = Scene::new(1, MOST_BACKENDS)?;
    let high = change(&mut one)?.median();
    report.note("one of 4,096 backends fails or returns, to a packet, p99", "ms", high);
    moved(report, &mut one)
}

/// A backend that fails, and returns.
const FLAPS: usize = 7;

/// A backend fails and returns, again and again; every change is followed by a packet. The 99th percentile in milliseconds.
fn change(scene: &mut Scene) -> Result<Series> {
    let whole = scene.backends.service(None, &[]);
    let without = scene.backends.service(Some(FLAPS), &[]);
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
    let mut series = Series::default();
    series.push(high);
    // Every flow is where it was: what its backend sends still finds it.
    let flows = FLOWS as usize;
    scene.rig.load(scene.connections.iter().flat_map(|c| [c.there(ACK), c.back(ACK)]));
    let ends = [(Reason::ForwardedToBackend, flows), (Reason::ForwardedToClient, flows)];
    let broken = scene.rig.expect(Hook::Tc, 1, &ends);
    ensure!(broken.is_ok(), "flows broke while backends changed: {broken:?}");
    Ok(series)
}

/// New connections whose backend is another one while one of them has failed, though theirs has not.
fn moved(report: &mut Report, scene: &mut Scene) -> Result<()> {
    let others = scene.backends.without(FLAPS);
    let failed = scene.backends.address(FLAPS);
    let was = scene.more();
    let is: Vec<Connection> = was.iter().map(|c| others.connection_of(c.client, c.vip)).collect();
    let moved = was.iter().zip(&is).filter(|(was, is)| was.backend != is.backend);
    let moved = moved.filter(|(was, _)| was.backend != failed).count();
    // The programs choose as that says.
    let without = scene.backends.service(Some(FLAPS), &[]);
    let change = Change { services: [(key(vip(0), Protocol::Tcp), Some(without))].into() };
    scene.rig.change(&change)?;
    scene.rig.load(is.iter().flat_map(handshake));
    scene.handshakes(Hook::Tc)?;
    let share = moved as f64 / was.len() as f64 * 100.0;
    report.note("one of 4,096 backends fails: others' new connections that move", "%", share);
    Ok(())
}
