//! The words of `create`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{ArgGroup, Args, Subcommand};

use super::{How, examples};

#[derive(Subcommand)]
pub(in crate::ctl) enum Create {
    /// A virtual IP service.
    #[command(after_help = examples::CREATE_VIP)]
    Vip(NewVip),
    /// A pool of addresses that VIPs are given.
    Pool(NewPool),
    /// A health check that VIPs name.
    HealthCheck(NewHealthCheck),
    /// A backend of a VIP.
    Backend(NewBackend),
    /// An address of an interface of this host.
    Address(NewAddress),
    /// A route beside those of BGP.
    StaticRoute(NewStaticRoute),
    /// A set that BGP policies name.
    Set(NewSet),
    /// A BGP policy.
    Policy(NewPolicy),
    /// What BGP neighbours have in common.
    PeerGroup(NewPeerGroup),
    /// A BGP neighbour.
    Peer(NewPeer),
    /// What BGP has in common for all neighbours, beyond what the file says.
    BgpGlobal(NewBgpGlobal),
    /// This node, drained or not; `lbctl drain --node` does the same to one that is there.
    Node(NewNode),
    /// A token for clients beyond the Unix socket; it is shown once.
    Token(NewToken),
}

#[derive(Args)]
#[command(group = ArgGroup::new("words").required(true).multiple(true)
    .args(["asn", "router_id", "cluster_id", "max_paths", "listen"]))]
pub(in crate::ctl) struct NewBgpGlobal {
    /// Our AS number; another one ends every session, and each begins anew.
    #[arg(long)]
    pub(in crate::ctl) asn: Option<u32>,
    /// BGP identifier, with the same consequence.
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::ctl) router_id: Option<Ipv4Addr>,
    /// The cluster that we reflect routes for, with the same consequence.
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::ctl) cluster_id: Option<Ipv4Addr>,
    /// Paths that carry traffic together at most (ECMP).
    #[arg(long, value_name = "COUNT")]
    pub(in crate::ctl) max_paths: Option<u16>,
    /// Where sessions are accepted: 0.0.0.0:179.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket)]
    pub(in crate::ctl) listen: Option<SocketAddr>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewNode {
    /// Its name: local is the one here.
    #[arg(default_value = "local")]
    pub(in crate::ctl) name: String,
    /// Tell all neighbours that it is about to go.
    #[arg(long)]
    pub(in crate::ctl) drain: bool,
    /// Also advertise no VIP.
    #[arg(long, requires = "drain")]
    pub(in crate::ctl) withdraw: bool,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewToken {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// What its holder may do: viewer, operator or admin.
    #[arg(long)]
    pub(in crate::ctl) role: String,
    /// Days after which it is no longer taken; never by default.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub(in crate::ctl) expires_in: Option<u64>,
}

#[derive(Args)]
pub(in crate::ctl) struct NewBackend {
    /// The VIP and the backend's address and port: VIP/ADDRESS:PORT.
    pub(in crate::ctl) name: String,
    /// Its share of new flows beside the others', 1 by default.
    #[arg(long)]
    pub(in crate::ctl) weight: Option<u32>,
    /// Flows that it may have at most.
    #[arg(long, value_name = "COUNT")]
    pub(in crate::ctl) max_flows: Option<u32>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewAddress {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// The interface that is to have it.
    #[arg(long)]
    pub(in crate::ctl) interface: String,
    /// The address with the length of its network: 192.0.2.2/24.
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub(in crate::ctl) address: String,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewStaticRoute {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// Where it leads to.
    #[arg(long)]
    pub(in crate::ctl) prefix: String,
    /// By what: ADDRESS, INTERFACE, or ADDRESS%INTERFACE; say it once for each.
    #[arg(long, value_name = "HOP")]
    pub(in crate::ctl) next_hop: Vec<String>,
    /// unicast, the default, or without next hops blackhole, unreachable or prohibit.
    #[arg(long)]
    pub(in crate::ctl) kind: Option<String>,
    /// Of several routes to a prefix, the one with the lowest counts.
    #[arg(long)]
    pub(in crate::ctl) metric: Option<u32>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("members").required(true).multiple(true)
    .args(["prefix", "as_path", "community", "neighbor"]))]
pub(in crate::ctl) struct NewSet {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// A prefix, or a range of lengths: '10.244.0.0/16 ge 24 le 32'; say it once for each.
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::ctl) prefix: Vec<String>,
    /// A pattern of AS paths: ^65001_; say it once for each.
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::ctl) as_path: Vec<String>,
    /// A community of any kind: '65001:*'; say it once for each.
    #[arg(long, value_name = "COMMUNITY")]
    pub(in crate::ctl) community: Vec<String>,
    /// A neighbour's address, or a prefix of them; say it once for each.
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::ctl) neighbor: Vec<String>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewPolicy {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// A statement as a file has it: '{match: {prefix_set: pods}, action: accept}'; say it once for each, in order.
    #[arg(long, required = true, value_name = "YAML")]
    pub(in crate::ctl) statement: Vec<String>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

/// What peers and their groups may both say.
#[derive(Args)]
pub(in crate::ctl) struct PeerWords {
    /// The AS number; ours makes sessions iBGP.
    #[arg(long)]
    pub(in crate::ctl) asn: Option<u32>,
    /// A policy that says what is accepted; say it once for each, in order.
    #[arg(long, value_name = "POLICY")]
    pub(in crate::ctl) import: Vec<String>,
    /// A policy that says what is advertised; say it once for each, in order.
    #[arg(long, value_name = "POLICY")]
    pub(in crate::ctl) export: Vec<String>,
    /// Any other field, as a file has it: hold_time_secs=9; say it once for each.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub(in crate::ctl) set: Vec<String>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewPeerGroup {
    /// Its name.
    pub(in crate::ctl) name: String,
    #[command(flatten)]
    pub(in crate::ctl) words: PeerWords,
}

#[derive(Args)]
pub(in crate::ctl) struct NewPeer {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// Its address.
    #[arg(long)]
    pub(in crate::ctl) address: IpAddr,
    /// The group whose options it has where it does not say its own.
    #[arg(long)]
    pub(in crate::ctl) group: Option<String>,
    /// Wait until its session is Established.
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::ctl) wait: bool,
    /// Seconds that --wait takes at most.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(in crate::ctl) timeout: u32,
    #[command(flatten)]
    pub(in crate::ctl) words: PeerWords,
}

