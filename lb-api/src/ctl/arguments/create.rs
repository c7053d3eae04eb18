//! The words of `create`.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};

use super::How;

#[derive(Subcommand)]
pub(in crate::ctl) enum Create {
    /// A virtual IP service.
    Vip(NewVip),
    /// A pool of addresses that VIPs are given.
    Pool(NewPool),
    /// A health check that VIPs name.
    HealthCheck(NewHealthCheck),
    /// A token for clients beyond the Unix socket; it is shown once.
    Token(NewToken),
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

#[derive(Args)]
pub(in crate::ctl) struct NewVip {
    /// Its name.
    pub(in crate::ctl) name: String,
    /// The address that clients connect to.
    #[arg(long, required_unless_present = "pool")]
    pub(in crate::ctl) address: Option<IpAddr>,
    /// The pool that the address comes from.
    #[arg(long)]
    pub(in crate::ctl) pool: Option<String>,
    /// NAME=VALUE; say it once for each.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::ctl) label: Vec<String>,
    /// The port that clients connect to, or a range of ports: 8000-8999.
    #[arg(long, value_parser = ports)]
    pub(in crate::ctl) port: (u16, Option<u16>),
    /// Where flows go: ADDRESS:PORT, with a range the port of its first; say it once for each.
    #[arg(long, required = true, value_name = "ADDRESS:PORT")]
    pub(in crate::ctl) backend: Vec<SocketAddr>,
    /// tcp or udp.
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
    #[command(flatten)]
    pub(in crate::ctl) how: How,
}
