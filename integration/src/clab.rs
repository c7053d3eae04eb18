//! A containerlab file as far as the namespace runner can carry it out; the rest is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_norway::{Mapping, Value};

use crate::words;

#[cfg(test)]
mod tests;

/// What the runner does with a field, per place; anything else is refused.
const TOP_FIELDS: [&str; 2] = ["name", "topology"];
const TOPOLOGY_FIELDS: [&str; 2] = ["nodes", "links"];
const NODE_FIELDS: [&str; 7] = ["kind", "image", "cmd", "binds", "env", "exec", "sysctls"];
const LINK_FIELDS: [&str; 3] = ["endpoints", "mtu", "type"];

/// containerlab's own default is 9500, for which native XDP on veth has no room.
const DEFAULT_MTU: u32 = 1500;
/// The longest interface name (IFNAMSIZ less the closing zero).
const MAX_INTERFACE_NAME: usize = 15;

/// A network to bring up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Links between them.
    pub links: Vec<Link>,
    /// The folder of the file, which binds are relative to.
    pub folder: PathBuf,
}

/// A node: one container, or here one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The container image, which says what program runs.
    pub image: String,
    /// The command, split into words.
    pub cmd: Vec<String>,
    /// Files of the host seen inside, by the path inside.
    pub binds: BTreeMap<String, PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Kernel settings, made before anything else.
    pub sysctls: BTreeMap<String, String>,
    /// Command lines to run once the links are there.
    pub exec: Vec<String>,
}

/// A virtual cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its two ends.
    pub ends: [Endpoint; 2],
    /// MTU of both ends.
    pub mtu: u32,
}

/// One end of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The node.
    pub node: String,
    /// The interface's name there.
    pub interface: String,
}

#[derive(Deserialize)]
struct RawNode {
    #[serde(default = "linux")]
    kind: String,
    image: Option<String>,
    #[serde(default)]
    cmd: String,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Value>,
    #[serde(default)]
    sysctls: BTreeMap<String, Value>,
    #[serde(default)]
    exec: Vec<String>,
}

#[derive(Deserialize)]
struct RawLink {
    #[serde(default = "veth", rename = "type")]
    kind: String,
    endpoints: Vec<Value>,
    mtu: Option<u32>,
}

fn linux() -> String {
    "linux".to_owned()
}

fn veth() -> String {
    "veth".to_owned()
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Topology> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).with_context(|| format!("in {}", path.display()))
}

/// Reads a file's text; every field that is not supported is named, all in one error.
pub fn parse(text: &str, folder: &Path) -> Result<Topology> {
    let file: Mapping = serde_norway::from_str(text).context("this is not a containerlab file")?;
    let mut refused = Vec::new();
    refuse(&file, &TOP_FIELDS, "the file", &mut refused);
    let topology = mapping(&file, "topology")?;
    refuse(&topology, &TOPOLOGY_FIELDS, "`topology`", &mut refused);

    let mut nodes = BTreeMap::new();
    for (name, value) in &mapping(&topology, "nodes")? {
        let name = name.as_str().context("a node's name is no text")?.to_owned();
        let Some(fields) = value.as_mapping() else {
            bail!("node `{name}` has no image: say `kind: linux` and an image");
        };
        let node =
            node(&name, fields, folder, &mut refused).with_context(|| format!("node `{name}`"))?;
        nodes.insert(name, node);
    }
    let mut links = Vec::new();
    let list = topology.get("links").and_then(Value::as_sequence);
    for (index, value) in list.into_iter().flatten().enumerate() {
        let fields = value.as_mapping().with_context(|| format!("link {index} is no mapping"))?;
        refuse(fields, &LINK_FIELDS, &format!("link {index}"), &mut refused);
        links.push(link(value).with_context(|| format!("link {index}"))?);
    }
    if !refused.is_empty() {
        bail!(
            "{}: the namespace runner does not support this; remove it, or deploy the file with containerlab",
            refused.join(", ")
        );
    }
    let name = file.get("name").and_then(Value::as_str).context("the field `name` is missing")?;
    let topology = Topology { name: name.to_owned(), nodes, links, folder: folder.to_owned() };
    check_ends(&topology)?;
    Ok(topology)
}

