//! The whole daemon as the peer under test: how long after the last UPDATE of a full table its eBPF FIB has all of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::light::Session;
use crate::network::{Network, PEER};
use crate::peer::{Layout, OUR_AS, asn_of, cpu};
use crate::report::{Report, Series};

/// What the issue of a full table is allowed.
const BOUND_SECS: f64 = 1.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks: each is a request over REST.
const BETWEEN: Duration = Duration::from_millis(10);

/// A running daemon with a FIB of its own; ended, and its programs and maps taken away, when dropped.
struct Daemon {
    child: Child,
    folder: TempDir,
}

impl Daemon {
    fn start(network: &Network, layout: &Layout, install: &str) -> Result<Self> {
        let program = std::env::var_os("LBD_BIN")
            .context("LBD_BIN does not name the daemon: run `cargo xtask bench bgp --fib`")?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut text = format!(
            "state_dir: {}\napi: {{ socket: {} }}\ndataplane: {{ pin_dir: {} }}\n\
             bgp:\n  asn: {OUR_AS}\n  router_id: {PEER}\n  peers:\n",
            at("state"),
            at("lbd.sock"),
            at("pins"),
        );
        for (number, _) in layout.ends() {
            text += &format!(
                "    - {{ address: {}, asn: {}, passive: true, hold_time_secs: 0, import: all, install: {install} }}\n",
                layout.family.end(number),
                asn_of(number)
            );
        }
        fs::create_dir(at("pins"))?;
        fs::create_dir(at("state"))?;
        fs::write(at("lbd.yaml"), text)?;
        let mut command = network.inside(program);
        command.args(["-c", &at("lbd.yaml")]).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(at("log"))?;
        let child = command.stderr(log).spawn().context("cannot start lbd")?;
        Ok(Self { child, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// IPv4 routes in the memory that packets read.
    fn routes(&self) -> Result<u64> {
        let mut stream = UnixStream::connect(self.path("lbd.sock"))?;
        let request = "GET /api/v1/status HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, after) = answer.split_once("\"routes_v4\":").context("no routes in the status")?;
        let digits: String = after.trim_start().chars().take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }

    /// Takes a full table: seconds after the first and the last UPDATE until the eBPF FIB has it, and of the processor.
    fn takes(&mut self, layout: &Layout, table: &[u8], prefixes: u64) -> Result<(f64, f64, f64)> {
        // Those of the host itself.
        self.until(1)?;
        let own = self.routes()?;
        let mut feeder = Session::open(layout, 1)?;
        let before = cpu(&self.child.id().to_string())?;
        let start = Instant::now();
        feeder.feed(table)?;
        let told = Instant::now();
        self.until(own + prefixes)?;
        let (first, last) = (start.elapsed().as_secs_f64(), told.elapsed().as_secs_f64());
        Ok((first, last, cpu(&self.child.id().to_string())? - before))
    }

    /// Waits until the FIB has so many routes; what `lbd` said last is the error.
    fn until(&mut self, least: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let routes = self.routes();
            if routes.as_ref().is_ok_and(|routes| *routes >= least) {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                let said = log.lines().next_back().unwrap_or_default();
                return Err(anyhow::anyhow!("{least} routes do not come ({routes:?}): {said}"));
            }
            thread::sleep(BETWEEN);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself, and have mounted nothing.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _unmounted = Command::new("umount").arg(self.path("pins")).output();
    }
}

/// A full table from one neighbour, so often.
pub(crate) fn run(network: &Network, table: &[u8], prefixes: u64, rounds: usize) -> Result<()> {
    let layout = Layout::new(1, 0);
    let (mut last, mut whole, mut used) = (Series::default(), Series::default(), Series::default());
    for round in 1..=rounds {
        eprintln!("==> lbd with its FIB, round {round} of {rounds}");
        let mut daemon = Daemon::start(network, &layout, "dataplane")?;
        let (first, after_last, cpu) = daemon.takes(&layout, table, prefixes)?;
        last.push(after_last);
        whole.push(first);
        used.push(cpu);
        ensure!(
            has_pins(&daemon.path("pins")),
            "lbd keeps no maps: its FIB is none of the kernel's"
        );
    }
    // Once with the kernel's table, too, which takes them one by one; last, since they stay there.
    let mut both = Daemon::start(network, &layout, "both")?;
    eprintln!("==> lbd with its FIB and the kernel's");
    let (_, in_both, _) = both.takes(&layout, table, prefixes)?;
    let mut report = Report::new("bgp-fib");
    let bound = Series(last.0.iter().map(|_| BOUND_SECS).collect());
    let what = format!("{prefixes} routes of a neighbour in the eBPF FIB, after its last UPDATE");
    report.ratio((&what, "the bound"), "s", &last, &bound, 1.0);
    report.note("the same, after its first UPDATE", "s", whole.median());
    report.note("CPU of lbd meanwhile", "s", used.median());
    report.note("the same after the last UPDATE, with install: both", "s", in_both);
    report.write()
}

fn has_pins(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
