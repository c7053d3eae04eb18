//! What the verifier reads by itself, once, and not once for each way that leads there: functions that are seen from outside, of
//! which it knows no more than the types (kernel 5.6 and later).
//!
//! They return numbers, since the verifier asks for that, and are given nothing but numbers and memory, which may be missing as
//! far as it knows.

use lb_dataplane_common::choose;
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::{self, FlowEntry, FlowKey, STATE_CLIENT_COUNTED};
use lb_dataplane_common::pipeline::{self, Scratch};
use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::service::ServiceEntry;

use crate::flow_ptr::FlowPtr;
use crate::maps::Maps;

/// The functions of a family, and how they are called.
macro_rules! apart {
    ($module:ident, $family:ty, $find_way:ident, $hear:ident, $hear_anew:ident, $not_itself:ident) => {
        pub mod $module {
            use super::*;

            #[inline(always)]
            pub fn find_way(scratch: &mut Scratch<$family>) {
                $find_way(scratch);
            }

            #[inline(always)]
            pub fn hear(scratch: &mut Scratch<$family>) -> Result<(), Reason> {
                as_result($hear(scratch))
            }

            #[inline(always)]
            pub fn hear_anew(scratch: &mut Scratch<$family>) -> Result<(), Reason> {
                as_result($hear_anew(scratch))
            }

            #[inline(always)]
            pub fn not_itself(service: &ServiceEntry, key: &FlowKey<$family>, chosen: u32) -> u32 {
                $not_itself(service, key, chosen)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $find_way(scratch: *mut Scratch<$family>) -> u32 {
                // SAFETY: the caller's, this CPU's only reference to it.
                if let Some(scratch) = unsafe { scratch.as_mut() } {
                    pipeline::find_way(&Maps, scratch);
                }
                0
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $hear(scratch: *mut Scratch<$family>) -> u32 {
                // SAFETY: the caller's, this CPU's only reference to it.
                match unsafe { scratch.as_mut() } {
                    Some(scratch) => either(pipeline::hear(&Maps, scratch)),
                    None => Reason::TableFault as u32,
                }
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $hear_anew(scratch: *mut Scratch<$family>) -> u32 {
                // SAFETY: the caller's, this CPU's only reference to it.
                match unsafe { scratch.as_mut() } {
                    Some(scratch) => either(pipeline::hear_anew(&Maps, scratch)),
                    None => Reason::TableFault as u32,
                }
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $not_itself(
                service: *const ServiceEntry,
                key: *const FlowKey<$family>,
                chosen: u32,
            ) -> u32 {
                // SAFETY: the caller's references.
                match unsafe { (service.as_ref(), key.as_ref()) } {
                    (Some(service), Some(key)) => choose::not_itself(&Maps, service, key, chosen),
                    (_, _) => chosen,
                }
            }
        }
    };
}

/// Whether there is room for a flow, and what its state is to say.
#[inline(always)]
pub fn admit(key: &FlowKey<V6>, to_backend: &FlowPtr, bits: u32) -> Result<u32, Reason> {
    let (at, seen) = to_backend.parts();
    match admit_flow(key, at, seen, bits) {
        COUNTS_CLIENT => Ok(STATE_CLIENT_COUNTED),
        number => as_result(number).map(|()| 0),
    }
}

/// Counts a flow in.
#[inline(always)]
pub fn count_in(key: &FlowKey<V6>, to_backend: &FlowPtr, bits: u32) -> Result<(), Reason> {
    let (at, seen) = to_backend.parts();
    as_result(count_flow_in(key, at, seen, bits))
}

/// From how a subprogram ended: the number of a reason, or 0, which is none that anything ends for.
#[inline(always)]
fn as_result(number: u32) -> Result<(), Reason> {
    match number {
        0 => Ok(()),
        _ => Err(Reason::from_index(number).unwrap_or(Reason::TableFault)),
    }
}

/// Where a client's flows are bounded, in the place of a reason's number.
const COUNTS_CLIENT: u32 = u32::MAX;

/// Counts a flow out; not zero if that was to be done.
#[inline(always)]
pub fn count_out(key: &FlowKey<V6>, to_backend: &FlowPtr, said: u32, is_silent: bool) -> u32 {
    let (at, seen) = to_backend.parts();
    count_flow_out(key, at, seen, said, u32::from(is_silent))
}

/// What a client's SYN means for its flow.
#[inline(always)]
pub fn asked_anew(to_backend: &FlowPtr, protocol: u8) -> u32 {
    let (at, seen) = to_backend.parts();
    asked_flow_anew(at, seen, protocol.into())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn asked_flow_anew(at: *mut FlowEntry, seen: u32, protocol: u32) -> u32 {
    if at.is_null() {
        return 0;
    }
    pipeline::asked_anew(&Maps, &FlowPtr::from_parts(at, seen), protocol as u8)
}

/// Has a flow begin again.
#[inline(always)]
pub fn reopen(key: &FlowKey<V6>, to_backend: &FlowPtr) -> Result<(), Reason> {
    let (at, seen) = to_backend.parts();
    as_result(reopen_flow(key, at, seen))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reopen_flow(key: *const FlowKey<V6>, at: *mut FlowEntry, seen: u32) -> u32 {
    if at.is_null() {
        return Reason::TableFault as u32;
    }
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else { return Reason::TableFault as u32 };
    either(flow::reopen(&Maps, key, &FlowPtr::from_parts(at, seen)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit_flow(key: *const FlowKey<V6>, at: *mut FlowEntry, seen: u32, bits: u32) -> u32 {
    if at.is_null() {
        return Reason::TableFault as u32;
    }
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return Reason::TableFault as u32;
    };
    match flow::admit(&Maps, key, &FlowPtr::from_parts(at, seen), bits) {
        Ok(0) => 0,
        Ok(_) => COUNTS_CLIENT,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_flow_in(
    key: *const FlowKey<V6>,
    at: *mut FlowEntry,
    seen: u32,
    bits: u32,
) -> u32 {
    if at.is_null() {
        return Reason::TableFault as u32;
    }
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else { return Reason::TableFault as u32 };
    either(flow::count_in(&Maps, key, &FlowPtr::from_parts(at, seen), bits))
}

#[inline(always)]
fn either(ended: Result<(), Reason>) -> u32 {
    match ended {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_flow_out(
    key: *const FlowKey<V6>,
    at: *mut FlowEntry,
    seen: u32,
    said: u32,
    is_silent: u32,
) -> u32 {
    if at.is_null() {
        return 0;
    }
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    flow::count_out(&Maps, key, &FlowPtr::from_parts(at, seen), said, is_silent != 0)
}

apart!(v4, V4, find_way_v4, hear_v4, hear_anew_v4, not_itself_v4);
apart!(v6, V6, find_way_v6, hear_v6, hear_anew_v6, not_itself_v6);
