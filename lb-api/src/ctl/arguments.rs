//! The command line's words.

mod bgp;
mod config;
mod create;
mod drain;
mod fib;
mod kind;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub(super) use self::bgp::{About, Bgp, Clear, RoutesOf, Show, ShowBgp, Soft};
pub(super) use self::config::{Config, How, Terms};
pub(super) use self::create::{
    Create, NewAddress, NewBackend, NewBgpGlobal, NewHealthCheck, NewNode, NewPeer, NewPeerGroup,
    NewPolicy, NewPool, NewSet, NewStaticRoute, NewToken, NewVip, PeerWords,
};
pub(super) use self::drain::{Backends, Drained};
pub(super) use self::fib::{Examined, FibQuestion, LookedUp};
use self::kind::KindWords;
pub(super) use self::kind::{Format, Home, Kind, KindWord};
use super::client::Server;
use crate::resources::Selector;

/// Shows and changes what lbd has, over its REST API.
///
/// Exit codes: 0 done; 1 refused or not found (one sentence says why); 2 wrong usage; 3 no daemon answers; 4 the answer
/// is no: diff finds a difference, doctor a fault, and what --wait waits for does not come.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  lbctl get vips                       # every VIP: served, advertised, healthy backends
  lbctl get vips -o wide               # with counters, and why it is or is not advertised
  lbctl get vips --watch               # and then each that changes
  lbctl events --watch                 # what happens, as it happens
  lbctl describe vip web               # one VIP with its backends and counters
  lbctl create vip web --address 203.0.113.7 --port 80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080 --wait
  lbctl create pool public --addresses 203.0.113.64/26
  lbctl create vip api --pool public --port 443 --backend 10.0.0.3:8443
  lbctl get vips -l app=web            # by label
  lbctl diff -f web.yaml               # what apply would change
  lbctl apply -f web.yaml              # create or replace VIPs; several documents are separated by ---
  lbctl apply -f web.yaml --confirm 60 # rolled back unless you say `lbctl config confirm` within 60 s
  lbctl config history                 # what `lbctl config rollback --to` can go back to
  lbctl export > lbd.yaml              # what was made over REST, as apply takes it and as lbd's own file says it
  lbctl delete vip web
  lbctl edit vip web                   # in your editor
  lbctl create peer node3 --address 10.0.3.2 --group nodes --wait
  lbctl create static-route far --prefix 198.51.100.0/24 --next-hop 192.0.2.1
  lbctl drain 10.0.0.1                 # no new flows to this server, in any VIP
  lbctl drain --node                   # neighbours are told that this node is about to go
  lbctl show bgp summary               # BGP sessions
  lbctl show bgp neighbors upstream received-routes   # as they came; also advertised-routes, routes
  lbctl show bgp routes --community 65001:* --as-path _65002$
  lbctl show bgp 10.244.0.7            # the longest prefix for it; the same as: lbctl bgp explain
  lbctl bgp explain 10.244.0.0/26      # its paths, and what keeps the best one from whom
  lbctl clear bgp upstream --soft in   # have import policy see its routes again
  lbctl get fib 10.244.1.0/26          # where the fast path sends packets
  lbctl fib lookup 10.244.1.7          # what a packet meets, and whether router and kernel agree
  lbctl doctor                         # what stands in the way, and what to do about it
  lbctl doctor fib                     # whether the fast path holds every route as it should
  lbctl doctor services --repair       # whether it holds every VIP and backend so, and write again what differs
  lbctl bundle > bug.json              # what a bug report needs, without secrets
  lbctl man /usr/local/share/man/man1
  lbctl completions bash > /etc/bash_completion.d/lbctl
  lbctl create token ci --role operator --expires-in 90 > ci.token
  lbctl --server https://lbd.example:8443 --token-file ci.token get status"
)]
pub struct Arguments {
    /// Where lbd answers: unix:PATH, http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        global = true,
        env = "LBD_SERVER",
        default_value = "unix:/run/lbd/lbd.sock",
        value_name = "SERVER"
    )]
    pub(super) server: Server,
    /// A file with the token that lbd knows you by; on the Unix socket, your user does that.
    #[arg(long, global = true, env = "LBD_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Certificates (PEM) that sign the server's; those that this host trusts by default.
    #[arg(long, global = true, env = "LBD_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// A client's certificate (PEM) that lbd knows you by, over https.
    #[arg(long, global = true, env = "LBD_CERT_FILE", value_name = "FILE", requires = "key_file")]
    pub(super) cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    #[arg(long, global = true, env = "LBD_KEY_FILE", value_name = "FILE", requires = "cert_file")]
    pub(super) key_file: Option<PathBuf>,
    /// How answers are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// List what there is, or the one with a name.
    Get {
        /// What to list.
        #[arg(value_parser = KindWords)]
        kind: KindWord,
        /// A name, which may also stand behind the kind (vip/web); a prefix of routes, an end of flows, the VIP of backends.
        name: Option<String>,
        /// Only those with such labels: app=web,tier!=test,canary,!old.
        #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
        selector: Option<Selector>,
        /// Items of routes, fib and flows at most.
        #[arg(long)]
        limit: Option<u32>,
        /// Only flows with client=, vip=, backend=, service=, protocol= or state=; say it once for each.
        #[arg(long, value_name = "NAME=VALUE", conflicts_with = "name")]
        filter: Vec<String>,
        /// Go on with each that changes; of routes, fib, flows and status, what is other than a second before.
        #[arg(short, long, conflicts_with_all = ["selector", "limit", "filter"])]
        watch: bool,
    },
    /// Show one resource with everything that is known of it.
    Describe {
        /// What it is.
        #[arg(value_parser = KindWords)]
        kind: KindWord,
        /// Its name; bgp-global, status, config and version need none.
        name: Option<String>,
    },
    /// Show BGP in the words of network engineers.
    Show {
        #[command(subcommand)]
        what: Show,
    },
    /// Create a resource; one that is there already is left alone. With -o json or yaml, it is shown as it is then.
    Create {
        #[command(subcommand)]
        what: Create,
    },
    /// Create or replace what files say, all or none (YAML or JSON; several documents are separated by ---).
    Apply {
        /// A file; `-` is standard input.
        #[arg(short, long, required = true, value_name = "FILE")]
        file: Vec<PathBuf>,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        how: How,
    },
    /// Confirm what was applied, go back, or show what there is to go back to.
    Config {
        #[command(subcommand)]
        what: Config,
    },
    /// Show what apply would change; exit code 4 if it would change anything.
    Diff {
        /// A file; `-` is standard input.
        #[arg(short, long, required = true, value_name = "FILE")]
        file: Vec<PathBuf>,
    },
    /// Remove a resource, what files name, or a token.
    Delete {
        /// What it is.
        #[arg(value_parser = KindWords)]
        kind: Option<KindWord>,
        /// Its name; bgp-global needs none.
        name: Option<String>,
        /// A file; `-` is standard input.
        #[arg(
            short,
            long,
            value_name = "FILE",
            conflicts_with = "kind",
            required_unless_present = "kind"
        )]
        file: Vec<PathBuf>,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// End a BGP session, or have its routes told again without ending it.
    Clear {
        #[command(subcommand)]
        what: Clear,
    },
    /// Ask BGP why a route is where it is.
    Bgp {
        #[command(subcommand)]
        what: Bgp,
    },
    /// Give a backend or a VIP's backends no new flows, or have BGP lead no traffic to this node; flows that there are go on.
    Drain(Drained),
    /// Undo a drain.
    Undrain(Drained),
    /// Change a resource in an editor ($VISUAL, $EDITOR, or vi).
    Edit {
        /// What it is.
        #[arg(value_parser = KindWords)]
        kind: KindWord,
        /// Its name; bgp-global needs none.
        name: Option<String>,
        /// Only say what would be changed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write what a bug report needs as one JSON document, without secrets.
    Bundle,
    /// Write the manual pages of lbctl into a folder.
    Man {
        /// The folder, such as /usr/local/share/man/man1.
        folder: PathBuf,
    },
    /// Show what happened lately: VIPs, backends, sessions, the fast path; or to flows.
    Events {
        /// Show flows that begin and end instead: one in as many as dataplane.sample_flows of the configuration says.
        #[arg(long)]
        flows: bool,
        /// Only events of these kinds, such as vip-advertised,vip-withdrawn.
        #[arg(long, value_name = "KINDS", value_delimiter = ',')]
        kind: Vec<String>,
        /// Go on with what happens from now on.
        #[arg(short, long)]
        watch: bool,
    },
    /// Write what was made over REST as one document, which apply takes, and lbd as its own file or a part of it.
    Export {
        /// Also what the configuration file says.
        #[arg(long)]
        all: bool,
    },
    /// Look for what stands in the way: kernel, privileges, settings, interfaces, sessions, VIPs; each with its remedy.
    Doctor {
        /// Examine this in depth instead: `fib` holds the eBPF FIB against its routes, the router and the kernel; `services`
        /// the eBPF maps of VIPs and backends against what was asked for.
        #[arg(value_enum)]
        what: Option<Examined>,
        /// Write again what differs.
        #[arg(long, requires = "what")]
        repair: bool,
    },
    /// Ask the eBPF FIB.
    Fib {
        #[command(subcommand)]
        what: FibQuestion,
    },
    /// Show the versions of lbctl and of the daemon.
    Version,
    /// Write the completions of a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}
