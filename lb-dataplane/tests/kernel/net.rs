//! Network namespaces of a test's own: they have no names and go with their last descriptor.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let open = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let namespace = thread::spawn(open).join().unwrap();
        namespace.ip("link set lo up");
        namespace
    }

    /// Does something in this namespace, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    pub(crate) fn ip(&self, arguments: &str) {
        self.command("ip", arguments);
    }

    pub(crate) fn command(&self, program: &str, arguments: &str) -> String {
        let run = || Command::new(program).args(arguments.split_whitespace()).output().unwrap();
        let output = self.run(run);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How another process can name it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    pub(crate) fn ifindex(&self, interface: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(interface)).unwrap()
    }

    pub(crate) fn mac(&self, interface: &str) -> [u8; 6] {
        let text = self.command("ip", &format!("-o link show {interface}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "link/ether").unwrap() + 1;
        let bytes: Vec<u8> =
            words[at].split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}
