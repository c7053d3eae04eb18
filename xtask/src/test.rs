//! `cargo xtask test`: every check, fastest first, ending with the test runner's own closing lines.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::setup::{self, EVERYTHING};
use crate::shell::{cargo, root, run as run_command, step};
use crate::{preflight, tidy};

/// What properties are tried with, so that a run judges the change and not the day's chance. `--long`, `cargo test` and
/// the fuzzers try others each time.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "7606");

/// The packet tables take four minutes where machines are slow; beyond, something hangs, and they end.
const MAX_MINUTES: u32 = 15;

pub(crate) fn run(filter: Option<&str>, long: bool) -> Result<()> {
    preflight::check()?;
    setup::ensure(EVERYTHING)?;
    if filter.is_none() {
        checks()?;
    }
    // At once: another choice of crates has other features, for which what they depend on is compiled again.
    step("Building the daemon and the tests", || {
        run_command(cargo().args(["build", "--workspace", "--bins", "--tests"]))
    })?;
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    if long {
        nextest.env("LBD_LONG", "1").args(["--profile", "long"]);
    } else {
        nextest.env(SEED.0, SEED.1);
    }
    eprintln!("==> Running the tests");
    if let Some(filter) = filter {
        return run_command(nextest.args(["--filterset", &filterset(filter)]));
    }
    let packets = packet_tables(long);
    run_command(nextest.args(["--filterset", "not (package(lb-dataplane) and binary(kernel))"]))?;
    packets
}

/// The packet tables in the kernel, all in one process: what the verifier has seen once serves many of them
/// (`lb-dataplane/tests/kernel/spare.rs`), where each would have a process and programs of its own.
fn packet_tables(long: bool) -> Result<()> {
    let of = ["test", "--workspace", "--test", "kernel"];
    let minutes = if long { 60 } else { MAX_MINUTES };
    let mut tables = Command::new("timeout");
    tables.args(["--foreground", &format!("{minutes}m")]).arg(cargo().get_program()).args(of);
    tables.args(["--", "--test-threads", "2"]).current_dir(root());
    if long {
        tables.env("LBD_LONG", "1");
    } else {
        tables.env(SEED.0, SEED.1);
    }
    run_command(&mut tables)
}

fn checks() -> Result<()> {
    step("Checking the format", || {
        run_command(cargo().args(["fmt", "--all", "--check"]))?;
        // Each of these is a workspace of its own.
        ["lb-dataplane/ebpf", "lb-dataplane/fuzz", "lb-routing/fuzz"].iter().try_for_each(
            |folder| run_command(cargo().current_dir(root().join(folder)).args(["fmt", "--check"])),
        )
    })?;
    step("Checking layering and conventions (tidy)", tidy::run)?;
    step("Checking licences, bans and sources", || {
        let checks = ["check", "--hide-inclusion-graph", "licenses", "bans", "sources"];
        run_command(cargo().arg("deny").args(checks))?;
        let ebpf = Path::new("lb-dataplane/ebpf/Cargo.toml");
        run_command(
            cargo()
                .args(["deny", "--config", "deny.toml", "--manifest-path"])
                .arg(ebpf)
                .args(checks),
        )
    })?;
    step("Running clippy", || {
        run_command(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--quiet",
            "--",
            "-Dwarnings",
        ]))
    })?;
    step("Building the documentation", || {
        run_command(cargo().env("RUSTDOCFLAGS", "-Dwarnings").args([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--quiet",
        ]))
    })
}

/// What people call a part of the tests, as nextest's filter: crates, test programs and tests with the word in their
/// names, and the crates that a word of the field stands for.
fn filterset(word: &str) -> String {
    let crates = match word {
        "bgp" | "speaker" => " or package(~lb-routing)",
        "ebpf" | "fib" => " or package(~lb-dataplane)",
        "lab" | "scenarios" => " or package(integration)",
        _ => "",
    };
    format!("package(~{word}) or binary(~{word}) or test(~{word}){crates}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_field_stand_for_crates() {
        assert_eq!(
            filterset("bgp"),
            "package(~bgp) or binary(~bgp) or test(~bgp) or package(~lb-routing)"
        );
        assert_eq!(filterset("vips_"), "package(~vips_) or binary(~vips_) or test(~vips_)");
    }
}
