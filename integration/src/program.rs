//! From a container image to the local program that stands for it, and how that program is started in a lab's folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lb_api_types::config::{Config, Hook};
use nix::unistd::User;

use crate::clab::Node;
use crate::words;

/// Images by the last part of their name, without registry and tag.
const IMAGES: [(&str, Program); 11] = [
    ("frr", Program::Frr),
    ("bird", Program::Bird),
    ("gobgp", Program::Gobgp),
    ("lbd", Program::Lbd),
    ("alpine", Program::Command),
    ("busybox", Program::Command),
    ("debian", Program::Command),
    ("netshoot", Program::Command),
    ("network-multitool", Program::Command),
    ("python", Program::Command),
    ("ubuntu", Program::Command),
];

/// Who the appliance runs as: a number that is nobody's, so that no user has to be made.
pub(crate) const LBD_USER: u32 = 64_179;

const FRR_FOLDER: &str = "/usr/lib/frr";
const FRR_USER: &str = "frr";
/// FRR starts these whatever its file `daemons` says.
const FRR_ALWAYS: [&str; 2] = ["zebra", "staticd"];

/// What runs in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// FRR: zebra, staticd and the daemons that `/etc/frr/daemons` says.
    Frr,
    /// BIRD 2.
    Bird,
    /// GoBGP.
    Gobgp,
    /// The appliance.
    Lbd,
    /// The node's `cmd`, if it has one.
    Command,
}

impl Program {
    /// The program for a node's image.
    pub fn of(image: &str) -> Result<Self> {
        let name = image.rsplit('/').next().unwrap_or(image);
        let name = name.split([':', '@']).next().unwrap_or(name);
        let known = IMAGES.iter().find(|(known, _)| *known == name);
        let Some((_, program)) = known else {
            let names: Vec<_> = IMAGES.iter().map(|(name, _)| *name).collect();
            bail!(
                "no local program stands for the image `{image}`: use one of {}, or deploy the file with containerlab",
                names.join(", ")
            );
        };
        Ok(*program)
    }
}

/// How a node's program is started.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Processes, in order.
    pub(crate) processes: Vec<Process>,
    /// Commands that find this node's daemons by themselves, by name: what goes before the caller's own words.
    pub(crate) tools: Vec<(&'static str, Vec<String>)>,
    /// Unix sockets that answer once the daemons are ready.
    pub(crate) ready: Vec<PathBuf>,
    /// Run when they are.
    pub(crate) afterwards: Option<Vec<String>>,
}

/// A process to start.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its name in logs.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
}

/// What the daemon under test needs to know.
pub(crate) struct Appliance<'a> {
    pub(crate) lbd: &'a Path,
    pub(crate) lbctl: &'a Path,
    pub(crate) hook: Hook,
    pub(crate) edit: &'a dyn Fn(&mut Config),
}

/// Writes what a node's program needs into `folder`, and says how to start it.
pub(crate) fn plan(node: &Node, folder: &Path, appliance: &Appliance<'_>) -> Result<Plan> {
    match Program::of(&node.image)? {
        Program::Frr => frr(node, folder),
        Program::Bird => {
            let config = text(bind(node, "/etc/bird/bird.conf")?);
            let socket = folder.join("bird.ctl");
            Ok(Plan {
                processes: vec![process(
                    "bird",
                    &["bird", "-f", "-c", &config, "-s", &text(&socket)],
                )],
                tools: vec![("birdc", vec!["birdc".into(), "-s".into(), text(&socket)])],
                ready: vec![socket],
                afterwards: None,
            })
        }
        Program::Gobgp => {
            let config = text(bind(node, "/etc/gobgp/gobgp.conf")?);
            Ok(Plan {
                processes: vec![process("gobgpd", &["gobgpd", "-f", &config])],
                ..Plan::default()
            })
        }
        Program::Lbd => lbd(node, folder, appliance),
        Program::Command => {
            let argv: Vec<String> =
                node.cmd.iter().map(|word| localise(word, &node.binds)).collect();
            let name = argv.first().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
            let processes = name.map(|name| Process { name, argv }).into_iter().collect();
            Ok(Plan { processes, ..Plan::default() })
        }
    }
}

