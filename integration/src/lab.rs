//! A lab: one topology up in namespaces of its own, taken down when it is dropped.
//!
//! Everything of a run carries its id: the folder `/run/lbd-lab/ID` and the namespaces `lbd-ID-NODE`. What was made is
//! written to the folder's `state.json` before it is made, so that whoever comes later can take down what a killed process
//! left. Runs share nothing and go side by side.

mod failure;
mod start;
mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_api_types::config::{Config, Hook};
use nix::sys::signal::Signal;

use self::state::{Recorded, State};
pub use self::state::{Running, list, take_down_left, take_down_own};
use crate::api::Api;
use crate::clab::{Endpoint, Topology};
use crate::netns::{Netns, run};
use crate::process::ProcessId;
use crate::program::Plan;

/// Where runs keep their files. Not below `/sys` and not in a home: FRR's own user reads here.
const FOLDER: &str = "/run/lbd-lab";

/// What to bring up.
pub struct Options {
    /// The network.
    pub topology: Topology,
    /// The hook that lbd is told to use.
    pub hook: Hook,
    /// The daemon.
    pub lbd: PathBuf,
    /// Its command-line client.
    pub lbctl: PathBuf,
    /// Changes lbd's configuration before it starts.
    pub edit: Box<dyn Fn(&mut Config) + Send + Sync>,
    /// Whether packets of every node are captured, to be looked at when something fails.
    pub capture: bool,
}

impl Options {
    /// A topology of this repository, with the daemon that `LBD_BIN` names or that lies beside the running program.
    pub fn of(topology: &str, lbd: Option<PathBuf>, lbctl: Option<PathBuf>) -> Result<Self> {
        let path = topology_file(topology)?;
        Ok(Self {
            topology: crate::clab::read(&path)?,
            hook: Hook::Auto,
            lbd: program(lbd, "LBD_BIN", "lbd")?,
            lbctl: program(lbctl, "LBCTL_BIN", "lbctl")?,
            edit: Box::new(|_| {}),
            capture: false,
        })
    }
}

