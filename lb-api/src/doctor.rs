//! What of this host, its neighbours and the configuration stands in the way: pure rules over facts, each with its remedy.

use lb_api_types::config::Hook;
use lb_api_types::view::{Check, CheckState, Doctor};
use lb_dataplane::host::{FarEnd, Offloads};

/// The oldest kernel that has what is needed.
const OLDEST_KERNEL: (u32, u32) = (6, 6);
/// Capabilities that are needed: number, name, what for. `linux/capability.h`.
const NEEDED: [(u32, &str, &str); 5] = [
    (10, "CAP_NET_BIND_SERVICE", "to listen on port 179"),
    (12, "CAP_NET_ADMIN", "to attach programs and install routes"),
    (13, "CAP_NET_RAW", "to send ICMP errors"),
    (38, "CAP_PERFMON", "to load programs that read packets"),
    (39, "CAP_BPF", "to load programs and tables"),
];
/// `CAP_SYS_ADMIN` stands in for the last two.
const CAP_SYS_ADMIN: u32 = 21;

/// What is known of this host and of what runs on it. `None`: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As `uname -r` shows it.
    pub kernel: String,
    /// Whether the kernel has type information.
    pub btf: bool,
    /// Effective capabilities, as bits.
    pub capabilities: Option<u64>,
    /// Who it runs as.
    pub uid: Option<u32>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<bool>,
    /// Whether the kernel grants grace periods, or why not.
    pub grace_period: Option<Result<(), String>>,
    /// Whether the kernel compiles programs: as it is set now, or else as it did with those that are loaded.
    pub compiled: Option<bool>,
    /// Interfaces that the fast path is attached to.
    pub interfaces: Vec<Interface>,
    /// Whether the configuration names interfaces.
    pub interfaces_wanted: bool,
    /// Why interfaces are not as configured: sentences with their remedy.
    pub troubles: Vec<String>,
    /// Interfaces that it is to be attached to, is not, and that are up.
    pub lacking: Vec<String>,
    /// Rules of policy routing that hand every packet to the kernel, as `ip rule` shows them.
    pub policy_rules: Vec<String>,
    /// Routes and next-hop groups that the eBPF FIB has no room for.
    pub left_out: usize,
    /// What of the kept state is not well: sentences with their remedy.
    pub state: Vec<String>,
    /// What became not well since the start: sentences with their remedy.
    pub alarms: Vec<String>,
    /// BGP neighbours.
    pub sessions: Vec<Session>,
    /// VIPs that ask to be advertised and are not: name and why.
    pub unadvertised: Vec<(String, String)>,
    /// How many VIPs there are.
    pub vips: usize,
    /// VIPs that the dataplane does not serve.
    pub unserved: Vec<String>,
    /// Addresses of VIPs for which the kernel lacks the unreachable route that keeps the rest of their packets from being
    /// answered or forwarded; unknown where the routes cannot be read.
    pub unrouted: Option<Vec<std::net::IpAddr>>,
    /// Addresses of VIPs that are this host's own, too, and on which interface.
    pub own: Vec<(std::net::IpAddr, String)>,
    /// How many entries of the eBPF maps of services are other than they were written, and the first of them in words.
    pub maps: Option<(usize, Vec<String>)>,
}

/// What is known of an interface that the fast path is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Where the fast path is attached.
    pub hook: Hook,
    /// Whether it is up and has carrier.
    pub up: bool,
    /// The larger of its own `rp_filter` and that of `all`, which the kernel uses.
    pub rp_filter: Option<u8>,
    /// What it does to frames before a program sees them.
    pub offloads: Option<Offloads>,
}

/// What is known of a BGP session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The neighbour's name.
    pub name: String,
    /// State in words of RFC 4271.
    pub state: String,
    /// The last error; empty if none.
    pub last_error: String,
}

/// Looks at everything.
pub fn examine(facts: &Facts) -> Doctor {
    let mut checks = host(facts);
    checks.extend(interfaces(facts));
    checks.extend(facts.sessions.iter().map(session));
    checks.extend(vips(facts));
    checks.extend(drift(facts));
    let sentences = facts.state.iter().map(|s| warning("state", None, s.as_str(), ""));
    checks.extend(sentences);
    checks.extend(facts.alarms.iter().map(|said| warning("alarm", None, said.as_str(), "")));
    let healthy = checks.iter().all(|check| check.state <= CheckState::Unknown);
    Doctor { healthy, checks }
}

