//! How whole configurations, and changes, are carried out.

use clap::{Args, Subcommand};

/// How a whole configuration is applied.
#[derive(Args)]
pub(in crate::ctl) struct Terms {
    /// Remove what has the same owner (or none, without --owner), was made over REST and is not named by the files.
    #[arg(long)]
    pub(in crate::ctl) prune: bool,
    /// Become the owner of what the files name.
    #[arg(long, value_name = "NAME")]
    pub(in crate::ctl) owner: Option<String>,
    /// Roll everything back unless `lbctl config confirm` is said within so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600), conflicts_with = "dry_run")]
    pub(in crate::ctl) confirm: Option<u32>,
}

/// How a change is carried out.
#[derive(Args, Clone, Copy)]
pub(in crate::ctl) struct How {
    /// Only say what would be changed.
    #[arg(long)]
    pub(in crate::ctl) dry_run: bool,
    /// Wait until each VIP is served and, where it asks for it, advertised.
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::ctl) wait: bool,
    /// Seconds that --wait takes at most.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(in crate::ctl) timeout: u32,
}

#[derive(Subcommand)]
pub(in crate::ctl) enum Config {
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