/// The containerlab file of a topology: a path, or the name of a folder in `topologies/`.
pub fn topology_file(topology: &str) -> Result<PathBuf> {
    if topology.ends_with(".yml") || topology.ends_with(".yaml") {
        return Ok(topology.into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    let path = folder.join(topology).join(format!("{topology}.clab.yml"));
    if !path.exists() {
        bail!(
            "there is no topology `{topology}`: name a folder of topologies/ or a .clab.yml file"
        );
    }
    Ok(path.canonicalize()?)
}

fn program(named: Option<PathBuf>, variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = named.or_else(|| std::env::var_os(variable).map(PathBuf::from)) {
        return path
            .canonicalize()
            .with_context(|| format!("the program {name} is not at {}", path.display()));
    }
    let own = std::env::current_exe()?;
    own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists()).with_context(
        || format!("the program {name} is not built: run `cargo build -p lb-api --bins`, or name it by {variable}"),
    )
}

/// A topology that is up.
pub struct Lab {
    state: State,
    topology: Topology,
    hook: Hook,
    nodes: BTreeMap<String, Netns>,
    plans: BTreeMap<String, Plan>,
    children: Vec<(Recorded, Child)>,
}

impl Lab {
    /// Brings a topology up: namespaces, links, `exec` lines, programs; it returns once the daemons' sockets answer.
    pub fn up(options: &Options) -> Result<Self> {
        if let Err(error) = take_down_left(false, false) {
            // Another run may be at the same leftovers; what stays is for the next one.
            eprintln!("warning: {error:#}");
        }
        let mut lab = Self {
            state: State::create(&options.topology.name)?,
            topology: options.topology.clone(),
            hook: options.hook,
            nodes: BTreeMap::new(),
            plans: BTreeMap::new(),
            children: Vec::new(),
        };
        // From here on a failure drops the lab, which takes it down.
        lab.bring_up(options).inspect_err(|error| lab.collect(&format!("{error:#}")))?;
        Ok(lab)
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// Its folder: a folder per node, and `logs`.
    pub fn folder(&self) -> PathBuf {
        self.state.folder()
    }

    /// The folder of what the nodes' processes print.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("logs")
    }

    /// The topology's folder.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A node's namespace.
    pub fn netns(&self, node: &str) -> Result<&Netns> {
        self.nodes.get(node).with_context(|| format!("there is no node `{node}`"))
    }

    /// A client of the REST API of the node `lbd`.
    pub fn api(&self) -> Api {
        Api::new(self.folder().join("lbd/lbd.sock"))
    }

    /// Runs a shell command in a node; `vtysh`, `birdc` and `lbctl` find the node's own daemon.
    pub fn run(&self, node: &str, command: &str) -> Result<String> {
        run(&mut self.shell(node, command)?).with_context(|| format!("in node `{node}`"))
    }

    fn shell(&self, node: &str, command: &str) -> Result<Command> {
        let tools = self.folder().join(node).join("bin");
        let mut shell = self.netns(node)?.command("sh");
        shell.env("PATH", format!("{}:{}", tools.display(), crate::netns::PATH));
        let node = self.topology.nodes.get(node).context("the node is not in the topology")?;
        let command = node.binds.iter().fold(command.to_owned(), |line, (inside, host)| {
            line.replace(inside.as_str(), &host.to_string_lossy())
        });
        shell.args(["-c", &command]);
        Ok(shell)
    }

    /// Starts a process in a node that ends with the lab; its output goes to `logs/NODE-NAME.log`.
    pub fn spawn(&mut self, node: &str, name: &str, command: &str) -> Result<()> {
        let shell = self.shell(node, &format!("exec {command}"))?;
        self.track(node, name, shell)
    }

    /// Stops the programs of a node and waits until they are gone.
    pub fn stop(&mut self, node: &str, signal: Signal) -> Result<()> {
        let ours = |recorded: &Recorded| recorded.node == node && recorded.name != failure::CAPTURE;
        self.stop_where(signal, ours).map(drop)
    }

    /// Stops one process of a node and waits until it is gone; how it ended.
    pub fn stop_one(&mut self, node: &str, name: &str, signal: Signal) -> Result<ExitStatus> {
        let ours = |recorded: &Recorded| recorded.node == node && recorded.name == name;
        self.stop_where(signal, ours)?.pop().context("no such process runs")
    }

    fn stop_where(
        &mut self,
        signal: Signal,
        which: impl Fn(&Recorded) -> bool,
    ) -> Result<Vec<ExitStatus>> {
        let (stop, keep): (Vec<_>, Vec<_>) = std::mem::take(&mut self.children)
            .into_iter()
            .partition(|(recorded, _)| which(recorded));
        self.children = keep;
        if stop.is_empty() {
            bail!("no such process runs");
        }
        for (recorded, _) in &stop {
            recorded.process.signal(signal)?;
        }
        let mut ends = Vec::new();
        for (recorded, mut child) in stop {
            recorded.process.wait()?;
            ends.push(child.wait()?);
            self.state.forget(&recorded);
        }
        self.state.save()?;
        Ok(ends)
    }

    /// A process of a node that was started last.
    pub fn process(&self, node: &str, name: &str) -> Result<ProcessId> {
        let all = self.state.processes.iter().rev();
        let mut ours = all.filter(|recorded| recorded.node == node && recorded.name == name);
        let found = ours.next().with_context(|| format!("node `{node}` runs no {name}"))?;
        Ok(found.process)
    }

    /// Whether a process of a node still runs.
    pub fn runs(&self, node: &str, name: &str) -> bool {
        self.children.iter().any(|(recorded, _)| {
            recorded.node == node && recorded.name == name && recorded.process.runs()
        })
    }

    /// Sets the state of a node's interface: `up` or `down`.
    pub fn set_link(&self, end: &Endpoint, to: &str) -> Result<()> {
        self.run(&end.node, &format!("ip link set {} {to}", end.interface)).map(drop)
    }

    /// Loses this share of the packets at an interface, both ways, without a word; 0 heals it.
    pub fn lose(&self, end: &Endpoint, percent: u8) -> Result<()> {
        let interface = &end.interface;
        let table = format!("lab_loss_{interface}");
        self.run(&end.node, &format!("nft delete table netdev {table} 2>/dev/null || true"))?;
        if percent == 0 {
            return Ok(());
        }
        // nft refuses a comparison that always holds.
        let which = match percent {
            100.. => String::new(),
            some => format!("numgen random mod 100 < {some} "),
        };
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{\n type filter hook {hook} device \"{interface}\" priority 0;\n \
                 {which}drop\n}}\n"
            )
        };
        let rules = format!("table netdev {table} {{\n{}{}}}", chain("ingress"), chain("egress"));
        self.run(&end.node, &format!("echo '{rules}' | nft -f -")).map(drop)
    }

    /// Collects what the lab says of itself, because something was not as it should be.
    pub fn failed(&self, why: &str) {
        self.collect(why);
    }

    /// Leaves the lab up when this process ends.
    pub fn keep(mut self) -> Result<()> {
        self.state.kept = true;
        self.state.save()?;
        self.children.clear();
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.state.kept {
            return;
        }
        if thread::panicking() {
            self.collect("a test failed");
        }
        for (recorded, child) in &mut self.children {
            let _gone = recorded.process.signal(Signal::SIGKILL);
            let _reaped = child.wait();
        }
        if let Err(error) = self.state.take_down() {
            eprintln!("warning: lab {} is not wholly taken down: {error:#}", self.state.id);
        }
    }
}

/// How long daemons may take until their sockets answer.
const READY_WITHIN: Duration = Duration::from_secs(40);