fn refuse(fields: &Mapping, supported: &[&str], place: &str, refused: &mut Vec<String>) {
    for name in fields.keys().filter_map(Value::as_str) {
        if !supported.contains(&name) {
            refused.push(format!("field `{name}` of {place}"));
        }
    }
}

fn mapping(parent: &Mapping, field: &str) -> Result<Mapping> {
    let value = parent.get(field).with_context(|| format!("the field `{field}` is missing"))?;
    value.as_mapping().cloned().with_context(|| format!("`{field}` is no mapping"))
}

fn node(name: &str, fields: &Mapping, folder: &Path, refused: &mut Vec<String>) -> Result<Node> {
    refuse(fields, &NODE_FIELDS, &format!("node `{name}`"), refused);
    let raw: RawNode = serde_norway::from_value(Value::Mapping(fields.clone()))?;
    if raw.kind != "linux" {
        refused.push(format!("kind `{}` of node `{name}`", raw.kind));
        return Ok(Node::default());
    }
    let mut binds = BTreeMap::new();
    for bind in &raw.binds {
        let (source, target) = bind
            .split_once(':')
            .with_context(|| format!("bind `{bind}` is not `source:target`"))?;
        let target = target.split_once(':').map_or(target, |(target, _options)| target);
        let source = folder.join(source);
        if !source.exists() {
            bail!("bind `{bind}`: there is no {}", source.display());
        }
        binds.insert(target.to_owned(), source);
    }
    Ok(Node {
        image: raw.image.context("it has no image, which says what program it runs")?,
        cmd: words::split(&raw.cmd)?,
        binds,
        env: raw.env.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        sysctls: raw.sysctls.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        exec: raw.exec,
    })
}

/// A scalar as people write it.
fn plain(value: &Value) -> String {
    let text = value.as_str().map(str::to_owned);
    text.unwrap_or_else(|| serde_norway::to_string(value).unwrap_or_default().trim().to_owned())
}

fn link(value: &Value) -> Result<Link> {
    let raw: RawLink = serde_norway::from_value(value.clone())?;
    if raw.kind != "veth" {
        bail!(
            "type `{}` is not supported by the namespace runner, only `veth`: deploy the file with containerlab",
            raw.kind
        );
    }
    let ends: Vec<Endpoint> = raw.endpoints.iter().map(endpoint).collect::<Result<_>>()?;
    let ends = <[Endpoint; 2]>::try_from(ends)
        .ok()
        .context("a link has two endpoints, each `node:interface`")?;
    Ok(Link { ends, mtu: raw.mtu.unwrap_or(DEFAULT_MTU) })
}

/// `node:interface`, or the long form's mapping.
fn endpoint(value: &Value) -> Result<Endpoint> {
    let field = |name| value.get(name).and_then(Value::as_str);
    let (node, interface) = value
        .as_str()
        .and_then(|text| text.split_once(':'))
        .or_else(|| Some((field("node")?, field("interface")?)))
        .with_context(|| format!("endpoint `{}` is not `node:interface`", plain(value)))?;
    Ok(Endpoint { node: node.to_owned(), interface: interface.to_owned() })
}

fn check_ends(topology: &Topology) -> Result<()> {
    let mut seen = BTreeSet::new();
    for end in topology.links.iter().flat_map(|link| &link.ends) {
        let Endpoint { node, interface } = end;
        if !topology.nodes.contains_key(node) {
            bail!("a link ends at `{node}:{interface}`, but there is no node `{node}`");
        }
        if interface.len() > MAX_INTERFACE_NAME {
            bail!(
                "interface `{interface}` of `{node}` is longer than {MAX_INTERFACE_NAME} characters"
            );
        }
        if !seen.insert(end) {
            bail!("two links end at `{node}:{interface}`");
        }
    }
    Ok(())
}
