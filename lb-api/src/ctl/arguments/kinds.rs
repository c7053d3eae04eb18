//! What commands are about, as words of the command line.

use clap::ValueEnum;

use crate::resources;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Kind {
    /// Virtual IP services.
    #[value(alias = "vip")]
    Vips,
    /// Pools of addresses for VIPs.
    #[value(alias = "pool")]
    Pools,
    /// Health checks that VIPs name.
    #[value(alias = "health-check")]
    HealthChecks,
    /// This node, once something was asked of it.
    #[value(alias = "node")]
    Nodes,
    /// The host's interfaces.
    #[value(alias = "interface")]
    Interfaces,
    /// Sets that BGP policies name.
    #[value(alias = "set")]
    Sets,
    /// BGP policies.
    #[value(alias = "policy")]
    Policies,
    /// What BGP neighbours have in common.
    #[value(alias = "peer-group")]
    PeerGroups,
    /// BGP neighbours.
    #[value(alias = "peer")]
    Peers,
    /// Addresses that interfaces of this host are to have.
    #[value(alias = "address")]
    Addresses,
    /// Routes beside those of BGP.
    #[value(alias = "static-route")]
    StaticRoutes,
    /// BGP paths.
    #[value(alias = "route")]
    Routes,
    /// The eBPF FIB.
    Fib,
    /// Flows through VIPs.
    #[value(alias = "flow")]
    Flows,
    /// Tokens.
    #[value(alias = "token")]
    Tokens,
    /// The appliance as a whole.
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Nameable {
    /// A virtual IP service.
    #[value(alias = "vips")]
    Vip,
    /// A pool of addresses.
    #[value(alias = "pools")]
    Pool,
    /// A health check that VIPs name.
    #[value(alias = "health-checks")]
    HealthCheck,
    /// A set that BGP policies name.
    #[value(alias = "sets")]
    Set,
    /// A BGP policy.
    #[value(alias = "policies")]
    Policy,
    /// What BGP neighbours have in common.
    #[value(alias = "peer-groups")]
    PeerGroup,
    /// A BGP neighbour.
    #[value(alias = "peers")]
    Peer,
    /// An address that an interface of this host is to have.
    #[value(alias = "addresses")]
    Address,
    /// A route beside those of BGP.
    #[value(alias = "static-routes")]
    StaticRoute,
    /// A token.
    #[value(alias = "tokens")]
    Token,
}

impl Nameable {
    /// What REST calls it, beside VIPs and tokens.
    pub(in crate::ctl) fn resource(self) -> Option<resources::Kind> {
        match self {
            Self::Pool => Some(resources::Kind::Pool),
            Self::HealthCheck => Some(resources::Kind::HealthCheck),
            Self::Set => Some(resources::Kind::Set),
            Self::Policy => Some(resources::Kind::Policy),
            Self::PeerGroup => Some(resources::Kind::PeerGroup),
            Self::Peer => Some(resources::Kind::Peer),
            Self::Address => Some(resources::Kind::Address),
            Self::StaticRoute => Some(resources::Kind::StaticRoute),
            Self::Vip | Self::Token => None,
        }
    }
}

impl Kind {
    /// What REST calls them, where they are resources beside VIPs.
    pub(in crate::ctl) fn resource(self) -> Option<resources::Kind> {
        match self {
            Self::Pools => Some(resources::Kind::Pool),
            Self::HealthChecks => Some(resources::Kind::HealthCheck),
            Self::Nodes => Some(resources::Kind::Node),
            Self::Sets => Some(resources::Kind::Set),
            Self::Policies => Some(resources::Kind::Policy),
            Self::PeerGroups => Some(resources::Kind::PeerGroup),
            Self::Peers => Some(resources::Kind::Peer),
            Self::Addresses => Some(resources::Kind::Address),
            Self::StaticRoutes => Some(resources::Kind::StaticRoute),
            Self::Vips
            | Self::Interfaces
            | Self::Routes
            | Self::Fib
            | Self::Flows
            | Self::Tokens
            | Self::Status => None,
        }
    }
}

/// What an editor is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Editable {
    /// A virtual IP service.
    #[value(alias = "vips")]
    Vip,
    /// A pool of addresses.
    #[value(alias = "pools")]
    Pool,
    /// A health check that VIPs name.
    #[value(alias = "health-checks")]
    HealthCheck,
    /// An address that an interface of this host is to have.
    #[value(alias = "addresses")]
    Address,
    /// A route beside those of BGP.
    #[value(alias = "static-routes")]
    StaticRoute,
}

impl Editable {
    /// What REST calls it, beside VIPs.
    pub(in crate::ctl) fn resource(self) -> Option<resources::Kind> {
        match self {
            Self::Vip => None,
            Self::Pool => Some(resources::Kind::Pool),
            Self::HealthCheck => Some(resources::Kind::HealthCheck),
            Self::Address => Some(resources::Kind::Address),
            Self::StaticRoute => Some(resources::Kind::StaticRoute),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Describable {
    /// A virtual IP service.
    #[value(alias = "vips")]
    Vip,
    /// A pool of addresses.
    #[value(alias = "pools")]
    Pool,
    /// A health check that VIPs name.
    #[value(alias = "health-checks")]
    HealthCheck,
    /// A set that BGP policies name.
    #[value(alias = "sets")]
    Set,
    /// A BGP policy.
    #[value(alias = "policies")]
    Policy,
    /// What BGP neighbours have in common.
    #[value(alias = "peer-groups")]
    PeerGroup,
    /// A BGP neighbour.
    #[value(alias = "peers")]
    Peer,
    /// An address that an interface of this host is to have.
    #[value(alias = "addresses")]
    Address,
    /// A route beside those of BGP.
    #[value(alias = "static-routes")]
    StaticRoute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only, such as vip/web.
    Name,
}
