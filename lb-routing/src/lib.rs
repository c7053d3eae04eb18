//! The router of lbd: sockets, timers and netlink around the pure parts in `lb-routing-proto`.
//!
//! ```text
//!            connections ─┐                       ┌─▶ connections
//!   kernel ─▶ watcher ────┼─▶ router task ────────┼─▶ installer ─▶ kernel (routes of ours)
//!   RouterHandle ─────────┘   Speaker, Fib, Plan  └─▶ FibBatch ─▶ dataplane
//! ```
//!
//! One task owns the state and never waits for a neighbour, the kernel or the dataplane: what they have
//! not taken yet stays as a mark in the tables, so every channel is bounded and short.

mod addresses;
mod convergence;
mod kernel;
mod ledger;
mod plan;
mod router;
mod tcp;
mod transport;

pub use lb_routing_proto::config::{
    BeyondLimit, ConfigError, Decision, Export, Import, Listen, ListenError, MAX_DYNAMIC,
    MaxPrefixes, PeerConfig, SpeakerConfig,
};
pub use lb_routing_proto::fib::{
    Action, Controller, Install, KernelNextHop, KernelRouteKind, Link, Member, Source, StaticKind,
    StaticNextHop, Told, ToldGroup, ToldRoute, Update, Vlan,
};
pub use lb_routing_proto::policy;
pub use lb_routing_proto::speaker::{
    Clear, Destination, Explanation, Hearer, ListenStatus, Messages, PathKey, PathStatus,
    PeerStatus, Query, State, Table,
};
pub use lb_routing_proto::wire::{AsPath, Attributes, Family, Origin};

pub use self::addresses::{AddressState, InterfaceAddress};
pub use self::kernel::{
    KernelAnswer, KernelError, Neighbours, OWN_METRIC, RTPROT_LBD, ask, cleanup, default_router_id,
    kernel_routes, neighbours,
};
pub use self::router::{
    ConfigureError, FibBatch, Peers, RouterConfig, RouterHandle, RouterTable, SpawnError,
    StaticRoute, StaticRouteStatus, Statics, StaticsStatus, Stray, Whole, spawn,
};
pub use self::transport::{Md5Key, Md5KeyError, Reach, SEND_HOLD_TIME, Transport};