/// A word of a command line, with the path that a bind gives inside turned into the path of the host.
pub(crate) fn localise(word: &str, binds: &BTreeMap<String, PathBuf>) -> String {
    let longest = binds
        .iter()
        .filter(|(inside, _)| {
            word.strip_prefix(inside.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|(inside, _)| inside.len());
    longest.map_or_else(|| word.to_owned(), |(inside, host)| word.replacen(inside, &text(host), 1))
}

/// The daemons run as their own user in a folder of their own; `vtysh -b` loads the configuration, as FRR's init does.
fn frr(node: &Node, folder: &Path) -> Result<Plan> {
    let user = User::from_name(FRR_USER)?
        .with_context(|| format!("there is no user `{FRR_USER}`: install the package frr"))?;
    let own = |path: &Path| chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()));
    own(folder)?;
    for name in ["frr.conf", "vtysh.conf"] {
        let to = folder.join(name);
        match node.binds.get(&format!("/etc/frr/{name}")) {
            Some(from) => fs::write(&to, fs::read(from)?)?,
            None => fs::write(&to, "")?,
        }
        own(&to)?;
    }
    let daemons = fs::read_to_string(bind(node, "/etc/frr/daemons")?)?;
    let settings: BTreeMap<&str, &str> = daemons
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.trim().split_once('='))
        .collect();
    let asked = settings
        .iter()
        .filter(|(key, value)| **value == "yes" && Path::new(FRR_FOLDER).join(key).exists())
        .map(|(key, _)| *key)
        .filter(|key| !FRR_ALWAYS.contains(key));
    let mut plan = Plan::default();
    let shell: Vec<String> =
        ["vtysh", "--vty_socket", &text(folder), "--config_dir", &text(folder)]
            .map(str::to_owned)
            .into();
    for name in FRR_ALWAYS.into_iter().chain(asked) {
        let in_folder = |file: &str| text(&folder.join(file));
        // By its path: OpenBGPD has a bgpd, too.
        let mut process = process(
            name,
            &[
                &text(&Path::new(FRR_FOLDER).join(name)),
                "--vty_socket",
                &text(folder),
                "-i",
                &in_folder(&format!("{name}.pid")),
                "-z",
                &in_folder("zserv.api"),
                "-f",
                "/dev/null",
                "--log",
                "stdout",
            ],
        );
        let options = settings.get(format!("{name}_options").as_str()).copied().unwrap_or_default();
        process.argv.extend(words::split(options.trim_matches('"'))?);
        plan.processes.push(process);
        plan.ready.push(folder.join(format!("{name}.vty")));
    }
    plan.afterwards = Some(shell.iter().cloned().chain(["-b".to_owned()]).collect());
    plan.tools.push(("vtysh", shell));
    Ok(plan)
}

/// The daemon's own configuration, with its files moved into the lab's folder.
fn lbd(node: &Node, folder: &Path, appliance: &Appliance<'_>) -> Result<Plan> {
    let path = bind(node, "/etc/lbd/lbd.yaml")?;
    let mut config: Config = serde_norway::from_str(&fs::read_to_string(path)?)
        .with_context(|| format!("in {}", path.display()))?;
    config.dataplane.hook = appliance.hook;
    config.dataplane.pin_dir = folder.join("bpf");
    config.api.socket = folder.join("lbd.sock");
    config.state_dir.0 = folder.join("state");
    config.user = Some(LBD_USER.to_string());
    (appliance.edit)(&mut config);
    let written = folder.join("lbd.yaml");
    fs::write(&written, serde_norway::to_string(&config)?)?;
    Ok(Plan {
        processes: vec![process("lbd", &[&text(appliance.lbd), "-c", &text(&written)])],
        tools: vec![(
            "lbctl",
            vec![
                text(appliance.lbctl),
                "--server".into(),
                format!("unix:{}", config.api.socket.display()),
            ],
        )],
        ready: vec![config.api.socket],
        afterwards: None,
    })
}

/// A shell script that runs a tool with its own words first.
pub(crate) fn write_tool(folder: &Path, name: &str, words: &[String]) -> Result<()> {
    let quoted: Vec<_> =
        words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    // A tool has the name of the program that it runs: the folder of tools itself is not searched.
    let script =
        format!("#!/bin/sh\nPATH={} exec {} \"$@\"\n", crate::netns::PATH, quoted.join(" "));
    let path = folder.join(name);
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn bind<'a>(node: &'a Node, inside: &str) -> Result<&'a Path> {
    node.binds
        .get(inside)
        .map(PathBuf::as_path)
        .with_context(|| format!("nothing is bound to {inside}, which {} reads", node.image))
}

fn process(name: &str, argv: &[&str]) -> Process {
    Process { name: name.to_owned(), argv: argv.iter().map(|word| (*word).to_owned()).collect() }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_the_last_part_of_their_name() {
        assert_eq!(Program::of("quay.io/frrouting/frr:8.4.4").unwrap(), Program::Frr);
        assert_eq!(Program::of("registry:5000/lbd-lab/bird").unwrap(), Program::Bird);
        assert_eq!(Program::of("python@sha256:00").unwrap(), Program::Command);
        let said = Program::of("ghcr.io/nokia/srlinux:24").unwrap_err().to_string();
        assert!(said.contains("`ghcr.io/nokia/srlinux:24`") && said.contains("containerlab"));
    }

    #[test]
    fn bound_paths_in_commands_become_paths_of_the_host() {
        let binds =
            BTreeMap::from([("/pod".into(), "/x/y".into()), ("/pod/z".into(), "/q".into())]);
        assert_eq!(localise("/pod/pod.py", &binds), "/x/y/pod.py");
        assert_eq!(localise("/pod/z", &binds), "/q");
        assert_eq!(localise("/podium", &binds), "/podium");
    }
}
