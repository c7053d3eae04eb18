//! Installs what is missing, and nothing else: what a machine already has is left as it is.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::preflight;
use crate::shell::{cargo, find, read, root, run as run_command, step};

/// What a command needs on the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compile the eBPF programs.
    Build,
    /// Run topologies: namespaces, other BGP daemons, traffic.
    Lab,
    /// Run the tests.
    Test,
    /// Measure beside other balancers.
    Peers,
    /// Run the fuzz targets.
    Fuzz,
}

pub(crate) const EVERYTHING: &[Need] = &[Need::Build, Need::Lab, Need::Test];

const BPF_LINKER: &str = "0.13.0";
const NEXTEST: &str = "0.9.143";
const CARGO_FUZZ: &str = "0.13.2";
const CARGO_DENY: &str = "0.20.2";
/// The LLVM that `bpf-linker` is linked with; it must not be older than the compiler's.
const LLVM: &str = "/usr/lib/llvm-22";

/// Programs of the lab and the Debian packages that bring them.
const LAB_PROGRAMS: [(&str, &str); 16] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("sysctl", "procps"),
    ("python3", "python3"),
    ("curl", "curl"),
    ("iperf3", "iperf3"),
    ("ncat", "ncat"),
    ("dig", "bind9-dnsutils"),
    ("bird", "bird2"),
    // Not by `bgpd`: OpenBGPD's program has that name too.
    ("zebra", "frr"),
    ("gobgpd", "gobgpd"),
    ("exabgp", "exabgp"),
    // It reads units also where systemd does not run.
    ("systemd-analyze", "systemd"),
];

/// Packages that cannot be installed beside those above, since they exclude them or bring a program of the same name: what
/// is in them is unpacked in folders of their own below [`ASIDE`]. They need no other package.
const ASIDE_PACKAGES: [(&str, &str, &str); 2] =
    [("bird1", "bird", "usr/sbin/bird6"), ("openbgpd", "openbgpd", "usr/sbin/bgpd")];
const ASIDE: &str = "/usr/local/lib/lbd-test";

/// What asks the API for everything that its description allows, in a Python environment of its own below [`ASIDE`]. Its
/// version and those of what it uses stand in a file beside the test.
const SCHEMATHESIS: &str = "schemathesis";
const SCHEMATHESIS_NEEDS: &str = "integration/schemathesis/requirements.txt";

/// Installs what `needs` asks for and this machine lacks.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<&str> = Vec::new();
    let linker = find("bpf-linker").is_none();
    if needs.contains(&Need::Build) {
        if !has_rust_source() {
            packages.extend(["rustc-web", "cargo-web", "rust-web-src"]);
        }
        if linker && !Path::new(LLVM).join("bin/llvm-config").exists() {
            packages.extend(["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"]);
        }
    }
    if needs.iter().any(|need| matches!(need, Need::Build | Need::Fuzz)) && find("c++").is_none() {
        packages.push("build-essential");
    }
    if needs.contains(&Need::Lab) {
        packages.extend(
            LAB_PROGRAMS.iter().filter(|(p, _)| find(p).is_none()).map(|(_, package)| package),
        );
    }
    let schemathesis = needs.contains(&Need::Test) && !has_schemathesis()?;
    if schemathesis && read(Command::new("python3").args(["-c", "import ensurepip"])).is_err() {
        packages.push("python3-venv");
    }
    if needs.contains(&Need::Peers) && find("haproxy").is_none() {
        packages.push("haproxy");
    }
    let aside = ASIDE_PACKAGES
        .iter()
        .filter(|(folder, _, program)| !Path::new(ASIDE).join(folder).join(program).exists());
    for (folder, package, _) in aside.filter(|_| needs.contains(&Need::Lab)) {
        step(&format!("Unpacking the Debian package {package} aside"), || {
            unpack_aside(folder, package)
        })?;
    }
    if !packages.is_empty() {
        step(&format!("Installing Debian packages: {}", packages.join(" ")), || {
            apt_install(&packages)
        })?;
    }
    if needs.contains(&Need::Build) && linker {
        step("Compiling bpf-linker (about a minute)", install_bpf_linker)?;
    }
    if schemathesis {
        step("Installing schemathesis, which asks the API for everything", install_schemathesis)?;
    }
    if needs.contains(&Need::Test) {
        install("cargo-nextest", NEXTEST, "the test runner", &[])?;
        // Not optimised: it runs for a second and compiles in a third of the time.
        install("cargo-deny", CARGO_DENY, "which checks licences", &["--debug"])?;
    }
    if needs.contains(&Need::Fuzz) {
        install("cargo-fuzz", CARGO_FUZZ, "which drives the fuzzer", &["--debug"])?;
    }
    Ok(())
}

/// `cargo xtask setup`.
pub(crate) fn run(needs: &[Need]) -> Result<()> {
    ensure(needs)?;
    eprintln!(
        "Everything is there: `cargo build`, `cargo xtask demo` and `cargo xtask test` can run."
    );
    Ok(())
}

