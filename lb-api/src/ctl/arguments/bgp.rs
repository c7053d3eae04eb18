//! What is done to BGP sessions, and asked of its routes.

use clap::{Subcommand, ValueEnum};

#[derive(Subcommand)]
pub(in crate::ctl) enum Clear {
    /// A BGP session.
    Bgp {
        /// The neighbour's name.
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
        /// The prefix.
        prefix: ipnetwork::IpNetwork,
    },
}

#[derive(Subcommand)]
pub(in crate::ctl) enum Show {
    /// Sessions and paths.
    Bgp {
        #[command(subcommand)]
        what: ShowBgp,
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
    },
    /// Paths, or those of one prefix.
    Routes {
        /// The prefix.
        prefix: Option<String>,
    },
    /// A prefix: its paths, why the best one won, and who hears of it.
    #[command(external_subcommand)]
    Prefix(Vec<String>),
}

/// Routes of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::ctl) enum RoutesOf {
    /// What it is told (Adj-RIB-Out).
    AdvertisedRoutes,
    /// What it told, as it came, whether import accepts it or not (Adj-RIB-In).
    ReceivedRoutes,
    /// What it told that can be used, as import policy left it.
    Routes,
}
