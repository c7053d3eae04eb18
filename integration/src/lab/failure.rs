//! What is kept of a lab that failed: logs, captures, and what every node and daemon says of itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::Lab;
use crate::program::Program;
use crate::wait::eventually;

/// The name of the process that captures a node's packets.
pub(super) const CAPTURE: &str = "capture";
/// Packets that are kept per node, and bytes of each.
const CAPTURE_PACKETS: &str = "20000";
const CAPTURE_BYTES: &str = "128";
const CAPTURE_WITHIN: Duration = Duration::from_secs(20);
/// Lines of a log that an error message shows.
const TAIL_LINES: usize = 15;

const OF_THE_KERNEL: [&str; 5] = [
    "ip -d -s addr",
    "ip route show table all",
    "ip neigh",
    "cat /proc/net/snmp",
    "nft list ruleset",
];
const OF_FRR: [&str; 3] =
    ["vtysh -c 'show ip bgp'", "vtysh -c 'show bgp neighbors'", "vtysh -c 'show ip route'"];
const OF_BIRD: [&str; 2] = ["birdc show protocols all", "birdc show route all"];
const OF_LBD: [&str; 6] = ["status", "vips", "bgp/peers", "bgp/routes", "fib", "flows"];

impl Lab {
    /// Captures what a node's interfaces see.
    pub(super) fn capture(&mut self, node: &str) -> Result<()> {
        let file = self.logs().join(format!("{node}.pcap"));
        let command = format!(
            "tcpdump -i any -n -U -Z root -s {CAPTURE_BYTES} -c {CAPTURE_PACKETS} -w '{}'",
            file.display()
        );
        self.spawn(node, CAPTURE, &command)
    }

    /// Writes down what the nodes say, and copies it with the logs to where it outlives the lab.
    pub(super) fn collect(&self, why: &str) {
        for (name, node) in &self.topology.nodes {
            let mut said = String::new();
            let daemons: &[&str] = match Program::of(&node.image) {
                Ok(Program::Frr) => &OF_FRR,
                Ok(Program::Bird) => &OF_BIRD,
                _ => &[],
            };
            for command in OF_THE_KERNEL.iter().chain(daemons) {
                let answer = self.run(name, command).unwrap_or_else(|error| format!("{error:#}"));
                said.push_str(&format!("# {command}\n{answer}\n"));
            }
            let _written = fs::write(self.logs().join(format!("{name}.txt")), said);
        }
        let api = self.api();
        let said: Vec<String> = OF_LBD
            .iter()
            .map(|path| match api.get_text(path) {
                Ok(answer) => format!("# {path}\n{answer}\n"),
                Err(error) => format!("# {path}\n{error:#}\n"),
            })
            .collect();
        let _written = fs::write(self.logs().join("lbd-api.txt"), said.concat());
        let to = artefacts().join(&self.state.id);
        match copy_files(&self.logs(), &to) {
            Ok(()) => {
                eprintln!("lab {}: {why}; logs and captures are in {}", self.id(), to.display())
            }
            Err(error) => eprintln!("lab {}: {why}; its logs are lost: {error:#}", self.id()),
        }
    }

    /// Captures at one interface into a file, from now on; returns when tcpdump listens.
    pub fn capture_at(&mut self, node: &str, interface: &str) -> Result<PathBuf> {
        let file = self.logs().join(format!("{node}-{interface}.pcap"));
        let name = format!("tcpdump-{interface}");
        let command = format!("tcpdump -i {interface} -n -U -Z root -w '{}'", file.display());
        self.spawn(node, &name, &command)?;
        let log = self.logs().join(format!("{node}-{name}.log"));
        eventually("tcpdump listens", CAPTURE_WITHIN, || {
            anyhow::ensure!(fs::read_to_string(&log)?.contains("listening on"), "{}", tail(&log));
            Ok(())
        })?;
        Ok(file)
    }

    /// The packets of a capture that a filter selects, a line each.
    pub fn captured(&self, file: &Path, filter: &str) -> Result<Vec<String>> {
        let mut command = std::process::Command::new("tcpdump");
        command.arg("-n").arg("-r").arg(file).arg(filter);
        Ok(crate::netns::run(&mut command)?.lines().map(str::to_owned).collect())
    }
}

/// The last lines of a log.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// `target/lab`, beside the folder that this program was built into.
fn artefacts() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let target = own
        .ancestors()
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .and_then(Path::parent);
    target.map_or_else(std::env::temp_dir, Path::to_owned).join("lab")
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
