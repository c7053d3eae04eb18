//! Routes that cannot be: refused by one sentence, or left to the kernel, and never sent another way.

use anyhow::{Result, ensure};
use integration::wait::eventually;
use lb_api_types::config::{Config, Hook};
use lb_api_types::peer::{BgpPeer, PeerOptions, PeerSpec};
use lb_api_types::policy::Install;
use lb_api_types::resource::Tags;
use serde_json::json;

use super::Router;
use crate::hello::{Holds as _, SOON};

/// Blocks of /24 with longer routes: the networks of the topology take eleven.
const BLOCKS: u32 = 16;
/// Routes that need a block each, from either.
const ROUTES: u32 = 8;

fn small(config: &mut Config) {
    small_with(config, Install::Both);
}

fn small_with(config: &mut Config, install: Install) {
    config.dataplane.max_fib_blocks = BLOCKS;
    let options = PeerOptions {
        asn: Some(65001),
        passive: Some(true),
        import: Some("all".into()),
        install: Some(install),
        ..PeerOptions::default()
    };
    let spec = PeerSpec { address: [10, 2, 1, 2].into(), group: None, options };
    config.bgp.peers.push(BgpPeer { name: Some("hop1".into()), tags: Tags::default(), spec });
}

impl Router {
    /// A static route is refused by one sentence with these words, and is nowhere.
    fn refuses(&self, prefix: &str, next_hop: &str, words: &[&str]) {
        let spec = json!({"prefix": prefix, "next_hops": [{"address": next_hop}]});
        let body = json!({"metadata": {"name": "refused"}, "spec": spec}).to_string();
        let answer = self.api.request("PUT", "static-routes/refused", Some(&body)).holds();
        let problem = answer.problem().holds();
        assert!((400..500).contains(&answer.status), "{prefix}: {problem:?}");
        assert!(!problem.detail.contains('\n'), "{prefix}: more than a sentence: {problem:?}");
        for word in words {
            assert!(problem.detail.contains(word), "{prefix}: no {word}: {}", problem.detail);
        }
        let gone = self.api.request("GET", "static-routes/refused", None).holds();
        assert_eq!(gone.status, 404, "{prefix} is there: {}", gone.body);
        assert_eq!(self.lab.run("lbd", "ip route show proto 179 metric 20").holds(), "");
    }

    /// How many routes and groups there is no room for.
    fn left_out(&self) -> Result<usize> {
        Ok(self.api.status()?.fib.left_out)
    }

    /// The first next hop begins to announce routes.
    fn announce(&mut self) {
        let config = self.lab.folder().join("hop1/bird.conf");
        std::fs::write(&config, bird()).expect("a configuration");
        let control = config.with_extension("ctl");
        let bird = format!("bird -f -c {} -s {}", config.display(), control.display());
        self.lab.spawn("hop1", "bird", &bird).holds();
    }

    /// An address of the first next hop that only a longer route leads to is reached, by way of the kernel where there is no
    /// room for it.
    fn reaches(&self, address: &str) {
        self.lab.run("hop1", &format!("ip addr replace {address}/32 dev lo")).holds();
        eventually(&format!("{address} answers"), SOON, || {
            let pinged = self.lab.run("client", &format!("ping -c 3 -i 0.02 -W 2 {address}"))?;
            ensure!(pinged.contains(" 0% packet loss"), "{pinged}");
            Ok(())
        })
        .holds();
    }
}

