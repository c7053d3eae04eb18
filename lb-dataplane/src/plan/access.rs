//! Who may begin flows of which service: the prefixes in `ACCESS`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_dataplane_common::family::{Family, V6};
use lb_dataplane_common::service::{AccessKey, SERVICE_ADMITS_LISTED, SERVICE_REFUSES_LISTED};

use super::entries::bytes;
use super::{PlanError, Step};
use crate::table::Access;

/// A prefix as `ACCESS` has it: its length in bits, and what it is of.
pub type Prefix = (u32, AccessKey);

/// Bits of a key before the address, and those of an IPv6 address before a mapped one of IPv4.
const SERVICE_BITS: u32 = 32;
const MAPPED_BITS: u32 = 96;

/// The prefixes of a service, with what they say.
pub(super) type Prefixes = BTreeMap<Prefix, bool>;

pub(super) fn prefixes(service: u32, access: &[Access]) -> Prefixes {
    let prefix = |access: &Access| {
        let mapped = match access.prefix.ip() {
            IpAddr::V4(_) => MAPPED_BITS,
            IpAddr::V6(_) => 0,
        };
        let client = V6::from_bytes(bytes(access.prefix.network()));
        let bits = SERVICE_BITS + mapped + u32::from(access.prefix.prefix());
        ((bits, AccessKey { service, client }), access.is_admitted)
    };
    access.iter().map(prefix).collect()
}

/// What the service's entry says.
pub(super) fn flags(prefixes: &Prefixes) -> u8 {
    let has = |wanted| prefixes.values().any(|is_admitted| *is_admitted == wanted);
    let (admits, refuses) = (has(true), has(false));
    (if admits { SERVICE_ADMITS_LISTED } else { 0 })
        | if refuses { SERVICE_REFUSES_LISTED } else { 0 }
}

/// Writes what is not there; what goes is removed behind the service's new entry, by [`remove`].
pub(super) fn write(
    old: &Prefixes,
    new: &Prefixes,
    (in_use, limit): (&mut usize, u32),
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    for (prefix, is_admitted) in new {
        if old.get(prefix) != Some(is_admitted) {
            *in_use += usize::from(!old.contains_key(prefix));
            steps.push(Step::PutAccess { prefix: *prefix, is_admitted: *is_admitted });
        }
    }
    if *in_use > limit as usize { Err(PlanError::AccessFull(limit)) } else { Ok(()) }
}

pub(super) fn remove(old: &Prefixes, new: &Prefixes, in_use: &mut usize, steps: &mut Vec<Step>) {
    for prefix in old.keys().filter(|prefix| !new.contains_key(*prefix)) {
        *in_use = in_use.saturating_sub(1);
        steps.push(Step::RemoveAccess { prefix: *prefix });
    }
}
