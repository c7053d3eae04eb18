//! Another daemon in a namespace of its own, behind the veth `lbr0`.

use std::fs::{File, read_link, read_to_string, write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::{DEADLINE, ip};

/// A daemon, its namespace and its folder.
pub(crate) struct Far {
    /// Keeps the namespace while daemons come and go.
    namespace: Child,
    daemon: Child,
    folder: tempfile::TempDir,
}

impl Far {
    /// Moves `lbr0-far` into a namespace, gives it addresses and starts `command` of the shell there.
    ///
    /// Files are written first. `$D` is the daemon's folder, in files too.
    pub(crate) fn start(addresses: &[&str], files: &[(&str, String)], command: &str) -> Self {
        Self::start_behind("lbr0-far", addresses, files, command)
    }

    /// The same behind another link.
    pub(crate) fn start_behind(
        link: &str,
        addresses: &[&str],
        files: &[(&str, String)],
        command: &str,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("far").tempdir().unwrap();
        let namespace = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let started = Instant::now();
        // `unshare` makes the namespace first; then the link can move.
        let own = read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", namespace.id());
        while read_link(&theirs).unwrap() == own {
            assert!(started.elapsed() < DEADLINE, "the daemon's namespace");
            std::thread::yield_now();
        }
        run(&namespace, folder.path(), "ip link set lo up");
        take(&namespace, folder.path(), link, addresses);
        write_files(folder.path(), files);
        let daemon = spawn(&namespace, folder.path(), command);
        Self { namespace, daemon, folder }
    }

    /// Takes a link of ours into the namespace, with addresses.
    pub(crate) fn take(&self, link: &str, addresses: &[&str]) {
        take(&self.namespace, self.folder.path(), link, addresses);
    }

    /// Ends the daemon as a crash would, without a word to its neighbours.
    pub(crate) fn kill(&mut self) {
        kill(&mut self.daemon);
    }

    /// Starts the daemon again, with these files in place of those before.
    pub(crate) fn restart(&mut self, files: &[(&str, String)], command: &str) {
        self.kill();
        self.write(files);
        self.daemon = spawn(&self.namespace, self.folder.path(), command);
    }

    /// Writes files of the daemon anew; it reads them when it is told to.
    pub(crate) fn write(&self, files: &[(&str, String)]) {
        write_files(self.folder.path(), files);
    }

    /// Runs a command of the shell beside the daemon; what it prints, errors included.
    pub(crate) fn run(&self, command: &str) -> String {
        run(&self.namespace, self.folder.path(), command)
    }
}

fn run(namespace: &Child, folder: &Path, command: &str) -> String {
    let process = namespace.id().to_string();
    let output = Command::new("nsenter")
        .args(["--target", &process, "--net", "timeout", "20", "sh", "-c", command])
        .env("D", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// Takes a link of ours into a namespace, with addresses.
fn take(namespace: &Child, folder: &Path, link: &str, addresses: &[&str]) {
    ip(&format!("link set {link} netns {}", namespace.id()));
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        run(namespace, folder, &format!("ip addr add {address} dev {link} {nodad}"));
    }
    run(namespace, folder, &format!("ip link set {link} up"));
}

fn write_files(folder: &Path, files: &[(&str, String)]) {
    let path = folder.to_str().unwrap();
    for (name, text) in files {
        write(folder.join(name), text.replace("$D", path)).unwrap();
    }
}

/// The shell in the namespace, which becomes the daemon.
fn spawn(namespace: &Child, folder: &Path, script: &str) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    Command::new("nsenter")
        .args(["--target", &namespace.id().to_string(), "--net", "sh", "-c", script])
        .env("D", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Its children too: they are in its group.
fn kill(child: &mut Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let _gone_already = killpg(group, Signal::SIGKILL);
    let _status = child.wait();
}

impl Drop for Far {
    fn drop(&mut self) {
        kill(&mut self.daemon);
        kill(&mut self.namespace);
        if std::thread::panicking() {
            let log = read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("the daemon said:\n{log}");
        }
    }
}
