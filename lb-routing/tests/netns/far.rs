//! Another daemon in a namespace of its own, behind the veth `lbr0`.

use std::fs::{File, read_link, read_to_string, write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::{DEADLINE, ip};

/// A daemon, its namespace and its folder.
pub(crate) struct Far {
    child: Child,
    folder: tempfile::TempDir,
}

impl Far {
    /// Moves `lbr0-far` into a namespace, gives it addresses and starts `command` of the shell there.
    ///
    /// Files are written first. `$D` is the daemon's folder, in files too.
    pub(crate) fn start(addresses: &[&str], files: &[(&str, String)], command: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("far").tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        for (name, text) in files {
            write(folder.path().join(name), text.replace("$D", path)).unwrap();
        }
        let addresses = addresses.iter().map(|address| {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            format!("ip addr add {address} dev lbr0-far {nodad}; ")
        });
        // The shell waits until the link is there, then becomes the daemon.
        let script = format!(
            "ip link set lo up; until ip link show lbr0-far >/dev/null 2>&1; do :; done; \
             {}ip link set lbr0-far up; {command}",
            addresses.collect::<String>()
        );
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .env("D", path)
            .current_dir(path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let far = Self { child, folder };
        let started = Instant::now();
        // `unshare` makes the namespace first; then the link can move.
        let own = read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", far.child.id());
        while read_link(&theirs).unwrap() == own {
            assert!(started.elapsed() < DEADLINE, "the daemon's namespace");
            std::thread::yield_now();
        }
        ip(&format!("link set lbr0-far netns {}", far.child.id()));
        far
    }

    /// Runs a command of the shell beside the daemon; what it prints, errors included.
    pub(crate) fn run(&self, command: &str) -> String {
        let process = self.child.id().to_string();
        let output = Command::new("nsenter")
            .args(["--target", &process, "--net", "timeout", "20", "sh", "-c", command])
            .env("D", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // Its children too: they are in its group.
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _gone_already = killpg(group, Signal::SIGKILL);
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("the daemon said:\n{log}");
        }
    }
}
