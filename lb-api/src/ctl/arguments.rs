//! The command line's words.

mod bgp;
mod create;
mod fib;
mod kinds;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(super) use self::bgp::{Bgp, Clear, Soft};
pub(super) use self::create::{Create, NewHealthCheck, NewPool, NewToken, NewVip};
pub(super) use self::fib::{Examined, FibQuestion, LookedUp};
pub(super) use self::kinds::{Describable, Editable, Format, Kind, Nameable};
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
  lbctl export > vips.yaml             # every VIP made over REST, as apply takes it
  lbctl delete vip web
  lbctl edit vip web                   # in your editor
  lbctl drain 10.0.0.1                 # no new flows to this server, in any VIP
  lbctl drain --node                   # no traffic to this node: BGP advertises no VIP
  lbctl show bgp summary               # BGP sessions
  lbctl bgp explain 10.244.0.0/26      # its paths, and what keeps the best one from whom
  lbctl clear bgp upstream --soft in   # have import policy see its routes again
  lbctl get fib 10.244.1.0/26          # where the fast path sends packets
  lbctl fib lookup 10.244.1.7          # what a packet meets, and whether router and kernel agree
  lbctl doctor                         # what stands in the way, and what to do about it
  lbctl doctor fib                     # whether the fast path holds every route as it should
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
        #[arg(value_enum)]
        kind: Kind,
        /// A name, a prefix, or a flow's VIP.
        name: Option<String>,
        /// Only those with such labels: app=web,tier!=test,canary,!old.
        #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
        selector: Option<Selector>,
        /// Items of routes, fib and flows at most.
        #[arg(long)]
        limit: Option<u32>,
        /// Go on with each that changes.
        #[arg(short, long)]
        watch: bool,
    },
    /// Show one resource or neighbour with everything that is known of it.
    Describe {
        /// What it is.
        #[arg(value_enum)]
        kind: Describable,
        /// Its name.
        name: String,
    },
    /// Show BGP in the words of network engineers.
    Show {
        #[command(subcommand)]
        what: Show,
    },
    /// Create a resource; one that is there already is left alone.
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
        #[arg(value_enum, requires = "name")]
        kind: Option<Nameable>,
        /// Its name.
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
        #[arg(value_enum)]
        kind: Editable,
        /// Its name.
        name: String,
    },
    /// Write what a bug report needs as one JSON document, without secrets.
    Bundle,
    /// Write the manual pages of lbctl into a folder.
    Man {
        /// The folder, such as /usr/local/share/man/man1.
        folder: PathBuf,
    },
    /// Show what happened lately: VIPs, backends, sessions, the fast path.
    Events {
        /// Go on with what happens from now on.
        #[arg(short, long)]
        watch: bool,
    },
    /// Write every resource made over REST as apply takes it; those of the configuration file stay there.
    Export,
    /// Look for what stands in the way: kernel, privileges, settings, interfaces, sessions, VIPs; each with its remedy.
    Doctor {
        /// Examine this in depth instead: `fib` holds the eBPF FIB against its routes, the router and the kernel.
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
    /// Write the completions of a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

#[derive(Args)]
pub(super) struct Drained {
    /// A backend: ADDRESS:PORT, or ADDRESS for all of its ports.
    #[arg(value_parser = backends, required_unless_present_any = ["vip", "node"])]
    pub(super) backend: Option<Backends>,
    /// In this VIP only; without a backend, all of its backends.
    #[arg(long)]
    pub(super) vip: Option<String>,
    /// This node: until it is undrained, also after a restart, BGP says that it is about to go (GRACEFUL_SHUTDOWN).
    #[arg(long, conflicts_with_all = ["backend", "vip"])]
    pub(super) node: bool,
    /// With --node: BGP also advertises no VIP; once traffic has moved.
    #[arg(long, requires = "node")]
    pub(super) withdraw: bool,
}

/// Backends at an address, or the one at a port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backends {
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

fn backends(text: &str) -> Result<Backends, String> {
    let socket = text.parse::<SocketAddr>();
    let socket = socket.map(|at| Backends { address: at.ip(), port: Some(at.port()) });
    socket
        .or_else(|_| text.parse().map(|address| Backends { address, port: None }))
        .map_err(|_| "a backend is ADDRESS:PORT, or ADDRESS for all of its ports".into())
}

#[derive(Subcommand)]
pub(super) enum Config {
    /// Keep what was applied with --confirm.
    Confirm,
    /// Go back: from what is not confirmed to what was before, otherwise to the configuration before or the one named.
    Rollback {
        /// A revision of the history.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        /// Only say what would be changed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the configurations that are kept, the newest first.
    History,
}

#[derive(Subcommand)]
pub(super) enum Show {
    /// Sessions and paths.
    Bgp {
        #[command(subcommand)]
        what: ShowBgp,
    },
}

#[derive(Subcommand)]
pub(super) enum ShowBgp {
    /// One line per neighbour.
    Summary,
    /// Everything that is known of the neighbours, or of one.
    #[command(alias = "neighbours", alias = "neighbor", alias = "neighbour")]
    Neighbors {
        /// Its name or address.
        name: Option<String>,
    },
    /// Paths, or those of one prefix.
    Routes {
        /// The prefix.
        prefix: Option<String>,
    },
}

/// How a whole configuration is applied.
#[derive(Args)]
pub(super) struct Terms {
    /// Remove what has the same owner (or none, without --owner), was made over REST and is not named by the files.
    #[arg(long)]
    pub(super) prune: bool,
    /// Become the owner of what the files name.
    #[arg(long, value_name = "NAME")]
    pub(super) owner: Option<String>,
    /// Roll everything back unless `lbctl config confirm` is said within so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600), conflicts_with = "dry_run")]
    pub(super) confirm: Option<u32>,
}

/// How a change is carried out.
#[derive(Args, Clone, Copy)]
pub(super) struct How {
    /// Only say what would be changed.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Wait until each VIP is served and, where it asks for it, advertised.
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) wait: bool,
    /// Seconds that --wait takes at most.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(super) timeout: u32,
}