/// A check that is not well, as one sentence.
pub fn sentence(check: &Check) -> String {
    let subject = check.subject.as_ref().map_or(String::new(), |subject| format!("{subject}: "));
    match check.remedy.as_str() {
        "" => format!("{subject}{}", check.message),
        remedy => format!("{subject}{}; {remedy}", check.message),
    }
}

/// What holds before anything is configured.
pub fn host(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts)];
    checks.extend(capabilities(facts));
    checks.push(match facts.uid {
        None => unknown("user", None, "the kernel does not say who lbd runs as"),
        Some(0) => warning(
            "user",
            None,
            "lbd runs as root, since there is no user lbd and the configuration names none",
            "add one with `useradd --system lbd`, or set `user`, and restart lbd",
        ),
        Some(uid) => ok("user", None, format!("lbd runs as user {uid}, not as root")),
    });
    checks.push(match facts.ip_forward {
        Some(true) => ok(
            "ip-forward",
            None,
            "the kernel forwards what the fast path hands over; the fast path itself heeds neither its forwarding settings nor rp_filter nor FORWARD rules",
        ),
        None => unknown("ip-forward", None, "net.ipv4.ip_forward cannot be read"),
        Some(false) => warning(
            "ip-forward",
            None,
            "net.ipv4.ip_forward is 0, which the fast path does not heed: it forwards all the same, and only what it hands over is dropped by the kernel (neighbours without a MAC, what is too long, tagged frames)",
            "sysctl -w net.ipv4.ip_forward=1, or take interfaces that are not to forward out of dataplane.interfaces",
        ),
    });
    checks.push(match &facts.grace_period {
        Some(Ok(())) => ok("membarrier", None, "the kernel grants grace periods"),
        None => unknown("membarrier", None, "not tried"),
        Some(Err(why)) => error(
            "membarrier",
            None,
            format!("the kernel refuses membarrier ({why}): rings and next hops that are freed are never used again, and their room runs out"),
            "allow the system call membarrier in the service's seccomp filter, and boot without nohz_full",
        ),
    });
    checks.push(match facts.compiled {
        Some(true) => ok("bpf-jit", None, "the programs are compiled"),
        None => unknown("bpf-jit", None, "the kernel does not say here whether it compiles programs"),
        Some(false) => error(
            "bpf-jit",
            None,
            "the kernel compiles no eBPF programs, and lbd's cannot be interpreted: none can be loaded",
            "sysctl -w net.core.bpf_jit_enable=1, and the same in /etc/sysctl.d",
        ),
    });
    checks
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (major, minor) = OLDEST_KERNEL;
    let release = &facts.kernel;
    match (numbers.next(), numbers.next()) {
        (Some(Ok(x)), Some(Ok(y))) if (x, y) < OLDEST_KERNEL => error(
            "kernel",
            None,
            format!("kernel {release} is older than {major}.{minor}"),
            &format!("boot a kernel of {major}.{minor} or later"),
        ),
        (Some(Ok(_)), Some(Ok(_))) if !facts.btf => error(
            "kernel",
            None,
            format!("kernel {release} has no type information"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
        (Some(Ok(_)), Some(Ok(_))) => ok("kernel", None, format!("kernel {release}")),
        _ => unknown("kernel", None, format!("no version is known by `{release}`")),
    }
}

fn capabilities(facts: &Facts) -> Vec<Check> {
    let Some(bits) = facts.capabilities else {
        return vec![unknown("capabilities", None, "/proc/self/status cannot be read")];
    };
    let has = |number: u32| bits & (1 << number) != 0;
    let granted = |number| has(number) || (number >= 38 && has(CAP_SYS_ADMIN));
    let missing: Vec<_> = NEEDED.iter().filter(|(number, ..)| !granted(*number)).collect();
    if missing.is_empty() {
        return vec![ok("capabilities", None, "every capability that is needed is there")];
    }
    let missing = missing.into_iter().map(|(_, name, what)| {
        let remedy = format!("run as root, or with AmbientCapabilities={name}");
        error("capabilities", None, format!("{name} is missing, which is needed {what}"), &remedy)
    });
    missing.collect()
}

fn interfaces(facts: &Facts) -> Vec<Check> {
    let rules = facts.policy_rules.iter().map(|rule| {
        let message = format!(
            "the rule `{rule}` may lead packets to another table than the main one, so the kernel forwards every packet"
        );
        warning("policy-rules", None, message, "take it away with `ip rule del` if it is not needed")
    });
    let mut checks: Vec<_> = facts
        .troubles
        .iter()
        .map(|trouble| error("attachment", None, trouble.as_str(), ""))
        .chain(rules)
        .collect();
    if facts.interfaces.is_empty() {
        checks.push(error(
            "attachment",
            None,
            "the fast path is attached to no interface, so no VIP is served or advertised",
            match facts.interfaces_wanted {
                true => "see that an interface of dataplane.interfaces is there and up",
                false => "name interfaces in dataplane.interfaces, and restart lbd",
            },
        ));
    }
    checks.extend(facts.lacking.iter().map(|name| {
        let what = "the fast path is not attached, so no VIP is advertised: packets that come in here would not be served";
        let remedy = format!(
            "see to what is said of it, or take it out of dataplane.interfaces and restart lbd; \
             an interface that is down (`ip link set {name} down`) keeps nothing back"
        );
        error("attachment", Some(name.as_str()), what, &remedy)
    }));
    for interface in &facts.interfaces {
        let name = Some(interface.name.as_str());
        let hook = match interface.hook {
            Hook::Xdp => "XDP",
            Hook::Tc | Hook::Auto => "TC",
        };
        checks.push(match interface.up {
            true => ok("attachment", name, format!("attached at {hook}")),
            false => warning(
                "attachment",
                name,
                format!("attached at {hook}, but it is down, or has no carrier"),
                &format!("ip link set {} up, or see to its cable", interface.name),
            ),
        });
        checks.push(rp_filter(interface));
        checks.extend(offloads(interface));
    }
    checks
}

/// With a filter the kernel looks up the source of what it is handed: a reply's is the VIP, for which it has an
/// `unreachable` route, and so neither the strict filter nor the loose one lets it through.
fn rp_filter(interface: &Interface) -> Check {
    let name = Some(interface.name.as_str());
    match interface.rp_filter {
        Some(0) => ok("rp-filter", name, "the kernel takes replies of VIPs from here"),
        None => unknown("rp-filter", name, "net.ipv4.conf.*.rp_filter cannot be read"),
        Some(value) => warning(
            "rp-filter",
            name,
            format!(
                "rp_filter is {value}: the kernel drops replies, whose source is a VIP, that the fast path hands over"
            ),
            &format!(
                "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{}.rp_filter=0",
                interface.name.replace('.', "/")
            ),
        ),
    }
}

fn offloads(interface: &Interface) -> Vec<Check> {
    let name = interface.name.as_str();
    let Some(offloads) = &interface.offloads else {
        let says_nothing = unknown("offloads", Some(name), "the driver does not say");
        return if interface.hook == Hook::Xdp { vec![says_nothing] } else { Vec::new() };
    };
    let mut checks = Vec::new();
    if interface.hook == Hook::Xdp {
        checks.push(vlan_tags(name, offloads));
    }
    if offloads.lro {
        checks.push(warning(
            "lro",
            Some(name),
            "the interface merges segments (LRO) into packets that cannot be forwarded",
            &format!("ethtool -K {name} lro off"),
        ));
    }
    checks
}

/// Where something keeps tags beside frames, an XDP program takes those of a VLAN for frames without one.
fn vlan_tags(interface: &str, offloads: &Offloads) -> Check {
    let (check, name) = ("vlan-tags", Some(interface));
    let hidden = "before XDP sees the frame, so packets of a VLAN pass for those of none";
    match &offloads.far_end {
        _ if offloads.rx_vlan => warning(
            check,
            name,
            format!("the interface takes VLAN tags off {hidden}"),
            &format!("ethtool -K {interface} rxvlan off"),
        ),
        _ if offloads.rx_vlan_stag => warning(
            check,
            name,
            format!("the interface takes S-tags (802.1ad) off {hidden}"),
            &format!("ethtool -K {interface} rx-vlan-stag-hw-parse off"),
        ),
        Some(FarEnd::Here { name: far, keeps_tags: true }) => warning(
            check,
            name,
            format!("the other end, {far}, leaves VLAN tags beside frames {hidden}"),
            &format!("ethtool -K {far} txvlan off tx-vlan-stag-hw-insert off"),
        ),
        Some(FarEnd::Elsewhere) => {
            let message = "the other end of this veth is in another namespace: where it leaves VLAN tags beside frames, XDP does not see them";
            let remedy = "where VLANs are used, have that end put them in: ethtool -K IF txvlan off tx-vlan-stag-hw-insert off";
            Check { remedy: remedy.into(), ..unknown(check, name, message) }
        }
        Some(FarEnd::Here { .. }) | None => ok(check, name, "frames keep their VLAN tags"),
    }
}

fn session(session: &Session) -> Check {
    let name = Some(session.name.as_str());
    if session.state == "Established" {
        return ok("bgp-session", name, "Established");
    }
    let why = match session.last_error.as_str() {
        "" => String::new(),
        why => format!(": {why}"),
    };
    warning(
        "bgp-session",
        name,
        format!("the session is {}{why}", session.state),
        "see that the neighbour answers at its address and port, and that both sides name each other's address and AS",
    )
}

fn vips(facts: &Facts) -> Vec<Check> {
    if facts.unadvertised.is_empty() {
        let message = match facts.vips {
            0 => "none asks to be advertised".to_owned(),
            asked => format!("all {asked} that ask for it are advertised"),
        };
        return vec![ok("vips", None, message)];
    }
    let one = |(name, why): &(String, String)| warning("vips", Some(name), why.as_str(), "");
    facts.unadvertised.iter().map(one).collect()
}

/// What the world has other than it was asked for.
fn drift(facts: &Facts) -> Vec<Check> {
    let unserved = facts.unserved.iter().map(|name| {
        error(
            "drift",
            Some(name),
            "the dataplane does not serve the VIP",
            "see the daemon's log for what the dataplane refuses, or restart lbd",
        )
    });
    let mut checks: Vec<_> = unserved.collect();
    if facts.left_out > 0 {
        let count = facts.left_out;
        checks.push(error(
            "drift",
            None,
            format!(
                "the eBPF FIB has no room for {count} routes or next-hop groups: the kernel forwards their packets, and those that it has no such route for (install: dataplane) are dropped"
            ),
            "raise what the log says is full (dataplane.max_fib_blocks, max_fib_ipv6_kib, max_fib_groups, max_fib_next_hops, max_fib_buckets), and restart lbd",
        ));
    }
    match &facts.unrouted {
        None => checks.push(unknown("drift", None, "the kernel's routes cannot be read")),
        Some(all) => checks.extend(all.iter().map(|address| {
            let address = address.to_string();
            error(
                "drift",
                Some(&address),
                "the kernel lacks the unreachable route of a VIP's address: somebody else removed it",
                "restart lbd, which puts it back, and keep others from the routes of protocol 179",
            )
        })),
    }
    checks.extend(facts.own.iter().map(|(address, interface)| {
        error(
            "drift",
            Some(&address.to_string()),
            format!("the VIP's address is this host's own, too, on {interface}: what the fast path leaves to the kernel ends at this host's programs"),
            &format!("take it off the interface (`ip address del {address} dev {interface}`), or give the VIP another address"),
        )
    }));
    checks.extend(maps(facts));
    if checks.is_empty() {
        checks.push(ok("drift", None, "dataplane and kernel have what was asked for"));
    }
    checks
}

/// What somebody else has written into the maps of services.
fn maps(facts: &Facts) -> Option<Check> {
    let Some((count, told)) = &facts.maps else {
        return Some(unknown("drift", None, "the eBPF maps of services were not read"));
    };
    let first = told.first()?;
    let others = match count.saturating_sub(1) {
        0 => String::new(),
        others => format!(", and {others} more"),
    };
    Some(error(
        "drift",
        None,
        format!("the fast path's maps are not as lbd wrote them: {first}{others}"),
        "`lbctl doctor services --repair` writes them again; keep others from lbd's maps",
    ))
}

fn ok(name: &str, subject: Option<&str>, message: impl Into<String>) -> Check {
    check(CheckState::Ok, name, subject, message.into(), "")
}

fn unknown(name: &str, subject: Option<&str>, message: impl Into<String>) -> Check {
    check(CheckState::Unknown, name, subject, message.into(), "")
}

fn warning(name: &str, subject: Option<&str>, message: impl Into<String>, remedy: &str) -> Check {
    check(CheckState::Warning, name, subject, message.into(), remedy)
}

fn error(name: &str, subject: Option<&str>, message: impl Into<String>, remedy: &str) -> Check {
    check(CheckState::Error, name, subject, message.into(), remedy)
}

fn check(
    state: CheckState,
    name: &str,
    subject: Option<&str>,
    message: String,
    remedy: &str,
) -> Check {
    let (name, subject) = (name.into(), subject.map(str::to_owned));
    Check { name, subject, state, message, remedy: remedy.into() }
}

#[cfg(test)]
mod tests;
