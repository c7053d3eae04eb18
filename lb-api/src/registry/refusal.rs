//! Why a change is refused, in one sentence each with what to do.

use std::net::{IpAddr, SocketAddr};

use crate::resources::Misfit;
use crate::vip::MAX_VIPS;

/// Why a change is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none of this name.
    #[error("there is no {0}")]
    Unknown(String),
    /// It is the file's.
    #[error(
        "{0} comes from the configuration file, and only the file can change it: edit the file and restart lbd"
    )]
    FromFile(String),
    /// A request has the name more than once.
    #[error("{0} is there twice: leave one of the two out")]
    Twice(String),
    /// Another VIP has a port of it at the same address, with the same protocol.
    #[error(
        "VIP {other} has {what} at {address} already: choose another address or port, or change VIP {other}"
    )]
    Duplicate {
        /// The other one.
        other: String,
        /// The address of both.
        address: IpAddr,
        /// The other one's ports, with the protocol of both.
        what: String,
    },
    /// Another VIP has a backend of it, which one of both is to have alone.
    #[error(
        "VIP {other} has the backend {backend}, too, and one of both has `full_table: hash`, for which what comes from there must be its \
         answer alone: use `full_table: drop`, another backend or another port"
    )]
    NotAlone {
        /// The other one.
        other: String,
        /// The backend of both.
        backend: SocketAddr,
    },
    /// It is not what the request expects to be there.
    #[error(
        "{name} has revision {found}, not {expected}: somebody else changed it; read it again and repeat the change"
    )]
    Stale {
        /// What it is: `VIP web`.
        name: String,
        /// Its revision.
        found: u64,
        /// What the request says.
        expected: u64,
    },
    /// The request says that it has to be new.
    #[error("there is a {0} already, and the request asks for a new one: choose another name")]
    Exists(String),
    /// The request says that it has to be there.
    #[error("there is no {0}, and the request only changes one that is there: read the list again")]
    Gone(String),
    /// No room.
    #[error("there would be {0} VIPs, and {MAX_VIPS} are the most: remove some first")]
    TooMany(usize),
    /// No room for one of a kind.
    #[error(
        "there would be more than {1} of the kind {0}, and those are the most: remove some first"
    )]
    TooManyOf(&'static str, usize),
    /// A VIP names what is not there.
    #[error("VIP {name} names {what}, which is not there: create it first, or name another")]
    Missing {
        /// The VIP.
        name: String,
        /// The field that names it.
        field: &'static str,
        /// What it names: `pool internal`.
        what: String,
    },
    /// A VIP has another address than its pool gives.
    #[error(
        "VIP {name} asks for {address}, which is not of pool {pool}: leave the address out, or name no pool"
    )]
    NotOfPool {
        /// The VIP.
        name: String,
        /// Its address.
        address: IpAddr,
        /// Its pool.
        pool: String,
    },
    /// A pool has nothing to give.
    #[error("pool {pool} has no free {family} address: add addresses to it, or remove VIPs")]
    Exhausted {
        /// The pool.
        pool: String,
        /// What is asked for.
        family: &'static str,
    },
    /// With the address that it was given, a field is wrong.
    #[error("{message}")]
    Wrong {
        /// The field, as a JSON pointer.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// It is named by another one.
    #[error("{what} is named by {by}: change that first")]
    InUse {
        /// What it is.
        what: String,
        /// The other one: `VIP web`.
        by: String,
    },
    /// A VIP has an address that a pool would lose.
    #[error(
        "{pool} would lose {address}, which VIP {by} has: remove that VIP first, or leave the address in"
    )]
    AddressInUse {
        /// The pool.
        pool: String,
        /// The address.
        address: IpAddr,
        /// The VIP.
        by: String,
    },
    /// The dataplane cannot serve it.
    #[error("the dataplane refuses: {0}")]
    Dataplane(String),
    /// It cannot be written; nothing was tried.
    #[error("the change cannot be kept: {0}; free or repair the disk")]
    NotWritten(String),
    /// It was written, but cannot take the old one's place.
    #[error("the change cannot be kept: {0}; repair the disk")]
    Store(String),
    /// An applied configuration waits to be confirmed.
    #[error(
        "a configuration waits to be confirmed, and is rolled back in {0} s: confirm it or roll it back first (`lbctl config confirm` or `rollback`)"
    )]
    Unconfirmed(u32),
    /// There is nothing to be confirmed.
    #[error("no configuration waits to be confirmed: it was confirmed or rolled back already")]
    NothingToConfirm,
    /// What is to be gone back to is not kept.
    #[error("{0} is kept to go back to: `lbctl config history` lists what is")]
    NoGeneration(String),
    /// The daemon ends.
    #[error("lbd is stopping: try again when it runs")]
    Stopping,
}

impl From<Misfit> for Refusal {
    fn from(Misfit { field, message, .. }: Misfit) -> Self {
        Self::Wrong { field, message }
    }
}
