//! More events than the daemon's socket holds, and changes that go on while it reads the kernel's tables again.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::Hook;
use nix::sys::signal::Signal;

use super::steady::Steady;
use super::{HOPS, Router};
use crate::hello::{Holds as _, SOON};

/// Far more than fit into the socket's buffer.
const FLOOD: u32 = 40_000;
/// Routes that come and go at a time while the tables are read.
const CHANGES: u32 = 100;
/// How long flows of a next hop may get nowhere from when the daemon can read again.
const AWAY: Duration = Duration::from_secs(5);

impl Router {
    /// Changes the kernel's routes all at once, none of which is lbd's.
    fn change(&self, lines: &str) -> Result<()> {
        let file = self.lab.folder().join("batch");
        std::fs::write(&file, lines)?;
        self.lab.run("lbd", &format!("ip -batch {}", file.display())).map(drop)
    }

    /// eBPF has the kernel's routes: that one, and not this one.
    fn has_but_not(&self, there: &str, gone: &str) -> Result<()> {
        let found = |destination: &str| -> Result<String> {
            self.api.get_text(&format!("fib/lookup?destination={destination}"))
        };
        let (has, lacks) = (found(there)?, found(gone)?);
        ensure!(has.contains(&format!("\"{there}/32\"")), "{has}");
        ensure!(!lacks.contains(&format!("\"{gone}/32\"")), "{lacks}");
        let audit = self.lab.run("lbd", "lbctl doctor fib 2>&1")?;
        ensure!(audit.contains("as router and kernel have it"), "{audit}");
        Ok(())
    }
}

/// Routes, one line each, from a network of 65,536 on.
fn routes(verb: &str, network: &str, count: u32) -> String {
    (0..count).fold(String::new(), |mut lines, n| {
        let (high, low) = (n / 256, n % 256);
        let _infallible = writeln!(lines, "route {verb} blackhole {network}.{high}.{low}");
        lines
    })
}

#[test]
fn what_the_kernel_changes_while_its_events_are_lost_and_while_its_tables_are_read_reaches_ebpf() {
    let router = Router::up(Hook::Tc);
    router.route(&(1..=HOPS).collect::<Vec<_>>()).holds();
    router.has_ways(HOPS);
    router.flows().holds();
    let steady = Steady::begin(&router.lab, &router.steadily).holds();

    let lbd = router.lab.process("lbd", "lbd").holds();
    lbd.signal(Signal::SIGSTOP).holds();
    // What counts comes last, and so is lost: a link goes down, a route comes, another one goes.
    let flood =
        routes("add", "100.64", FLOOD) + "route del blackhole 100.64.0.7\nlink set eth6 down\n";
    let changed = router.change(&flood);
    let resumed = Instant::now();
    lbd.signal(Signal::SIGCONT).holds();
    changed.holds();
    // While the tables are read, routes come before and behind the place that the reading is at.
    let log = router.lab.logs().join("lbd-lbd.log");
    let says = |what: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(what));
    eventually("the tables are read again", SOON, || {
        ensure!(says("reading the kernel's tables again"), "they are not");
        Ok(())
    })
    .holds();
    let (mut rounds, mut inside) = (0, 0);
    while !says("the kernel's tables were read again") {
        let begun = resumed.elapsed();
        assert!(begun < SOON, "they are still read after {begun:?}");
        let batch: String = (0..CHANGES)
            .map(|n| format!("route add blackhole 100.66.{rounds}.{n}\nroute del blackhole 100.64.{rounds}.{n}\n"))
            .collect();
        router.change(&batch.replace("route del blackhole 100.64.0.7\n", "")).holds();
        inside += u32::from(!says("the kernel's tables were read again"));
        rounds += 1;
    }
    println!("{inside} times {CHANGES} routes came and went while the tables were read");
    assert!(inside > 0, "no change fell into the reading");
    let (there, gone) = (format!("100.66.{}.9", rounds - 1), format!("100.64.{}.9", rounds - 1));
    eventually("eBPF is as the kernel", SOON, || {
        router.has_but_not(&there, &gone)?;
        router.has_but_not(&format!("100.64.{rounds}.9"), "100.64.0.7")
    })
    .holds();
    println!("eBPF is as the kernel {:?} after events could be read again", resumed.elapsed());
    let ways = router.flows().holds();
    assert!(ways.values().all(|hop| *hop != 5), "hop5 still gets flows");
    let lost = steady.end().holds();
    println!("meanwhile {lost}: hop5's flows were away {:?}", lost.away(HOPS));
    assert!(lost.away(HOPS) < AWAY, "{lost}");
    assert!(says("kernel events were lost"), "the buffer was large enough");
}