/// Compiles a program of cargo's that is not there yet.
fn install(program: &str, version: &str, what: &str, flags: &[&str]) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    step(&format!("Compiling {program}, {what} (some minutes)"), || {
        let install = ["install", program, "--locked", "--version", version];
        run_command(cargo().args(install).args(flags))
    })
}

/// A rustup nightly with `rust-src`, or Debian's compiler with its source: the rule of `lb-dataplane/build.rs`.
fn has_rust_source() -> bool {
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))
        .and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let nightly = rustup.into_iter().flatten().filter_map(Result::ok).any(|entry| {
        entry.file_name().to_string_lossy().starts_with("nightly")
            && entry.path().join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    });
    nightly
        || Path::new("/usr/bin/cargo").exists()
            && Path::new("/usr/bin/rustc").exists()
            && Path::new("/usr/lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn install_bpf_linker() -> Result<()> {
    let mut command = cargo();
    command.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    if Path::new(LLVM).exists() {
        let flags = format!("-L {LLVM}/lib -C link-arg=-Wl,-rpath,{LLVM}/lib");
        let mut path = OsString::from(format!("{LLVM}/bin:"));
        path.push(env::var_os("PATH").unwrap_or_default());
        command
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", LLVM)
            .env("RUSTFLAGS", flags)
            .env("PATH", path);
    }
    run_command(&mut command)
}

/// Whether it is there in the version that the tests are written for.
fn has_schemathesis() -> Result<bool> {
    let needs = fs::read_to_string(root().join(SCHEMATHESIS_NEEDS))?;
    let installed = Path::new(ASIDE).join(SCHEMATHESIS).join("requirements.txt");
    Ok(fs::read_to_string(installed).is_ok_and(|installed| installed == needs))
}

fn install_schemathesis() -> Result<()> {
    let folder = Path::new(ASIDE).join(SCHEMATHESIS);
    let needs = root().join(SCHEMATHESIS_NEEDS);
    run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = ["-q", "install", "--disable-pip-version-check", "--no-deps", "-r"];
    run_command(Command::new(folder.join("bin/pip")).args(pip).arg(&needs))?;
    // Last, so that what was interrupted is done anew.
    fs::copy(&needs, folder.join("requirements.txt"))?;
    Ok(())
}

/// Unpacks a package without installing it.
fn unpack_aside(folder: &str, package: &str) -> Result<()> {
    let by_hand =
        format!("apt-get download {package}; dpkg-deb -x {package}_*.deb {ASIDE}/{folder}");
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!("this is not Debian or Ubuntu: do by this system's own means what `{by_hand}` would");
    }
    if !preflight::is_root()? {
        bail!("unpacking a package needs root: run `{by_hand}` as root, then this again");
    }
    let to = Path::new(ASIDE).join(folder);
    let archive = to.join("archive");
    fs::create_dir_all(&archive)?;
    // apt's own user may not write here, which it says, and then downloads as root.
    let download = || {
        run_command(Command::new("apt-get").args(["-q", "download", package]).current_dir(&archive))
    };
    if !has_candidate(package) || download().is_err() {
        run_command(Command::new("apt-get").args(["-q", "-y", "update"]))?;
        download()?;
    }
    let files = fs::read_dir(&archive)?.filter_map(Result::ok).map(|entry| entry.path());
    let Some(file) = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"))
    else {
        bail!("apt-get downloaded nothing: run `{by_hand}` by hand");
    };
    run_command(Command::new("dpkg-deb").arg("-x").arg(file).arg(&to))?;
    Ok(fs::remove_dir_all(archive)?)
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!(
            "this is not Debian or Ubuntu: install what `{by_hand}` would bring with this system's own tools"
        );
    }
    if !preflight::is_root()? {
        bail!("installing packages needs root: run `sudo {by_hand}`, then this again");
    }
    let _quiet = NoServices::new()?;
    let apt = |arguments: &[&str]| {
        run_command(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-q", "-y"])
                .args(arguments),
        )
    };
    // A machine that never ran `update` knows no packages at all; one that did is spared the wait.
    if packages.iter().any(|package| !has_candidate(package)) {
        apt(&["update"])?;
    }
    let install = [&["install", "--no-install-recommends"], packages].concat();
    if apt(&install).is_err() {
        // Stale lists name versions that the mirrors no longer have.
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(())
}

fn has_candidate(package: &str) -> bool {
    read(Command::new("apt-cache").args(["policy", package]))
        .is_ok_and(|said| said.contains("Candidate:") && !said.contains("Candidate: (none)"))
}

/// Keeps Debian's packages from starting the BGP daemons that they bring (`invoke-rc.d`'s policy, exit code 101).
///
/// Invariant: a policy that the machine already has is left alone; ours is gone when this is dropped.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn new() -> Result<Self> {
        let ours = !Path::new(POLICY).exists();
        if ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n")
                .with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY).is_err() {
            eprintln!("warning: remove {POLICY} by hand: it keeps services from starting");
        }
    }
}
