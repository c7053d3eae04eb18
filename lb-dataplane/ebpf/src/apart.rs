//! What the verifier reads by itself, once, and not once for each way that leads there: functions that are seen from outside, of
//! which it knows no more than the types (kernel 5.6 and later).
//!
//! They return numbers, since the verifier asks for that, and are given nothing but numbers and memory, which may be missing as
//! far as it knows.

use lb_dataplane_common::choose;
use lb_dataplane_common::family::{V4, V6};
use lb_dataplane_common::flow::FlowKey;
use lb_dataplane_common::pipeline::{self, Scratch};
use lb_dataplane_common::service::ServiceEntry;

use crate::maps::Maps;

/// The functions of a family, and how they are called.
macro_rules! apart {
    ($module:ident, $family:ty, $find_way:ident, $not_itself:ident) => {
        pub mod $module {
            use super::*;

            #[inline(always)]
            pub fn find_way(scratch: &mut Scratch<$family>) {
                $find_way(scratch);
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

apart!(v4, V4, find_way_v4, not_itself_v4);
apart!(v6, V6, find_way_v6, not_itself_v6);