#[test]
fn routes_that_cannot_be_are_refused_and_those_that_do_not_fit_take_the_kernels_way() {
    let mut router = Router::up_with(Hook::Tc, small);
    router.refuses("10.98.0.1/24", "10.2.1.2", &["prefix", "10.98.0.0/24"]);
    router.refuses("10.98.0.0/24", "192.0.2.77", &["192.0.2.77", "no network of this host"]);

    // More than fit: first of the kernel's own, then of a BGP neighbour. A shorter route leads elsewhere.
    router.lab.run("lbd", "ip route add 100.64.0.0/15 via 10.2.2.2").holds();
    for n in 0..ROUTES {
        router.lab.run("lbd", &format!("ip route add 100.64.{n}.128/25 via 10.2.1.2")).holds();
    }
    let left_out = eventually("routes of the kernel are left out", SOON, || {
        let count = router.left_out()?;
        ensure!(count > 0, "all fit");
        Ok(count)
    })
    .holds();
    router.reaches(&format!("100.64.{}.129", ROUTES - 1));
    router.announce();
    eventually("routes of the neighbour are left out", SOON, || {
        let count = router.left_out()?;
        ensure!(count == left_out + ROUTES as usize, "{count}, {left_out} of the kernel");
        Ok(())
    })
    .holds();
    router.reaches(&format!("100.65.{}.129", ROUTES - 1));
    router.refuses("10.97.0.128/25", "10.2.1.2", &["10.97.0.128/25", "dataplane.max_fib_blocks"]);

    // It is counted, shown and said what to do.
    assert!(router.api.status().holds().fib.refused > 0);
    let lookup = format!("lbctl fib lookup 100.65.{}.129 2>&1 || true", ROUTES - 1);
    let said = router.lab.run("lbd", &lookup).holds();
    assert!(said.contains("no room"), "{said}");
    let doctor = router.lab.run("lbd", "lbctl doctor 2>&1 || true").holds();
    assert!(
        doctor.contains("no room for") && doctor.contains("dataplane.max_fib_blocks"),
        "{doctor}"
    );

    // Where there is room again, they come in by themselves.
    for n in 0..ROUTES {
        router.lab.run("lbd", &format!("ip route del 100.64.{n}.128/25")).holds();
    }
    router.lab.stop_one("hop1", "bird", nix::sys::signal::Signal::SIGTERM).holds();
    eventually("nothing is left out", SOON, || {
        let count = router.left_out()?;
        ensure!(count == 0, "{count} are");
        Ok(())
    })
    .holds();
    let audit = router.lab.run("lbd", "lbctl doctor fib 2>&1 || true").holds();
    assert!(audit.contains("as router and kernel have it"), "{audit}");
}

#[test]
fn packets_to_routes_for_ebpf_alone_that_do_not_fit_are_dropped_and_take_no_shorter_route() {
    let mut router = Router::up_with(Hook::Tc, |config| small_with(config, Install::Dataplane));
    // The kernel's way there would be another one.
    router.lab.run("lbd", "ip route add 100.64.0.0/15 via 10.2.2.2").holds();
    for n in 0..ROUTES {
        router.lab.run("lbd", &format!("ip route add 100.64.{n}.128/25 via 10.2.1.2")).holds();
    }
    router.announce();
    eventually("routes of the neighbour are left out, and dropped", SOON, || {
        let dropped = router.api.status()?.fib.dropped;
        ensure!(dropped == ROUTES as usize, "{dropped}");
        Ok(())
    })
    .holds();
    // The kernel's own are its business.
    router.reaches(&format!("100.64.{}.129", ROUTES - 1));
    let ended = || {
        let reasons = router.api.status().holds().reasons;
        let full = reasons.iter().find(|reason| reason.reason == "fib-full");
        full.map_or(0, |reason| reason.packets)
    };
    let before = ended();
    let ping = format!("ping -c 3 -i 0.02 -W 0.2 100.65.{}.129 || true", ROUTES - 1);
    let pinged = router.lab.run("client", &ping).holds();
    assert!(pinged.contains("100% packet loss"), "{pinged}");
    assert_eq!(ended() - before, 3, "each of them is counted");
    let lookup = format!("lbctl fib lookup 100.65.{}.129 2>&1 || true", ROUTES - 1);
    let said = router.lab.run("lbd", &lookup).holds();
    assert!(said.contains("no-room") && said.contains("are dropped"), "{said}");
}

/// A neighbour that announces routes to itself.
fn bird() -> String {
    let routes: String =
        (0..ROUTES).map(|n| format!("  route 100.65.{n}.128/25 unreachable;\n")).collect();
    format!(
        "router id 10.2.1.2;\nprotocol device {{}}\nprotocol static {{\n  ipv4;\n{routes}}}\n\
         protocol bgp {{\n  local 10.2.1.2 as 65001;\n  neighbor 10.2.1.1 as 64512;\n  \
         connect retry time 1;\n  ipv4 {{ import none; export all; }};\n}}\n"
    )
}
