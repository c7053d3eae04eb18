//! What the kernel says of this host's addresses, of routes from it and of its free ports; and what it said last, for when it cannot
//! be asked: for want of descriptors or memory nobody is to lose a backend, or to meet ports that connections have.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;

use super::free_ports::free_ports;

/// Answers of the kernel: as many as there are backends and named addresses of services that follow routes.
#[derive(Debug, Default)]
pub(super) struct HostRoutes {
    /// The source address towards others; `None` where no route leads there.
    sources: BTreeMap<IpAddr, Option<IpAddr>>,
    /// Those of the round before: what is in neither is asked for no more.
    sources_before: BTreeMap<IpAddr, Option<IpAddr>>,
    /// The addresses of interfaces; `None`: never told.
    addresses: Option<BTreeSet<IpAddr>>,
    /// Whether these are as new as they have to be.
    has_addresses: bool,
    ports: Option<RangeInclusive<u16>>,
    /// Whether the kernel could not be asked in this round, or in the one before.
    fails: (bool, bool),
}

impl HostRoutes {
    /// Another round begins, in which all is asked that anybody still needs.
    pub(super) fn begin_round(&mut self) {
        self.sources_before = std::mem::take(&mut self.sources);
        self.fails = (false, self.fails.0);
    }

    /// Ports that flows may come from: `None` where the kernel may choose any, or has never said.
    pub(super) fn free_ports(&mut self) -> Option<RangeInclusive<u16>> {
        match free_ports() {
            Ok(ports) => self.ports = ports,
            Err(error) => self.fail(&error),
        }
        self.ports.clone()
    }

    /// The source address that the kernel's routes choose; `None` where none leads there, or the kernel has never said.
    pub(super) fn towards(&mut self, address: IpAddr) -> Option<IpAddr> {
        self.ask(address, address_towards).flatten()
    }

    /// From now on, addresses are no older.
    pub(super) const fn look_again(&mut self) {
        self.has_addresses = false;
    }

    /// Whether an address is this host's own: the kernel's route to it begins there, which covers whole prefixes that are local; or
    /// an interface has it, as for a link's second address, to which the route begins at the first. That it can be bound to says
    /// less, where `net.ipv4.ip_nonlocal_bind` allows that with any. `None` where the kernel has never said.
    pub(super) fn is_own(&mut self, address: IpAddr) -> Option<bool> {
        let source = self.ask(address, address_towards);
        if source == Some(Some(address)) {
            return Some(true);
        }
        if !self.has_addresses {
            match addresses() {
                Ok(addresses) => self.addresses = Some(addresses),
                Err(error) => self.fail(&error),
            }
            self.has_addresses = true;
        }
        let is_listed = self.addresses.as_ref()?.contains(&address);
        if is_listed { Some(true) } else { source.map(|_| false) }
    }

    /// An answer, the one before where the kernel could not be asked; none if there was none.
    fn ask(
        &mut self,
        address: IpAddr,
        ask: impl FnOnce(IpAddr) -> io::Result<IpAddr>,
    ) -> Option<Option<IpAddr>> {
        let source = match ask(address) {
            Ok(source) => Some(source),
            Err(error) if says_no_route(&error) => None,
            Err(error) => {
                self.fail(&error);
                let last = self.sources.get(&address).or(self.sources_before.get(&address));
                *last?
            }
        };
        self.sources.insert(address, source);
        Some(source)
    }

    fn fail(&mut self, error: &io::Error) {
        if self.fails == (false, false) {
            tracing::warn!(
                %error,
                "cannot ask the kernel for routes, addresses or ports of this host: flows come from where they came from before; \
                 where descriptors ran out, raise LimitNOFILE or fs.file-max"
            );
        }
        self.fails.0 = true;
    }
}

/// Whether an error is the routes' answer: unreachable, blackhole or prohibit ones among them, and families that this host lacks.
fn says_no_route(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == io::ErrorKind::AddrNotAvailable
        || matches!(
            errno,
            Some(
                Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH
                    | Errno::ENETDOWN
                    | Errno::ENODEV
                    | Errno::EINVAL
                    | Errno::EACCES
                    | Errno::EPERM
                    | Errno::EAFNOSUPPORT
            )
        )
}

/// A datagram socket that is connected has the source address of the routes, and sends nothing.
fn address_towards(backend: IpAddr) -> io::Result<IpAddr> {
    const DISCARD: u16 = 9;
    let any = match backend {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(backend, DISCARD))?;
    let address = socket.local_addr()?.ip();
    if address.is_unspecified() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(address) }
}

