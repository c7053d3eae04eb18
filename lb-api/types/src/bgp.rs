//! What BGP has in common for all neighbours.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::Decision;
use crate::resource::{Condition, Metadata};
use crate::view::ListenView;

/// What BGP has in common for all neighbours (`/api/v1/bgp/global`). There is one, with the name `global`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Global {
    /// Its name: `global`.
    pub metadata: Metadata,
    /// What the operator asks for.
    pub spec: GlobalSpec,
    /// What holds now; ignored in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<GlobalStatus>,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What is asked of BGP as a whole. What the configuration file says, only the file changes.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields, default)]
        pub struct GlobalSpec {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl GlobalSpec {
            /// The fields' names.
            pub const FIELDS: &[&str] = &[$(stringify!($field),)*];

            /// These where they say something, otherwise those.
            #[must_use]
            pub fn over(self, those: Self) -> Self {
                Self { $($field: self.$field.or(those.$field),)* }
            }

            /// The first field of which both say something else, and what this one says.
            #[must_use]
            pub fn differs(self, other: Self) -> Option<(&'static str, String)> {
                $(if let (Some(a), Some(b)) = (self.$field, other.$field) && a != b {
                    let said = serde_json::to_string(&a).unwrap_or_default();
                    return Some((stringify!($field), said.trim_matches('"').to_owned()));
                })*
                None
            }
        }
    };
}

fields! {
    /// Our AS number; 64512 by default. Another one ends every session, and each begins anew.
    asn: u32,
    /// BGP identifier; by default the highest IPv4 address of this host's interfaces. Another one ends every session, and
    /// each begins anew.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    router_id: Ipv4Addr,
    /// The cluster that we reflect routes for (RFC 4456), where it has several reflectors: they all name the same one. Our
    /// identifier by default. Another one ends every session, and each begins anew.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    cluster_id: Ipv4Addr,
    /// How the best path is found, and how many carry traffic together. Changes while sessions go on.
    decision: Decision,
    /// Where sessions are accepted; `0.0.0.0:179` by default, which is every address of either family. Changes while sessions
    /// go on.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    listen: SocketAddr,
}

impl GlobalSpec {
    /// Our AS number.
    #[must_use]
    pub fn asn(self) -> u32 {
        self.asn.unwrap_or(64512)
    }

    /// Where sessions are accepted.
    #[must_use]
    pub fn listen(self) -> SocketAddr {
        self.listen.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 179))
    }

    /// How the best path is found.
    #[must_use]
    pub fn decision(self) -> Decision {
        self.decision.unwrap_or_default()
    }
}

/// What holds of BGP as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GlobalStatus {
    /// `Established`: whether every session that is to be there is.
    pub conditions: Vec<Condition>,
    /// Our AS number.
    pub asn: u32,
    /// BGP identifier in use.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub router_id: Ipv4Addr,
    /// The cluster that we reflect routes for.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cluster_id: Ipv4Addr,
    /// How the best path is found, and how many carry traffic together.
    pub decision: Decision,
    /// Where sessions are accepted.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub listen: SocketAddr,
    /// How many neighbours there are.
    pub peers: usize,
    /// How many of the sessions are Established.
    pub established: usize,
    /// Who may come without being named, and how many have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listening: Vec<ListenView>,
}
