//! The peers under test: each a process of its own in the other namespace, so that the kernel says what it costs.

mod layout;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

pub(crate) use self::layout::{Layout, OUR_AS, Role, asn_of};
use crate::network::Network;

/// A peer that has used no CPU for so long has nothing left to do.
const QUIET: Duration = Duration::from_millis(300);
/// Nothing that is measured may take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This speaker: the router with its sockets, on the runtime that the daemon runs on.
    Lbd,
    /// BIRD 2.
    Bird,
    /// FRR's bgpd without zebra.
    Frr,
    /// GoBGP.
    GoBgp,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lbd => "lbd",
            Self::Bird => "BIRD",
            Self::Frr => "FRR",
            Self::GoBgp => "GoBGP",
        }
    }
}

/// A running peer, killed when dropped.
pub(crate) struct Peer {
    child: Child,
    _folder: TempDir,
}

impl Peer {
    /// Starts it among these ends.
    pub(crate) fn start(kind: Kind, network: &Network, layout: &Layout) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut command = match kind {
            Kind::Lbd => {
                let mut command = network.inside(std::env::current_exe()?);
                command.arg("--serve").args(layout.to_arguments());
                command
            }
            Kind::Bird => {
                fs::write(path("bird.conf"), layout.bird())?;
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
                fs::write(path("bgpd.conf"), layout.frr())?;
                let mut command = network.inside("/usr/lib/frr/bgpd");
                command.args(["-Z", "-S", "-f", &path("bgpd.conf"), "-i", &path("pid")]);
                command.args(["--vty_socket", &path(""), "-P", "0"]);
                command
            }
            Kind::GoBgp => {
                fs::write(path("gobgpd.conf"), layout.gobgp())?;
                let mut command = network.inside("/usr/bin/gobgpd");
                command.args(["-f", &path("gobgpd.conf"), "--api-hosts", "127.0.0.1:50051"]);
                command
            }
        };
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
        self.until_since(Instant::now(), what, condition)
    }

    /// The same from a time on.
    pub(crate) fn until_since(
        &mut self,
        start: Instant,
        what: &str,
        condition: impl Fn() -> bool,
    ) -> Result<f64> {
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

/// FRR gives up root.
fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?)
}
