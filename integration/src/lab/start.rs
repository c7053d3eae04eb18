//! Bringing a lab up: namespaces, links, `exec` lines, programs, in this order.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use lb_api_types::config::Hook;
use nix::mount::{MsFlags, mount};

use super::{Lab, Options, READY_WITHIN, Recorded, failure};
use crate::netns::{Netns, run};
use crate::privileges;
use crate::process::ProcessId;
use crate::program::{self, Appliance, Program};
use crate::wait::eventually;
use crate::words;

impl Lab {
    pub(super) fn bring_up(&mut self, options: &Options) -> Result<()> {
        // What cannot be carried out is refused before anything is made.
        for (name, node) in &self.topology.nodes {
            Program::of(&node.image).with_context(|| format!("node `{name}`"))?;
        }
        fs::create_dir(self.logs())?;
        let names: Vec<String> = self.topology.nodes.keys().cloned().collect();
        for name in &names {
            self.make_node(name)?;
        }
        self.make_links()?;
        for name in &names {
            self.configure(name)?;
        }
        if options.capture {
            for name in &names {
                self.capture(name)?;
            }
        }
        // The appliance last: its neighbours listen when it first connects, and nobody waits for a retry.
        let (appliances, others): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| self.is_lbd(name));
        for group in [others, appliances] {
            for name in &group {
                self.plan(name, options)?;
                self.launch(name)?;
            }
            for name in &group {
                self.wait_until_ready(name)?;
            }
        }
        Ok(())
    }

    /// Writes what a node's programs need, and the tools that find them.
    fn plan(&mut self, name: &str, options: &Options) -> Result<()> {
        let folder = self.folder().join(name);
        let appliance = Appliance {
            lbd: &options.lbd,
            lbctl: &options.lbctl,
            hook: options.hook,
            edit: &*options.edit,
        };
        let plan = program::plan(&self.topology.nodes[name], &folder, &appliance)
            .with_context(|| format!("node `{name}`"))?;
        for (tool, words) in &plan.tools {
            program::write_tool(&folder.join("bin"), tool, words)?;
        }
        self.plans.insert(name.to_owned(), plan);
        Ok(())
    }

    fn make_node(&mut self, name: &str) -> Result<()> {
        let namespace = format!("lbd-{}-{name}", self.state.id);
        self.state.namespaces.insert(name.to_owned(), namespace.clone());
        self.state.save()?;
        let folder = self.folder().join(name);
        fs::create_dir(&folder)?;
        fs::create_dir(folder.join("bin"))?;
        self.nodes.insert(name.to_owned(), Netns::create(&namespace)?);
        if Program::of(&self.topology.nodes[name].image)? == Program::Lbd {
            let bpf = folder.join("bpf");
            fs::DirBuilder::new().mode(0o700).create(&bpf)?;
            self.state.mounts.push(bpf.clone());
            self.state.save()?;
            mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&Path>)
                .with_context(|| format!("cannot mount a bpffs at {}", bpf.display()))?;
        }
        Ok(())
    }

    fn make_links(&self) -> Result<()> {
        for link in &self.topology.links {
            let [a, b] = &link.ends;
            let mtu = link.mtu.to_string();
            run(Command::new("ip")
                .args(["link", "add", &a.interface, "mtu", &mtu])
                .args(["netns", self.netns(&a.node)?.name(), "type", "veth"])
                .args(["peer", "name", &b.interface, "mtu", &mtu])
                .args(["netns", self.netns(&b.node)?.name()]))?;
            for (end, far) in [(a, b), (b, a)] {
                self.set_link(end, "up")?;
                // A frame that native XDP redirects into a veth is only received by a far end with NAPI, and only with
                // its checksum complete: redirecting loses the mark of a partial one.
                if self.hook == Hook::Xdp && self.is_lbd(&far.node) {
                    self.run(&end.node, &format!("ethtool -K {} tx off gro on", end.interface))?;
                }
            }
        }
        Ok(())
    }

    fn is_lbd(&self, node: &str) -> bool {
        let image = self.topology.nodes.get(node).map(|node| node.image.as_str());
        image.and_then(|image| Program::of(image).ok()) == Some(Program::Lbd)
    }

    /// Kernel settings and `exec` lines, as they stand.
    fn configure(&self, name: &str) -> Result<()> {
        let node = &self.topology.nodes[name];
        let netns = self.netns(name)?;
        for (key, value) in &node.sysctls {
            run(netns.command("sysctl").arg("-qw").arg(format!("{key}={value}")))?;
        }
        for line in &node.exec {
            let words = words::split(line)?;
            let Some((first, rest)) = words.split_first() else { continue };
            let rest = rest.iter().map(|word| program::localise(word, &node.binds));
            run(netns.command(first).envs(&node.env).args(rest))
                .with_context(|| format!("node `{name}`, exec `{line}`"))?;
        }
        Ok(())
    }

    /// Starts the programs of a node.
    pub fn start(&mut self, name: &str) -> Result<()> {
        self.launch(name)?;
        self.wait_until_ready(name)
    }

    fn launch(&mut self, name: &str) -> Result<()> {
        let plan = self.plans.get(name).with_context(|| format!("there is no node `{name}`"))?;
        for process in plan.processes.clone() {
            let Some((program, arguments)) = process.argv.split_first() else { continue };
            let mut command = self.netns(name)?.command(program);
            command.args(arguments).envs(&self.topology.nodes[name].env);
            if let Some(level) = std::env::var_os("RUST_LOG") {
                command.env("RUST_LOG", level);
            }
            self.track(name, &process.name, command)?;
        }
        Ok(())
    }

    /// Starts a process and records it.
    pub(super) fn track(&mut self, node: &str, name: &str, mut command: Command) -> Result<()> {
        let path = self.logs().join(format!("{node}-{name}.log"));
        let log = File::options().append(true).create(true).open(path)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("node `{node}`: cannot start {name}: is it installed?"))?;
        let recorded = Recorded {
            node: node.to_owned(),
            name: name.to_owned(),
            process: ProcessId::of(child.id())?,
        };
        self.state.processes.push(recorded.clone());
        self.children.push((recorded, child));
        self.state.save()
    }

    fn wait_until_ready(&mut self, name: &str) -> Result<()> {
        let plan = &self.plans[name];
        // A capture may well have ended: it is bounded.
        let is_ours = |recorded: &Recorded| {
            recorded.node == name
                && plan.processes.iter().any(|process| process.name == recorded.name)
        };
        for socket in &plan.ready {
            eventually(&format!("{} answers", socket.display()), READY_WITHIN, || {
                let gone = self
                    .children
                    .iter()
                    .find(|(recorded, _)| is_ours(recorded) && !recorded.process.runs());
                if let Some((recorded, _)) = gone {
                    let log = self.logs().join(format!("{name}-{}.log", recorded.name));
                    let said = failure::tail(&log);
                    return Ok(Err(anyhow!("{} has ended: {said}", recorded.name)));
                }
                Ok(Ok(UnixStream::connect(socket).map(drop)?))
            })
            .and_then(|ready| ready)
            .with_context(|| format!("node `{name}`"))?;
        }
        if self.is_lbd(name) {
            let process = self.process(name, "lbd")?;
            privileges::are_given_up(process.pid(), program::LBD_USER)
                .with_context(|| format!("node `{name}`"))?;
        }
        if let Some((first, rest)) = plan.afterwards.as_deref().and_then(<[String]>::split_first) {
            run(self.netns(name)?.command(first).args(rest))?;
        }
        Ok(())
    }
}
