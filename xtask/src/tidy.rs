//! The rules that keep the code's shape: who may depend on whom, and a few conventions that a compiler does not check.
//!
//! The rules are pure functions of the manifests and the sources, so that each has a test with a planted violation.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, read, root};

#[cfg(test)]
mod tests;

/// A crate of the workspace and the workspace's crates that it may depend on.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
    /// Holds logic only: no runtime, no sockets, no clock.
    pure: bool,
}

/// `lb-routing` and `lb-dataplane` never see each other; only `lb-api` sees both.
const LAYERS: [Layer; 8] = [
    Layer { name: "lb-dataplane-common", may_use: &[], pure: true },
    Layer { name: "lb-routing-proto", may_use: &[], pure: true },
    Layer { name: "lb-api-types", may_use: &[], pure: true },
    Layer { name: "lb-dataplane", may_use: &["lb-dataplane-common"], pure: false },
    Layer { name: "lb-routing", may_use: &["lb-routing-proto"], pure: false },
    Layer { name: "lb-api", may_use: &["lb-api-types", "lb-dataplane", "lb-routing"], pure: false },
    Layer { name: "integration", may_use: &["lb-api-types"], pure: false },
    Layer { name: "xtask", may_use: &[], pure: false },
];

/// Crates that bring a runtime or a kernel interface; none of them belongs in a pure crate.
const RUNTIMES: [&str; 10] = [
    "tokio",
    "aya",
    "axum",
    "hyper",
    "libc",
    "nix",
    "rtnetlink",
    "netlink-sys",
    "rustix",
    "socket2",
];

/// What a pure crate's code never says: it takes time, bytes and randomness as arguments.
const IMPURE: [&str; 7] = [
    "Instant::now(",
    "SystemTime::now(",
    "std::thread",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];

/// Folders of the pure crates, and of crates that need no `unsafe`.
const PURE_SOURCES: [&str; 3] =
    ["lb-dataplane/common/src", "lb-routing/proto/src", "lb-api/types/src"];
const SAFE_CRATES: [&str; 5] = [
    "lb-dataplane/common/src/lib.rs",
    "lb-routing/proto/src/lib.rs",
    "lb-api/types/src/lib.rs",
    "lb-api/src/lib.rs",
    "xtask/src/main.rs",
];

/// Whatever is compiled into the eBPF object carries the licence that the kernel's helpers ask for.
const KERNEL_LICENCE: &str = "MIT OR GPL-2.0-only";
const IN_THE_KERNEL: [&str; 2] = ["lb-dataplane-common", "lb-dataplane-ebpf"];

/// A file that is longer is more than one thing. Its tests don't count.
const MAX_LINES: usize = 500;

/// A source file: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

/// `cargo xtask tidy`.
pub(crate) fn run() -> Result<()> {
    let metadata = |manifest: &str| -> Result<Value> {
        let printed = read(
            cargo()
                .args(["metadata", "--format-version", "1", "--no-deps"])
                .args(["--manifest-path", manifest]),
        )?;
        serde_json::from_str(&printed).context("cargo metadata printed something else than JSON")
    };
    let mut found = layering(&metadata("Cargo.toml")?);
    for manifest in ["Cargo.toml", "lb-dataplane/ebpf/Cargo.toml"] {
        found.extend(licences(&metadata(manifest)?));
    }
    let sources = sources(&root())?;
    found.extend(sources.iter().flat_map(conventions));
    found.extend(unsafe_is_forbidden(&sources));
    if found.is_empty() {
        return Ok(());
    }
    bail!("tidy found {}:\n  {}", found.len(), found.join("\n  "))
}

/// Every dependency between the workspace's crates is one that `LAYERS` allows, and pure crates bring no runtime.
fn layering(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages(metadata) {
        let name = text(&package["name"]);
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            found.push(format!("{name}: the crate has no place in the layering: add it to LAYERS in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(&dependency["name"]);
            let ours = LAYERS.iter().any(|layer| layer.name == used);
            if ours && !layer.may_use.contains(&used) {
                found.push(format!(
                    "{name} depends on {used}, which its layer may not see: {:?} only",
                    layer.may_use
                ));
            }
            if layer.pure && RUNTIMES.contains(&used) {
                found.push(format!(
                    "{name} is pure and depends on {used}: move what needs it to the shell crate"
                ));
            }
        }
    }
    found
}

fn licences(metadata: &Value) -> Vec<String> {
    packages(metadata)
        .filter(|package| IN_THE_KERNEL.contains(&text(&package["name"])))
        .filter(|package| text(&package["license"]) != KERNEL_LICENCE)
        .map(|package| {
            let name = text(&package["name"]);
            format!(
                "{name} is compiled into the eBPF object: its licence is to be `{KERNEL_LICENCE}`"
            )
        })
        .collect()
}

/// What one file breaks.
fn conventions(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut found = Vec::new();
    if path.ends_with("/mod.rs") {
        found.push(format!("{path}: name it after its folder: `foo.rs` beside `foo/`"));
    }
    let code = without_tests(text);
    let lines = code.lines().count();
    if !is_test(path) && lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines without tests, {MAX_LINES} at most: split it"));
    }
    if !path.starts_with("xtask/src/tidy")
        && text.lines().any(|line| line.trim_start().starts_with("#[ignore"))
    {
        found.push(format!("{path}: a test is ignored: make it run or delete it"));
    }
    if PURE_SOURCES.iter().any(|folder| path.starts_with(folder)) && !is_test(path) {
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                found.push(format!(
                    "{path}:{}: `{word}` in a pure crate: take it as an argument",
                    number + 1
                ));
            }
        }
    }
    found
}

fn unsafe_is_forbidden(sources: &[Source]) -> Vec<String> {
    SAFE_CRATES
        .iter()
        .filter(|path| {
            let forbids = |source: &&Source| {
                source.path == **path && source.text.contains("#![forbid(unsafe_code)]")
            };
            !sources.iter().any(|source| forbids(&source))
        })
        .map(|path| {
            format!("{path}: say `#![forbid(unsafe_code)]`: this crate needs no unsafe code")
        })
        .collect()
}

/// The text up to an inline test module.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// Tests, and the simulation, which is compiled into tests only.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || ["/tests/", "/benches/", "/sim/", "/sim.rs"].iter().any(|part| path.contains(part))
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every Rust file that git knows or would add.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.rs",
    ]);
    let listed = read(&mut git)?;
    let existing = listed.lines().filter(|path| root.join(path).exists());
    existing
        .map(|path| {
            let text = fs::read_to_string(root.join(path)).with_context(|| path.to_owned())?;
            Ok(Source { path: path.to_owned(), text })
        })
        .collect()
}
