//! What a run has made, on disk, and how it is taken away again by whoever comes.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::FOLDER;
use crate::netns::{self, Netns};
use crate::process::ProcessId;

/// Runs that one process can begin.
const MAX_RUNS_PER_PROCESS: u32 = 10_000;

/// What a run has made. Invariant: a thing stands here before it exists (processes: as soon as they have a number).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) id: String,
    pub(super) topology: String,
    /// Who takes it down.
    owner: ProcessId,
    /// Left up on purpose: only `lab down` takes it down.
    pub(super) kept: bool,
    /// Namespaces by node.
    pub(super) namespaces: BTreeMap<String, String>,
    pub(super) processes: Vec<Recorded>,
    pub(super) mounts: Vec<PathBuf>,
}

/// A process of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub(super) node: String,
    pub(super) name: String,
    pub(super) process: ProcessId,
}

impl State {
    /// Claims an id and its folder.
    pub(super) fn create(topology: &str) -> Result<Self> {
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}: run as root"))?;
        let own = std::process::id();
        for run in 0..MAX_RUNS_PER_PROCESS {
            let id = format!("{own:x}{}", letters(run));
            match fs::create_dir(Path::new(FOLDER).join(&id)) {
                Ok(()) => {
                    let state = Self {
                        id,
                        topology: topology.to_owned(),
                        owner: ProcessId::own()?,
                        kept: false,
                        namespaces: BTreeMap::new(),
                        processes: Vec::new(),
                        mounts: Vec::new(),
                    };
                    state.save()?;
                    return Ok(state);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("cannot make the run's folder"),
            }
        }
        bail!("{FOLDER} is full of earlier runs: `cargo xtask lab down` takes them away")
    }

    pub(super) fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.id)
    }

    /// Writes it whole or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let fresh = self.folder().join("state.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&fresh, self.folder().join("state.json"))?;
        Ok(())
    }

    pub(super) fn forget(&mut self, gone: &Recorded) {
        self.processes.retain(|recorded| recorded != gone);
    }

    /// Ends the processes, unmounts, removes the namespaces and the folder; goes on past errors and reports the first.
    pub(super) fn take_down(&self) -> Result<()> {
        let mut outcome = Ok(());
        let mut step = |result: Result<()>| {
            if outcome.is_ok() {
                outcome = result;
            }
        };
        for recorded in &self.processes {
            step(recorded.process.signal(Signal::SIGKILL));
        }
        for recorded in &self.processes {
            step(recorded.process.wait());
        }
        for mount in &self.mounts {
            // Absent where the run ended between the record and the mount.
            let _absent = umount2(mount, MntFlags::MNT_DETACH);
        }
        for name in self.namespaces.values() {
            step(netns::remove(name));
        }
        if outcome.is_ok() {
            outcome = match fs::remove_dir_all(self.folder()) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).context("cannot remove the run's folder")
                }
                _ => Ok(()),
            };
        }
        outcome
    }
}

/// A number in letters, `a` to `z`, so that it does not run into the hexadecimal number before it.
fn letters(mut number: u32) -> String {
    let mut text = String::new();
    loop {
        text.push(char::from(b'g' + (number % 20) as u8));
        number /= 20;
        if number == 0 {
            return text;
        }
    }
}

/// A run that is up.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// Its topology.
    pub topology: String,
    /// Namespaces by node.
    pub namespaces: BTreeMap<String, String>,
    /// Its folder.
    pub folder: PathBuf,
    /// Left up on purpose.
    pub kept: bool,
    /// The process that takes it down still runs.
    pub owned: bool,
}

impl Running {
    /// A command in one of its nodes, which finds the node's own daemon.
    pub fn command(&self, node: &str, words: &[String]) -> Result<Command> {
        let namespace = self
            .namespaces
            .get(node)
            .with_context(|| format!("lab {} has no node `{node}`", self.id))?;
        let (program, arguments) = words.split_first().context("no command is given")?;
        let tools = self.folder.join(node).join("bin");
        let tool = tools.join(program);
        let program =
            if tool.exists() { tool.to_string_lossy().into_owned() } else { program.clone() };
        let mut command = Netns::open(namespace)?.command(&program);
        command.env("PATH", format!("{}:{}", tools.display(), netns::PATH)).args(arguments);
        Ok(command)
    }
}

/// Every run that left a record.
fn records() -> Result<Vec<State>> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {FOLDER}")),
    };
    let mut records: Vec<State> = entries
        .filter_map(|entry| fs::read(entry.ok()?.path().join("state.json")).ok())
        .filter_map(|text| serde_json::from_slice(&text).ok())
        .collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(records)
}

/// Every run.
pub fn list() -> Result<Vec<Running>> {
    Ok(records()?
        .into_iter()
        .map(|state| Running {
            folder: state.folder(),
            owned: state.owner.runs(),
            id: state.id,
            topology: state.topology,
            namespaces: state.namespaces,
            kept: state.kept,
        })
        .collect())
}

/// Takes down the runs whose process is gone; if asked also those that were left up on purpose, and those in use.
/// Gives their ids.
pub fn take_down_left(kept_too: bool, used_too: bool) -> Result<Vec<String>> {
    take_down_where(|state| if state.kept { kept_too } else { used_too || !state.owner.runs() })
}

/// Takes down this process's runs, from a thread that does not own them.
pub fn take_down_own() -> Result<Vec<String>> {
    let own = ProcessId::own()?;
    take_down_where(|state| !state.kept && state.owner == own)
}

fn take_down_where(which: impl Fn(&State) -> bool) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for state in records()?.into_iter().filter(which) {
        state.take_down().with_context(|| format!("cannot take down lab {}", state.id))?;
        gone.push(state.id);
    }
    Ok(gone)
}
