//! What is asked of the eBPF FIB.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Examined {
    /// The eBPF FIB.
    Fib,
    /// The eBPF maps of services, backends and rings.
    Services,
}

#[derive(Subcommand)]
pub(in crate::ctl) enum FibQuestion {
    /// Show what a packet meets: entry, group, the member that its flow leaves by, and whether router and kernel agree.
    Lookup(LookedUp),
}

#[derive(Args)]
pub(in crate::ctl) struct LookedUp {
    /// Where the packet goes.
    pub(in crate::ctl) destination: IpAddr,
    /// Where it comes from.
    #[arg(long)]
    pub(in crate::ctl) source: Option<IpAddr>,
    /// tcp, udp, icmp, icmpv6, sctp or a number.
    #[arg(long, default_value = "tcp")]
    pub(in crate::ctl) protocol: String,
    /// Its source port.
    #[arg(long, default_value_t = 0)]
    pub(in crate::ctl) source_port: u16,
    /// Its destination port.
    #[arg(long, default_value_t = 0)]
    pub(in crate::ctl) port: u16,
}
