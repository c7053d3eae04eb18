//! The eBPF dataplane: loads and pins the programs, and writes the tables that they read.

mod announcement;
mod dataplane;
mod error;
pub mod fib;
pub mod flow_table;
mod held;
pub mod host;
mod icmp;
mod layout;
mod link;
pub mod maglev;
pub mod mapped;
mod names;
pub mod owners;
mod pins;
pub mod plan;
mod pod;
mod reset;
#[cfg(test)]
mod stack;
mod sys;
pub mod table;

pub use announcement::Announcer;
pub use dataplane::{
    AGE_BATCH, AgePart, Aged, Attached, BackendCount, ClientPrefixes, Dataplane, EarlyFragments,
    Flow, FlowEnd, FlowEvent, FlowEvents, FlowFilter, FlowPlace, FlowState, Hook, HookChoice,
    HowEnded, Load, Loaded, Options, Passed, Placed, Punts, ReasonCount, ServiceCount,
    ServiceCounters, Sizes, Vlan, XdpMode, clean, cramped,
};
pub use error::{ApplyError, AttachError, OpenError, ReadError};
pub use held::{HeldCounts, Link, SentOn};
pub use icmp::Answer;
pub use lb_dataplane_common::flow::{Timeouts, seconds};
pub use lb_dataplane_common::reason::{Contract, Kind, Reason};
pub use lb_dataplane_common::tables::{MAX_ANSWERS, Record};
pub use lb_dataplane_common::vlan::MAX_VLANS;
pub use names::is_named;
pub use pins::mount_bpffs;
pub use plan::MAX_BACKENDS_PER_SERVICE;
