//! Compiles the eBPF programs for the kernel's virtual machine and hands the objects to the loader as `$OUT_DIR/*.bpf.o`.
//!
//! The standard library's `core` is built from source for `bpfel-unknown-none`, so this needs a compiler that accepts
//! `-Z build-std` and comes with its `rust-src`. What is looked for is the source itself, not a toolchain's name: a
//! rustup nightly without `rust-src` is common.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const PROGRAMS: [&str; 2] = ["lbd-bpf", "lbd-bench"];
const REMEDY: &str = "run `cargo xtask setup` once: it installs what is missing";

/// A compiler that can build `core` for the target.
struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    /// Debian's stable compiler accepts unstable flags only when told to.
    bootstrap: bool,
}

fn main() {
    if let Err(error) = build() {
        println!("cargo::error=cannot build the eBPF programs: {error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let ebpf = manifest.join("ebpf");
    for path in [
        ebpf.join("src"),
        ebpf.join("Cargo.toml"),
        ebpf.join("Cargo.lock"),
        manifest.join("common"),
    ] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    for name in ["PATH", "RUSTUP_HOME", "CARGO_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    let toolchain = toolchain().ok_or(format!(
        "no Rust compiler with its library's source found (a rustup nightly with `rust-src`, or Debian's rustc-web with \
         rust-web-src); {REMEDY}"
    ))?;
    let linker = find("bpf-linker").ok_or(format!("bpf-linker not found; {REMEDY}"))?;
    // One folder for every profile and feature set of the host's build: the programs are the same in all of them.
    let target_dir = out.ancestors().nth(4).ok_or("OUT_DIR has an unknown shape")?.join("ebpf");
    compile(&toolchain, &linker, &ebpf, &target_dir)?;
    for program in PROGRAMS {
        let object = target_dir.join(TARGET).join("release").join(program);
        fs::copy(&object, out.join(format!("{program}.bpf.o")))
            .map_err(|error| format!("{}: {error}", object.display()))?;
    }
    Ok(())
}

fn compile(
    toolchain: &Toolchain,
    linker: &Path,
    ebpf: &Path,
    target_dir: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(&toolchain.cargo);
    // What the outer cargo and rustup say of the host's toolchain must not reach this one.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO") && name != "CARGO_HOME"
            || name.to_string_lossy().starts_with("RUSTUP_TOOLCHAIN")
            || ["RUSTFLAGS", "RUSTC", "RUSTDOC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
                .iter()
                .any(|n| name == *n)
        {
            cargo.env_remove(name);
        }
    }
    if toolchain.bootstrap {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    let flags = [
        &format!("-Clinker={}", linker.display()),
        // Types as BTF, which the kernel wants of maps and shows in dumps.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // Atomic fetch-and-add with a result: kernel 5.12 and later.
        "-Ctarget-cpu=v3",
    ];
    let output = cargo
        .current_dir(ebpf)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([
            "build",
            "--release",
            "--locked",
            "--bins",
            "-Zbuild-std=core",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .output()
        .map_err(|error| format!("{}: {error}", toolchain.cargo.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("the compiler says:\n{}", String::from_utf8_lossy(&output.stderr)).into())
}

/// A rustup nightly that has `rust-src`, else the system's compiler where its source is installed.
fn toolchain() -> Option<Toolchain> {
    rustup_nightly().or_else(|| {
        let system = PathBuf::from("/usr/bin/rustc");
        let cargo = PathBuf::from("/usr/bin/cargo");
        (cargo.exists() && has_source(&system)).then_some(Toolchain {
            rustc: system,
            cargo,
            bootstrap: true,
        })
    })
}

fn rustup_nightly() -> Option<Toolchain> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))?;
    let mut names: Vec<OsString> = fs::read_dir(home.join("toolchains"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .filter(|name| name.to_string_lossy().starts_with("nightly"))
        .collect();
    // Undated `nightly-…` sorts after dated ones: it is the one that people update.
    names.sort();
    names.into_iter().rev().find_map(|name| {
        let bin = home.join("toolchains").join(name).join("bin");
        let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
        (cargo.exists() && has_source(&rustc)).then_some(Toolchain {
            rustc,
            cargo,
            bootstrap: false,
        })
    })
}

fn has_source(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    command.output().is_ok_and(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        output.status.success()
            && sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    })
}

/// A program in `PATH`, or where `cargo install` puts it.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