/// The addresses of this host's interfaces. Those of IPv4 stay local while their interface is down; others it has no longer then.
fn addresses() -> io::Result<BTreeSet<IpAddr>> {
    let address = |one: nix::ifaddrs::InterfaceAddress| {
        let address = one.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
    };
    Ok(getifaddrs()?.filter_map(address).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn run(command: &str) {
        let mut words = command.split(' ');
        let program = words.next().expect("a program");
        assert!(Command::new(program).args(words).status().expect(program).success(), "{command}");
    }

    #[test]
    fn the_source_is_the_one_that_this_host_would_use() {
        let towards_itself = address_towards([127, 0, 0, 2].into()).expect("loopback is up");
        assert!(towards_itself.is_loopback());
        let mut host = HostRoutes::default();
        assert_eq!(host.is_own([127, 0, 0, 1].into()), Some(true));
        assert_eq!(host.is_own([192, 0, 2, 77].into()), Some(false));
    }

    #[test]
    fn a_links_second_address_is_this_hosts_own_while_the_link_has_it() {
        let in_namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root runs the tests");
            run("ip link set lo up");
            run("ip link add d0 type veth peer name d1");
            run("ip address add 10.0.0.1/24 dev d0");
            run("ip address add 10.0.0.2/24 dev d0");
            run("ip link set d0 up");
            let second = IpAddr::from([10, 0, 0, 2]);
            assert_ne!(address_towards(second).expect("it is local"), second);
            let own = |host: &mut HostRoutes| {
                host.look_again();
                [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]].map(|a| host.is_own(a.into()))
            };
            let mut host = HostRoutes::default();
            assert_eq!(own(&mut host), [Some(true), Some(true), Some(false)]);
            run("ip link set d0 down");
            assert_eq!(own(&mut host), [Some(true), Some(true), Some(false)], "they stay local");
            run("ip address del 10.0.0.2/24 dev d0");
            assert_eq!(own(&mut host), [Some(true), Some(false), Some(false)]);
        });
        in_namespace.join().expect("its asserts hold");
    }

    /// Whether this is a process in which nothing runs but the test of this name. If not, one such runs it.
    fn is_alone(test: &str) -> bool {
        const ALONE: &str = "LBD_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let (_, module) = module_path!().split_once("::").expect("a crate's module");
        let this = std::env::current_exe().expect("this file");
        let mut alone = Command::new(this);
        alone.args(["--exact", &format!("{module}::{test}")]).env(ALONE, "");
        let ran = alone.output().expect("this file runs");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        false
    }

    #[test]
    fn without_descriptors_the_kernels_last_answers_stand_and_nothing_is_made_up() {
        if !is_alone("without_descriptors_the_kernels_last_answers_stand_and_nothing_is_made_up") {
            return;
        }
        let mut host = HostRoutes::default();
        let (known, unknown) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 3]));
        let ports = host.free_ports();
        assert_eq!((host.towards(known), host.is_own(known)), (Some(known), Some(true)));
        run(&format!("prlimit --pid {} --nofile=0:", std::process::id()));
        let error = UdpSocket::bind("127.0.0.1:0").expect_err("there is no descriptor left");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        for _ in 0..3 {
            host.begin_round();
            host.look_again();
            assert_eq!(host.free_ports(), ports);
            assert_eq!((host.towards(known), host.is_own(known)), (Some(known), Some(true)));
            assert_eq!((host.towards(unknown), host.is_own(unknown)), (None, None));
        }
        assert_eq!(HostRoutes::default().free_ports(), None, "no port is safe");
    }

    #[test]
    fn what_the_routes_answer_replaces_what_they_answered_and_other_errors_do_not() {
        let (address, source) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([10, 0, 0, 1]));
        let fails = |errno: i32| move |_| Err(io::Error::from_raw_os_error(errno));
        for (errno, expected) in [
            (libc::ENETUNREACH, None),
            (libc::EHOSTUNREACH, None),
            (libc::EADDRNOTAVAIL, None),
            (libc::EACCES, None),
            (libc::EINVAL, None),
            (libc::EMFILE, Some(source)),
            (libc::ENFILE, Some(source)),
            (libc::ENOMEM, Some(source)),
            (libc::ENOBUFS, Some(source)),
            (libc::EADDRINUSE, Some(source)),
        ] {
            let mut host = HostRoutes::default();
            assert_eq!(host.ask(address, |_| Ok(source)), Some(Some(source)));
            host.begin_round();
            assert_eq!(host.ask(address, fails(errno)), Some(expected), "{errno}");
        }
        let mut host = HostRoutes::default();
        assert_eq!(host.ask(address, |_| Ok(source)), Some(Some(source)));
        host.begin_round();
        host.begin_round();
        assert!(host.sources.is_empty() && host.sources_before.is_empty(), "nobody asks any more");
    }
}
