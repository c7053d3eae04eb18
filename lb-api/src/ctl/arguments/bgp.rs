//! What is done to BGP sessions, and asked of its routes.

use clap::{Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(in crate::ctl) enum Clear {
    /// A BGP session.
    Bgp {
        /// The neighbour's name or address.
        name: String,
        /// Without ending it: `in` asks for its routes again, `out` tells it ours again.
        #[arg(long, value_enum)]
        soft: Option<Soft>,
    },
}

/// Which routes are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Soft {
    /// Theirs.
    In,
    /// Ours.
    Out,
}

#[derive(Subcommand)]
pub(in crate::ctl) enum Bgp {
    /// Which paths a prefix has, which one won, and what keeps it from whom.
    Explain {
        /// The prefix, or an address: the longest prefix that covers it.
        destination: String,
    },
    /// End a neighbour's session, until it is started again.
    Shutdown {
        /// The neighbour's name or address.
        name: String,
        /// What the neighbour is told (RFC 9003): 255 octets at most.
        #[arg(long)]
        message: Option<String>,
    },
    /// Undo a shutdown.
    Start {
        /// The neighbour's name or address.
        name: String,
    },
    /// Tell a neighbour that our routes will go soon, so that it takes others first (GRACEFUL_SHUTDOWN, RFC 8326).
    Drain {
        /// The neighbour's name or address.
        name: String,
    },
    /// Undo a drain.
    Undrain {
        /// The neighbour's name or address.
        name: String,
    },
}

#[derive(Subcommand)]
pub(in crate::ctl) enum Show {
    /// Sessions and paths: of a destination, or what is named; by itself the summary.
    #[command(args_conflicts_with_subcommands = true)]
    Bgp {
        /// A prefix, or an address, for the longest prefix that covers it: its paths, why the best one won, and who hears of
        /// it.
        destination: Option<String>,
        #[command(subcommand)]
        what: Option<ShowBgp>,
    },
}

#[derive(Subcommand)]
pub(in crate::ctl) enum ShowBgp {
    /// One line per neighbour.
    Summary,
    /// Everything that is known of the neighbours, or of one.
    #[command(alias = "neighbours", alias = "neighbor", alias = "neighbour")]
    Neighbors {
        /// Its name or address.
        name: Option<String>,
        /// Its routes.
        #[arg(value_enum, requires = "name")]
        routes: Option<RoutesOf>,
        #[command(flatten)]
        about: About,
    },
    /// Paths, or those of one prefix.
    Routes {
        /// The prefix.
        #[arg(conflicts_with_all = ["selected", "within", "community", "as_path"])]
        prefix: Option<String>,
        /// Only those that were selected (the Loc-RIB of RFC 4271).
        #[arg(long)]
        selected: bool,
        #[command(flatten)]
        about: About,
    },
}

/// Which paths are shown: all that is said has to hold.
#[derive(Debug, Default, PartialEq, Eq, clap::Args)]
pub(in crate::ctl) struct About {
    /// Of this prefix and those inside.
    #[arg(long, value_name = "PREFIX")]
    pub(in crate::ctl) within: Option<ipnetwork::IpNetwork>,
    /// With this community, of any kind; * is any number: 65001:*. May be repeated.
    #[arg(long, value_name = "COMMUNITY")]
    pub(in crate::ctl) community: Vec<String>,
    /// With an AS path that this pattern matches, as in sets: ^65001_. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::ctl) as_path: Vec<String>,
}

/// Routes of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::ctl) enum RoutesOf {
    /// What it was told (Adj-RIB-Out).
    AdvertisedRoutes,
    /// What it told, as it came (Adj-RIB-In); what import does not accept, too, where `keep_rejected` is set.
    ReceivedRoutes,
    /// What it told that can be used, as import policy left it.
    Routes,
}
