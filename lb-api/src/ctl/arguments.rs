//! The command line's words.

mod bgp;
mod config;
mod create;
mod drain;
mod examples;
mod fib;
mod kind;

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand};
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

/// Where `--help` lists what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// Shows and changes what lbd has, over its REST API.
///
/// Exit codes: 0 done; 1 refused or not found (one sentence says why); 2 wrong usage; 3 no daemon answers; 4 the answer
/// is no: diff finds a difference, doctor a fault, and what --wait waits for does not come.
#[derive(Parser)]
#[command(version, after_help = examples::ALL)]
pub struct Arguments {
    /// Where lbd answers: unix:PATH, http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        global = true,
        env = "LBD_SERVER",
        default_value = "unix:/run/lbd/lbd.sock",
        value_name = "SERVER",
        help_heading = EVERYWHERE
    )]
    pub(super) server: Server,
    /// A file with the token that lbd knows you by; on the Unix socket, your user does that.
    #[arg(long, global = true, env = "LBD_TOKEN_FILE", value_name = "FILE", help_heading = EVERYWHERE)]
    pub(super) token_file: Option<PathBuf>,
    /// Certificates (PEM) that sign the server's; those that this host trusts by default.
    #[arg(long, global = true, env = "LBD_CA_FILE", value_name = "FILE", help_heading = EVERYWHERE)]
    pub(super) ca_file: Option<PathBuf>,
    /// A client's certificate (PEM) that lbd knows you by, over https.
    #[arg(long, global = true, env = "LBD_CERT_FILE", value_name = "FILE", requires = "key_file", help_heading = EVERYWHERE)]
    pub(super) cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    #[arg(long, global = true, env = "LBD_KEY_FILE", value_name = "FILE", requires = "cert_file", help_heading = EVERYWHERE)]
    pub(super) key_file: Option<PathBuf>,
    /// How answers are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = EVERYWHERE)]
    pub(super) output: Format,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What flows are to have; lbd knows by which names.
fn filter(text: &str) -> Result<String, &'static str> {
    let (_name, _value) = text.split_once('=').ok_or("it is NAME=VALUE, such as service=web")?;
    Ok(text.to_owned())
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// List what there is, or the one with a name.
    #[command(after_help = examples::GET)]
    Get {
        /// What to list.
        #[arg(value_parser = KindWords(|_| true))]
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
        #[arg(long, value_name = "NAME=VALUE", conflicts_with = "name", value_parser = filter)]
        filter: Vec<String>,
        /// Go on with each that changes; of routes, fib, flows and status, what is other than a second before.
        #[arg(short, long)]
        watch: bool,
    },
    /// Show one resource with everything that is known of it.
    #[command(after_help = examples::DESCRIBE)]
    Describe {
        /// What it is.
        #[arg(value_parser = KindWords(|_| true))]
        kind: KindWord,
        /// Its name; bgp-global, status, config and version need none.
        name: Option<String>,
    },
    /// Show BGP in the words of network engineers.
    #[command(after_help = examples::SHOW)]
    Show {
        #[command(subcommand)]
        what: Show,
    },
    /// Create a resource; one that is there already is left alone. With -o json or yaml, it is shown as it is then.
    #[command(after_help = examples::CREATE)]
    Create {
        #[command(subcommand)]
        what: Create,
    },
    /// Create or replace what files say, all or none (YAML or JSON; several documents are separated by ---).
    #[command(after_help = examples::APPLY)]
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
    #[command(after_help = examples::CONFIG)]
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
    #[command(after_help = examples::DELETE, group = ArgGroup::new("which").required(true).args(["kind", "file"]))]
    Delete {
        /// What it is.
        #[arg(value_parser = KindWords(Kind::is_removed))]
        kind: Option<KindWord>,
        /// Its name; bgp-global needs none.
        name: Option<String>,
        /// A file; `-` is standard input.
        #[arg(short, long, value_name = "FILE")]
        file: Vec<PathBuf>,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// End a BGP session, or have its routes told again without ending it.
    #[command(after_help = examples::CLEAR)]
    Clear {
        #[command(subcommand)]
        what: Clear,
    },
    /// Ask BGP why a route is where it is; shut a neighbour down, or drain it.
    #[command(after_help = examples::BGP)]
    Bgp {
        #[command(subcommand)]
        what: Bgp,
    },
    /// Give a backend or a VIP's backends no new flows, or have BGP lead no traffic to this node; flows that there are go on.
    #[command(after_help = examples::DRAIN)]
    Drain(Drained),
    /// Undo a drain.
    Undrain(Drained),
    /// Change a resource in an editor ($VISUAL, $EDITOR, or vi).
    Edit {
        /// What it is.
        #[arg(value_parser = KindWords(Kind::is_changed))]
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
    #[command(after_help = examples::EVENTS)]
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
    #[command(after_help = examples::EXPORT)]
    Export {
        /// Also what the configuration file says.
        #[arg(long)]
        all: bool,
        /// Also what the configuration file hides by having its name, or a VIP's address and port: for a host without this
        /// file, since one with it refuses the document.
        #[arg(long, conflicts_with = "all")]
        hidden: bool,
    },
    /// Look for what stands in the way: kernel, privileges, settings, interfaces, sessions, VIPs; each with its remedy.
    #[command(after_help = examples::DOCTOR)]
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
    #[command(after_help = examples::FIB)]
    Fib {
        #[command(subcommand)]
        what: FibQuestion,
    },
    /// Show the versions of lbctl and of the daemon.
    Version,
    /// Write the completions of a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}
