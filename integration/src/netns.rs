//! Network namespaces: made by name, entered with setns(2) by one thread or one child process.
//!
//! Nothing here changes the mount namespace. `ip netns exec` does (it remounts `/sys`), and what is pinned or mounted from
//! inside would be invisible outside.

#![expect(unsafe_code, reason = "a child enters its namespace between fork and exec")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

const FOLDER: &str = "/run/netns";

/// What a node's processes find their programs in. FRR's daemons live outside the usual folders, and OpenBGPD's `bgpd` in
/// one of them.
pub(crate) const PATH: &str =
    "/usr/lib/frr:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace that exists. Cloning shares it; whoever made it removes it.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    handle: Arc<File>,
}

impl Netns {
    /// Makes a namespace with its loopback up, without duplicate address detection and source filters.
    pub(crate) fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let netns = Self::open(name)?;
        let prepare = "ip link set lo up\n\
             sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 \
             net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.rp_filter=0";
        run(netns.command("sh").args(["-ec", prepare]))?;
        Ok(netns)
    }

    /// Opens a namespace that is there.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let path = format!("{FOLDER}/{name}");
        let handle =
            File::open(&path).with_context(|| format!("there is no network namespace {name}"))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(handle) })
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside, in a session of its own, with no environment but `PATH`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
        let handle = Arc::clone(&self.handle);
        // SAFETY: between fork and exec only async-signal-safe calls are made: setns, setsid and sigprocmask, which
        // neither allocate nor lock; the descriptor is kept open by the closure.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(handle.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // Fails only where the caller leads a session already, which is as good.
                libc::setsid();
                // The lab's own thread mask is not the node's business.
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&raw mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
                Ok(())
            });
        }
        command
    }

    /// Runs a function on a thread that is inside; sockets it makes belong to the namespace.
    pub fn within<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&*self.handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter the network namespace {}", self.name))?;
                Ok(function())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Removes a namespace by name, if it is there, and with it its interfaces.
pub(crate) fn remove(name: &str) -> Result<()> {
    if std::path::Path::new(FOLDER).join(name).exists() {
        run(Command::new("ip").args(["netns", "del", name]))?;
    }
    Ok(())
}

/// Runs a command to its end and gives its output; its own words are the error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| {
        format!("cannot start {}: is it installed?", command.get_program().display())
    })?;
    if !output.status.success() {
        let line: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", line.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
