//! BGP neighbours, alone and in groups, as the operator asks for them.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::policy::{Family, Install, Policies};
use crate::resource::{Metadata, NamedStatus, Tags};
use crate::view::PeerView;

/// A BGP neighbour of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BgpPeer {
    /// A name for people; the address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its labels and its owner.
    #[serde(flatten)]
    pub tags: Tags,
    /// What is asked for.
    #[serde(flatten)]
    pub spec: PeerSpec,
}

/// A BGP neighbour (`/api/v1/bgp/peers`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Peer {
    /// Its name; of one of the file that has none, its address.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: PeerSpec,
    /// Its session; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PeerView>,
}

/// Options of neighbours (`/api/v1/bgp/peer-groups`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    /// Its name.
    pub metadata: Metadata,
    /// What its neighbours have where they do not say their own.
    pub spec: PeerOptions,
    /// Who names it; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NamedStatus>,
}

/// What is asked for of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerSpec {
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: IpAddr,
    /// The group whose options it has, where it does not say its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it says itself.
    #[serde(flatten)]
    pub options: PeerOptions,
}

/// A group of the file: options that neighbours have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PeerGroup {
    /// Its name.
    pub name: String,
    /// Its labels and its owner.
    #[serde(flatten)]
    pub tags: Tags,
    /// Its options.
    #[serde(flatten)]
    pub options: PeerOptions,
}

/// How many prefixes a neighbour may tell, of all families together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MaxPrefixes {
    /// So many are fine.
    pub limit: u32,
    /// From so many percent of the limit on a warning is logged, 1 to 100; 75 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn_percent: Option<u8>,
    /// What happens beyond the limit; `end` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<BeyondLimit>,
    /// When a session that ended begins again; when somebody clears it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_secs: Option<u32>,
}

/// What happens when a neighbour tells more prefixes than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum BeyondLimit {
    /// The session ends with Cease / Maximum Number of Prefixes Reached (RFC 4486).
    End,
    /// It is logged, and they are taken.
    Warn,
    /// It is logged, and they are not taken.
    Discard,
}

/// An AS number, or a range of them: `65001` or `65100-65199`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "NumberOrText")]
pub struct AsRange {
    /// The lowest one.
    pub first: u32,
    /// The highest one.
    pub last: u32,
}

/// An AS number, or a range of them: `65001` or `65100-65199`.
#[derive(Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = AsRange))]
#[serde(untagged)]
enum NumberOrText {
    /// A number.
    Number(u32),
    /// A range, or a number as text.
    Text(String),
}

impl TryFrom<NumberOrText> for AsRange {
    type Error = String;

    fn try_from(from: NumberOrText) -> Result<Self, String> {
        match from {
            NumberOrText::Number(number) => Ok(Self { first: number, last: number }),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for AsRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        let (first, last) = range.ok_or_else(|| {
            format!("`{text}` is no AS number such as 65001, nor a range such as 65100-65199")
        })?;
        Ok(Self { first, last })
    }
}

impl From<AsRange> for String {
    fn from(range: AsRange) -> Self {
        range.to_string()
    }
}

impl Display for AsRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { first, last } if first == last => write!(formatter, "{first}"),
            Self { first, last } => write!(formatter, "{first}-{last}"),
        }
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What may be said of a neighbour, or of those of a group.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(default)]
        pub struct PeerOptions {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl PeerOptions {
            /// The fields' names.
            pub const FIELDS: &[&str] = &[$(stringify!($field),)*];

            /// These where they say something, otherwise those.
            #[must_use]
            pub fn over(&self, those: &Self) -> Self {
                Self { $($field: self.$field.clone().or_else(|| those.$field.clone()),)* }
            }
        }
    };
}

