//! The peers under test: each a process of its own in the other namespace, so that the kernel says what it costs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::network::{Network, PEER, end};

/// The AS of the peer under test.
pub(crate) const OUR_AS: u32 = 64500;
/// A peer that has used no CPU for so long has nothing left to do.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(120);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This speaker: the router with its sockets, on the runtime that the daemon runs on.
    Lbd,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd without zebra.
    Frr,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lbd => "lbd",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
        }
    }
}

/// The AS of an end; each is external.
pub(crate) fn asn_of(number: u8) -> u32 {
    65000 + u32::from(number)
}

/// A running peer, killed when dropped.
pub(crate) struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts it with so many feeders, which are told nothing, and sinks, which are told everything. The feeders are the
    /// ends from 1 on, the sinks follow.
    pub(crate) fn start(kind: Kind, network: &Network, feeders: u8, sinks: u8) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = match kind {
            Kind::Lbd => {
                let mut command = network.inside(std::env::current_exe()?);
                command.args(["--serve", &feeders.to_string(), &sinks.to_string()]);
                command
            }
            Kind::Bird => {
                fs::write(path("bird.conf"), bird(feeders, sinks))?;
                let mut command = network.inside("/usr/sbin/bird");
                command.args([
                    "-f",
                    "-c",
                    &path("bird.conf"),
                    "-s",
                    &path("ctl"),
                    "-P",
                    &path("pid"),
                ]);
                command
            }
            Kind::Frr => {
                open_to_all(folder.path())?;
                fs::write(path("bgpd.conf"), frr(feeders, sinks))?;
                let mut command = network.inside("/usr/lib/frr/bgpd");
                command.args(["-Z", "-S", "-f", &path("bgpd.conf"), "-i", &path("pid")]);
                command.args(["--vty_socket", &path(""), "-P", "0"]);
                command
            }
        };
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = quiet.spawn().with_context(|| format!("cannot start {}", kind.name()))?;
        Ok(Self { child, _folder: folder })
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.trim().parse::<f64>()? * 1024.0)
    }

    /// Seconds of CPU since it started.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(&self.child.id().to_string())
    }

    /// Waits until it does nothing any more.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut before, mut since) = (self.cpu()?, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(Instant::now() < deadline, "the peer under test does not come to rest");
            self.check()?;
            thread::sleep(Duration::from_millis(20));
            let now = self.cpu()?;
            if now > before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Waits for a condition and says how long it took.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn() -> bool) -> Result<f64> {
        let start = Instant::now();
        while !condition() {
            if start.elapsed() > PATIENCE {
                bail!("not within {PATIENCE:?}: {what}");
            }
            self.check()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the peer under test ended: {ended:?}");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Seconds of CPU that a process used, by its number or `self`.
pub(crate) fn cpu(process: &str) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// The ends and whether each is a sink.
fn ends(feeders: u8, sinks: u8) -> impl Iterator<Item = (u8, Ipv4Addr, bool)> {
    (1..=feeders + sinks).map(move |number| (number, end(number), number > feeders))
}

fn bird(feeders: u8, sinks: u8) -> String {
    let mut text = format!("router id {PEER};\nprotocol device {{}}\n");
    for (number, address, is_sink) in ends(feeders, sinks) {
        let (import, export) = if is_sink { ("none", "all") } else { ("all", "none") };
        let asn = asn_of(number);
        text += &format!(
            "protocol bgp p{number} {{ local {PEER} as {OUR_AS}; neighbor {address} as {asn}; passive yes; \
             hold time 0; ipv4 {{ import {import}; export {export}; }}; }}\n"
        );
    }
    text
}

fn frr(feeders: u8, sinks: u8) -> String {
    let mut text = format!(
        "router bgp {OUR_AS}\n bgp router-id {PEER}\n timers bgp 0 0\n no bgp ebgp-requires-policy\n"
    );
    for (number, address, _) in ends(feeders, sinks) {
        text += &format!(
            " neighbor {address} remote-as {}\n neighbor {address} passive\n neighbor {address} advertisement-interval 0\n",
            asn_of(number)
        );
    }
    text += " address-family ipv4 unicast\n";
    for (_, address, is_sink) in ends(feeders, sinks) {
        let direction = if is_sink { "in" } else { "out" };
        text += &format!("  neighbor {address} route-map none {direction}\n");
    }
    text + " exit-address-family\n!\nroute-map none deny 10\n"
}

/// FRR gives up root.
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?)
}
