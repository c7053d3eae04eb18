//! Two namespaces and a veth between them: this process with the light ends, and the peer under test.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The peer under test.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PEER_SIX: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
/// Light ends at most.
pub(crate) const ENDS: u16 = 500;
const LINK: &str = "lbdbench0";
const FAR: &str = "lbdbench1";

/// What sessions and routes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Four,
    Six,
}

impl Family {
    /// The address of an end, from 1 on.
    pub(crate) fn end(self, number: u16) -> IpAddr {
        match self {
            Self::Four => end(number).into(),
            Self::Six => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, number).into(),
        }
    }

    /// The address of the peer under test.
    pub(crate) fn peer(self) -> IpAddr {
        match self {
            Self::Four => PEER.into(),
            Self::Six => PEER_SIX.into(),
        }
    }
}

/// The IPv4 address of an end, which is its identifier too.
pub(crate) fn end(number: u16) -> Ipv4Addr {
    let [high, low] = [(number - 1) / 250, (number - 1) % 250].map(|part| part.to_be_bytes()[1]);
    Ipv4Addr::new(10, 99, 1 + high, 1 + low)
}

/// The namespaces; neither has a name, so both go with their processes.
pub(crate) struct Network {
    /// Holds the peer's namespace until its input ends, which it does with this process.
    holder: Child,
}

impl Network {
    /// Moves this process into a namespace and makes the other; call it before there is a second thread.
    pub(crate) fn new() -> Result<Self> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace: run this as root")?;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let mut holder = Command::new("unshare");
        let holder = holder.args(["--net", "cat"]).stdin(Stdio::piped()).spawn()?;
        let network = Self { holder };
        let deadline = Instant::now() + Duration::from_secs(40);
        while std::fs::read_link(network.path())? == own {
            ensure!(Instant::now() < deadline, "unshare makes no namespace");
            std::thread::yield_now();
        }
        let pid = network.holder.id();
        let mut here =
            format!("link set lo up\nlink add {LINK} type veth peer name {FAR} netns {pid}\n");
        for number in 1..=ENDS {
            here += &format!("addr add {}/16 dev {LINK}\n", end(number));
            here += &format!("addr add {}/64 dev {LINK} nodad\n", Family::Six.end(number));
        }
        here += &format!("link set {LINK} up\n");
        batch(Command::new("ip"), &here)?;
        let there = format!(
            "link set lo up\naddr add {PEER}/16 dev {FAR}\naddr add {PEER_SIX}/64 dev {FAR} nodad\nlink set {FAR} up\n"
        );
        batch(network.inside("ip"), &there)?;
        Ok(network)
    }

    /// A command that runs in the peer's namespace.
    pub(crate) fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

fn batch(mut ip: Command, lines: &str) -> Result<()> {
    use std::io::Write;
    let mut child =
        ip.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip is missing")?;
    child.stdin.take().context("a pipe was asked for")?.write_all(lines.as_bytes())?;
    ensure!(child.wait()?.success(), "ip refuses to make the network");
    Ok(())
}
