//! `kill -9` while a neighbour's routes come and go: what the next process makes of what it finds in kernel and eBPF.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::{Config, Hook};
use lb_api_types::peer::{BgpPeer, PeerOptions, PeerSpec};
use lb_api_types::policy::Family;
use lb_api_types::resource::Tags;
use nix::sys::signal::Signal;

use super::Router;
use crate::hello::{Holds as _, SOON};

/// Routes of a family.
const ROUTES: u32 = 300;
/// How often the daemon is killed.
const KILLS: u64 = 3;
/// Somebody else's route to a destination that the neighbour announces, too.
const FOREIGN: u32 = 2;

fn with_neighbour(config: &mut Config) {
    let options = PeerOptions {
        asn: Some(65001),
        passive: Some(true),
        import: Some("all".into()),
        families: Some(vec![Family::Ipv4, Family::Ipv6]),
        ..PeerOptions::default()
    };
    let spec = PeerSpec { address: [10, 2, 1, 2].into(), group: None, options };
    config.bgp.peers.push(BgpPeer { name: Some("hop1".into()), tags: Tags::default(), spec });
}

fn prefixes(n: u32) -> [String; 2] {
    // No group of zeros: the kernel would write such a prefix otherwise.
    [format!("100.{}.{}.0/24", 70 + n / 250, n % 250), format!("2001:db8:70:{:x}::/64", n + 1)]
}

/// The neighbour's configuration; it announces those of `is_there`.
fn bird(is_there: impl Fn(u32) -> bool) -> String {
    let mut statics = [String::new(), String::new()];
    for n in (0..ROUTES).filter(|n| is_there(*n)) {
        for (routes, prefix) in statics.iter_mut().zip(prefixes(n)) {
            let _infallible = writeln!(routes, "  route {prefix} unreachable;");
        }
    }
    let [four, six] = statics;
    format!(
        "router id 10.2.1.2;\nprotocol device {{}}\n\
         protocol static four {{\n  ipv4;\n{four}}}\nprotocol static six {{\n  ipv6;\n{six}}}\n\
         protocol bgp {{\n  local 10.2.1.2 as 65001;\n  neighbor 10.2.1.1 as 64512;\n  \
         connect retry time 1;\n  connect delay time 1;\n  error wait time 1, 2;\n  \
         ipv4 {{ import none; export all; }};\n  \
         ipv6 {{ import none; export all; next hop address 2001:db8:2:1::2; }};\n}}\n"
    )
}

impl Router {
    /// Destinations of lbd's routes in the kernel.
    fn installed(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for family in ["-4", "-6"] {
            let shown = self.lab.run("lbd", &format!("ip {family} route show proto 179"))?;
            all.extend(shown.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())));
        }
        Ok(all)
    }
}

#[test]
fn after_kills_amid_changes_our_routes_are_those_announced_and_nobody_elses_were_touched() {
    let mut router = Router::up_with(Hook::Tc, with_neighbour);
    let [taken, taken_six] = prefixes(FOREIGN);
    let foreign = [
        ("-4", format!("{taken} via 10.2.2.2 metric 50 proto static")),
        ("-6", format!("{taken_six} via 2001:db8:2:2::2 metric 50 proto static")),
        ("-4", "198.51.100.0/24 via 10.2.3.2 proto 200".to_owned()),
        ("-6", "2001:db8:71::/48 via 2001:db8:2:3::2 proto 200".to_owned()),
    ];
    for (family, route) in &foreign {
        router.lab.run("lbd", &format!("ip {family} route add {route}")).holds();
    }
    let config = router.lab.folder().join("hop1/bird.conf");
    let control = config.with_extension("ctl");
    std::fs::write(&config, bird(|_| true)).expect("a configuration");
    let command = format!("bird -f -c {} -s {}", config.display(), control.display());
    router.lab.spawn("hop1", "bird", &command).holds();
    eventually("routes of the neighbour are in the kernel", SOON, || {
        let installed = router.installed()?;
        ensure!(installed.len() as u32 == 2 * (ROUTES - 1), "{}", installed.len());
        Ok(())
    })
    .holds();

    let says = |routes: String| {
        std::fs::write(&config, routes).expect("a configuration");
        std::process::Command::new("birdc").arg("-s").arg(&control).arg("configure").output()
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                says(bird(|n| (n + turn) % 3 != 0)).expect("birdc runs");
            }
            turn
        });
        for kill in 0..KILLS {
            // Another place in the changes each time; what is asserted does not depend on it.
            thread::sleep(Duration::from_millis(150 + 70 * kill));
            router.lab.stop_one("lbd", "lbd", Signal::SIGKILL).holds();
            router.lab.start("lbd").holds();
            eventually("the session is there again", SOON, || {
                let peers = router.api.peers()?;
                ensure!(peers.iter().all(|peer| peer.state == "Established"), "{peers:?}");
                Ok(())
            })
            .holds();
        }
        stop.store(true, Ordering::Relaxed);
        let turns = churn.join().expect("the neighbour changes its routes");
        println!("the neighbour changed its routes {turns} times through {KILLS} kills");
    });
    says(bird(|n| n % 2 == 0)).expect("birdc runs");
    let wanted: BTreeSet<String> =
        (0..ROUTES).filter(|n| n % 2 == 0 && *n != FOREIGN).flat_map(prefixes).collect();
    eventually("our routes in the kernel are those announced", SOON, || {
        let installed = router.installed()?;
        let (beyond, lacks): (Vec<_>, Vec<_>) =
            (installed.difference(&wanted).collect(), wanted.difference(&installed).collect());
        ensure!(beyond.is_empty() && lacks.is_empty(), "beyond {beyond:?}, lacking {lacks:?}");
        Ok(())
    })
    .holds();
    for (family, route) in &foreign {
        let destination = route.split(' ').next().unwrap_or_default();
        let shown = router.lab.run("lbd", &format!("ip {family} route show {destination}")).holds();
        assert!(shown.contains("via") && !shown.contains("proto 179"), "{destination}: {shown}");
    }
    eventually("speaker, router, eBPF and kernel agree", SOON, || {
        let audit = router.lab.run("lbd", "lbctl doctor fib 2>&1")?;
        ensure!(audit.contains("as router and kernel have it"), "{audit}");
        Ok(())
    })
    .holds();
}