options! {
    /// Its AS number; ours makes the session iBGP.
    asn: u32,
    /// Its port; 179 by default.
    port: u16,
    /// The address that we connect from.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    source: IpAddr,
    /// Wait for the neighbour to connect.
    passive: bool,
    /// How many hops away it is: our packets' time to live; 1 by default where it is in another AS.
    multihop: u8,
    /// GTSM (RFC 5082): its packets have to come from so many hops away at most. It has to do the same.
    gtsm_hops: u8,
    /// A file with the key of TCP MD5 signatures (RFC 2385): one line of 1 to 80 characters. Another one
    /// in the file is taken within seconds, in a new session.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    md5_key_file: PathBuf,
    /// How long sent data may stay unacknowledged before the connection ends; the kernel's choice by default.
    tcp_user_timeout_secs: u16,
    /// How long it may take nothing of what we send (RFC 9687); 480 s by default, and twice the hold time at least.
    send_hold_time_secs: u16,
    /// Hold time that we propose: 0, or 3 to 65535 seconds; 90 by default.
    hold_time_secs: u16,
    /// Delay before another connect; 5 s by default.
    connect_retry_secs: u16,
    /// Time between two KEEPALIVEs; a third of the hold time by default, and at most.
    keepalive_secs: u16,
    /// How long its OPEN is waited for before ours is sent, 0 to 240 s; 0 by default.
    delay_open_secs: u16,
    /// How long the session rests after a first failure, 1 to 120 s; 1 by default, and twice as long with each.
    idle_hold_secs: u16,
    /// Changes of routes are told no more often, 0 to 600 s; 0 by default: at once.
    advertisement_interval_secs: u16,
    /// Families that are spoken with it; both by default, of which it speaks what it knows.
    families: Vec<Family>,
    /// Keep its routes while it restarts, and have it keep ours (RFC 4724, RFC 8538); true by default.
    graceful_restart: bool,
    /// How long we may take to come back, for which it keeps our routes: 1 to 4095 s, 120 by default. A node that dies
    /// for good gets traffic for so long.
    restart_time_secs: u16,
    /// Policies that say what is accepted from it; nothing by default (RFC 8212).
    import: Policies,
    /// Policies that say what is advertised to it; nothing by default (RFC 8212).
    export: Policies,
    /// Which tables have its routes, where its import policies don't say: `both` by default, `dataplane` or `kernel`.
    install: Install,
    /// Advertise ourselves as next hop also of routes learned from other neighbours.
    next_hop_self: bool,
    /// Reflect our AS's routes to it, and its to our AS (RFC 4456): it is in our AS, and need not know the others there.
    route_reflector_client: bool,
    /// Take several paths of a prefix from it (RFC 7911), 64 at most.
    add_path_receive: bool,
    /// How many paths of a prefix it is told at most (RFC 7911), the best ones, its own among them: 1 to 64. Only the best one
    /// by default.
    add_path_send: u8,
    /// Prefixes from which neighbours of a group may come without being named, each with the group's options: they connect, we
    /// never do. Only in a group.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    listen_ranges: Vec<IpNetwork>,
    /// How many of them there may be at the same time, 1 to 4096; 100 by default. Beyond, connections are refused.
    listen_limit: u16,
    /// AS numbers that they may have besides `asn`, if that is said: numbers and ranges (`65100-65199`), 64 at most. Each has
    /// the one that its OPEN says; with another one it is refused. Only in a group.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<NumberOrText>>))]
    listen_asns: Vec<AsRange>,
    /// Keep what import does not accept, so that it can be shown as received: a million paths at most, some 100 octets each.
    keep_rejected: bool,
    /// How many prefixes it may tell that import accepts; 4,000,000 by default.
    max_prefixes: MaxPrefixes,
    /// Our AS number in its eyes, where it is not `bgp.asn`.
    local_as: u32,
    /// Take private AS numbers (RFC 6996) out of the paths that it is told, if it is in another AS.
    remove_private_as: bool,
    /// How often our own AS may stand in a path from it, 0 to 10; 0 by default: such a path is a loop.
    allow_as_in: u8,
    /// Withdraw routes from it whose path has an AS_SET (RFC 9774).
    reject_as_set: bool,
    /// Have no session with it.
    shutdown: bool,
    /// What it is told when it is shut down (RFC 9003), 255 octets at most.
    shutdown_message: String,
    /// Tell it that our routes will go soon, so that it takes others (RFC 8326).
    graceful_shutdown: bool,
}

impl PeerSpec {
    /// What holds for it: its own options over its group's.
    #[must_use]
    pub fn effective(&self, groups: &[PeerGroup]) -> PeerOptions {
        let name = self.group.as_deref();
        let group = groups.iter().find(|group| Some(group.name.as_str()) == name);
        group.map_or_else(|| self.options.clone(), |group| self.options.over(&group.options))
    }
}

impl BgpPeer {
    /// How people call it.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.spec.address.to_string())
    }
}

impl PeerOptions {
    /// Hold time that we propose.
    #[must_use]
    pub fn hold_time_secs(&self) -> u16 {
        self.hold_time_secs.unwrap_or(90)
    }

    /// RFC 9687 §3: longer than the hold time, which ends the session of a neighbour that also says nothing.
    #[must_use]
    pub fn send_hold_time_secs(&self) -> u16 {
        let usual = self.hold_time_secs().saturating_mul(2).max(480);
        self.send_hold_time_secs.unwrap_or(usual)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(179)
    }

    /// How long we may take to come back; `None`: there is no graceful restart.
    #[must_use]
    pub fn restart_time_secs(&self) -> Option<u16> {
        self.graceful_restart.unwrap_or(true).then(|| self.restart_time_secs.unwrap_or(120))
    }

    /// How many neighbours may come from `listen_ranges`.
    #[must_use]
    pub fn listen_limit(&self) -> u16 {
        self.listen_limit.unwrap_or(100)
    }

    /// Delay before another connect.
    #[must_use]
    pub fn connect_retry_secs(&self) -> u16 {
        self.connect_retry_secs.unwrap_or(5)
    }
}
