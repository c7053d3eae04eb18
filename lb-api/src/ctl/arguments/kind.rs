//! What the verbs are about: every kind of resource, once.

use std::ffi::OsStr;

use clap::ValueEnum;
use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};

use crate::resources;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::ctl) enum Kind {
    /// Virtual IP services.
    #[value(alias = "vip")]
    Vips,
    /// Backends of VIPs; one is called VIP/ADDRESS:PORT.
    #[value(alias = "backend")]
    Backends,
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
    /// What BGP has in common for all neighbours.
    #[value(alias = "global")]
    BgpGlobal,
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
    /// The configuration as a whole: what was made over REST, and what the file says.
    #[value(alias = "configuration")]
    Config,
    /// What happened lately.
    #[value(alias = "event")]
    Events,
    /// The daemon's version.
    Version,
}

/// A kind, and the name where it stands behind it: `vips`, `vip/web`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ctl) struct KindWord {
    pub(in crate::ctl) kind: Kind,
    pub(in crate::ctl) name: Option<String>,
}

/// Reads both, and offers the kinds that a verb is about: what is said of another one says why it is not.
#[derive(Clone)]
pub(super) struct KindWords(pub(super) fn(Kind) -> bool);

impl TypedValueParser for KindWords {
    type Value = KindWord;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<KindWord, clap::Error> {
        let text = value.to_string_lossy();
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() => (kind, Some(name.to_owned())),
            Some(_) | None => (&*text, None),
        };
        let kinds = EnumValueParser::<Kind>::new();
        let kind = kinds.parse_ref(command, argument, OsStr::new(kind))?;
        Ok(KindWord { kind, name })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let kinds = Kind::value_variants().iter().filter(|kind| (self.0)(**kind));
        Some(Box::new(kinds.filter_map(ValueEnum::to_possible_value)))
    }
}

/// Who has the resources of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ctl) enum Home {
    /// They are VIPs, or another kind that is made, changed and removed.
    Kept(Option<resources::Kind>),
    /// They are parts of VIPs.
    Backends,
    /// They are made and removed, and never changed.
    Tokens,
    /// They are only seen: the path below `/api/v1/`.
    Seen(&'static str),
}

impl Kind {
    pub(in crate::ctl) fn home(self) -> Home {
        use resources::Kind as Of;
        match self {
            Self::Vips => Home::Kept(None),
            Self::Pools => Home::Kept(Some(Of::Pool)),
            Self::HealthChecks => Home::Kept(Some(Of::HealthCheck)),
            Self::Nodes => Home::Kept(Some(Of::Node)),
            Self::BgpGlobal => Home::Kept(Some(Of::BgpGlobal)),
            Self::Sets => Home::Kept(Some(Of::Set)),
            Self::Policies => Home::Kept(Some(Of::Policy)),
            Self::PeerGroups => Home::Kept(Some(Of::PeerGroup)),
            Self::Peers => Home::Kept(Some(Of::Peer)),
            Self::Addresses => Home::Kept(Some(Of::Address)),
            Self::StaticRoutes => Home::Kept(Some(Of::StaticRoute)),
            Self::Backends => Home::Backends,
            Self::Tokens => Home::Tokens,
            Self::Interfaces => Home::Seen("interfaces"),
            Self::Routes => Home::Seen("bgp/routes"),
            Self::Fib => Home::Seen("fib"),
            Self::Flows => Home::Seen("flows"),
            Self::Status => Home::Seen("status"),
            Self::Config => Home::Seen("config"),
            Self::Events => Home::Seen("events"),
            Self::Version => Home::Seen("version"),
        }
    }

    /// Whether operators change those of the kind.
    pub(super) fn is_changed(self) -> bool {
        matches!(self.home(), Home::Kept(_) | Home::Backends)
    }

    /// Whether operators remove those of the kind.
    pub(super) fn is_removed(self) -> bool {
        self.is_changed() || self.home() == Home::Tokens
    }

    /// The name of the only one, where there is one.
    pub(in crate::ctl) fn only(self) -> Option<&'static str> {
        match self.home() {
            Home::Seen("status") => Some(resources::LOCAL),
            Home::Seen("config") => Some("running"),
            Home::Seen("version") => Some("lbd"),
            Home::Kept(of) => of.and_then(resources::Kind::only),
            Home::Seen(_) | Home::Backends | Home::Tokens => None,
        }
    }

    /// One of them in one word, as `-o name` writes it.
    pub(in crate::ctl) fn noun(self) -> String {
        match self.home() {
            Home::Kept(kind) => kind.map_or_else(|| "vip".into(), resources::Kind::noun),
            Home::Backends => "backend".into(),
            Home::Tokens => "token".into(),
            Home::Seen("interfaces") => "interface".into(),
            Home::Seen("bgp/routes") => "route".into(),
            Home::Seen("flows") => "flow".into(),
            Home::Seen("events") => "event".into(),
            Home::Seen(path) => path.into(),
        }
    }
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