#[derive(Args)]
pub(in crate::ctl) struct NewPool {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// A prefix or a range, FIRST-LAST; say it once for each.
    #[arg(long, required = true, value_name = "RANGE")]
    pub(in crate::ctl) addresses: Vec<String>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

#[derive(Args)]
pub(in crate::ctl) struct NewHealthCheck {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// tcp connects to each backend; none takes every backend for healthy.
    #[arg(long)]
    pub(in crate::ctl) kind: Option<String>,
    /// Milliseconds between the starts of two checks.
    #[arg(long, value_name = "MS")]
    pub(in crate::ctl) interval: Option<u32>,
    /// Milliseconds that a connect may take.
    #[arg(long, value_name = "MS")]
    pub(in crate::ctl) timeout: Option<u32>,
    /// Successes in a row that make a backend healthy.
    #[arg(long, value_name = "COUNT")]
    pub(in crate::ctl) rise: Option<u8>,
    /// Failures in a row that make a backend unhealthy.
    #[arg(long, value_name = "COUNT")]
    pub(in crate::ctl) fall: Option<u8>,
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
}

/// A port, or the first and the last of a range.
fn ports(text: &str) -> Result<(u16, Option<u16>), String> {
    let number = |text: &str| text.parse().map_err(|_| "it is PORT or FIRST-LAST, up to 65535");
    Ok(match text.split_once('-') {
        None => (number(text)?, None),
        Some((first, last)) => (number(first)?, Some(number(last)?)),
    })
}

/// An address and a port.
fn socket(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "it is ADDRESS:PORT, such as 10.0.0.1:8080 or [2001:db8::1]:8080")
}

/// The same, or an address whose port is 0.
fn socket_or_host(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_or_else(|_| socket(text), |host: IpAddr| Ok(SocketAddr::new(host, 0)))
}

#[derive(Args)]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["address", "pool"]))]
pub(in crate::ctl) struct NewVip {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// The address that clients connect to.
    #[arg(long)]
    pub(in crate::ctl) address: Option<IpAddr>,
    /// The pool that the address comes from.
    #[arg(long)]
    pub(in crate::ctl) pool: Option<String>,
    /// A label to select it by; say it once for each.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::ctl) label: Vec<String>,
    /// The port that clients connect to, or a range of ports: 8000-8999. Not with icmp.
    #[arg(long, value_parser = ports, required_unless_present = "protocol")]
    pub(in crate::ctl) port: Option<(u16, Option<u16>)>,
    /// Where flows go: ADDRESS:PORT, with a range the port of its first, with icmp ADDRESS; say it once for each.
    #[arg(long, required = true, value_name = "ADDRESS:PORT", value_parser = socket_or_host)]
    pub(in crate::ctl) backend: Vec<SocketAddr>,
    /// tcp, udp, sctp or icmp; all but the first with --health-check.
    #[arg(long)]
    pub(in crate::ctl) protocol: Option<String>,
    /// maglev, round-robin, least-connections or source-hash.
    #[arg(long)]
    pub(in crate::ctl) algorithm: Option<String>,
    /// tcp connects to each backend; none takes every backend for healthy.
    #[arg(long, value_name = "KIND")]
    pub(in crate::ctl) health_check: Option<String>,
    /// Serve it without advertising it.
    #[arg(long)]
    pub(in crate::ctl) no_advertise: bool,
    /// Answer ARP and neighbour discovery for it on the link of this interface, or of those that fit a pattern (eth*); say it
    /// once for each.
    #[arg(long, value_name = "INTERFACE")]
    pub(in crate::ctl) announce_on: Vec<String>,
    #[command(flatten)]
    pub(in crate::ctl) how: How,
}
