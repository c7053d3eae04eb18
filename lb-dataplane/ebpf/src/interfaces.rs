//! What is known of the interfaces that packets come in through.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use lb_dataplane_common::reason::{INTERFACE_KNOWN, MAX_PLACED_IFINDEX};
use lb_dataplane_common::vlan::{MAX_VLANS, VlanKey};

/// Interfaces by their index, as `IFACES` has them: an array costs a packet less. The last word of those that are there has
/// `INTERFACE_KNOWN`; its rest is the place of what came in through it in `REASONS`, 0 for the one of all others.
#[map]
static NEAR_IFACES: Array<[u16; 4]> = Array::with_max_entries(MAX_PLACED_IFINDEX, 0);
/// MAC by interface index, for XDP, which nobody tells whether a frame is for this host; and its place in the counters.
#[map]
static IFACES: HashMap<u32, [u16; 4]> = HashMap::with_max_entries(1024 + MAX_VLANS, 0);

/// The interfaces of VLANs whose frames are handled where they come in, by link and tag.
#[map]
static VLANS: HashMap<VlanKey, u32> = HashMap::with_max_entries(MAX_VLANS, BPF_F_NO_PREALLOC);

/// The interface of a VLAN.
#[inline(always)]
pub fn vlan(key: &VlanKey) -> Option<u32> {
    let ifindex = VLANS.get_ptr(key)?;
    // SAFETY: what is replaced or removed meanwhile is another VLAN's at worst, but there.
    Some(unsafe { *ifindex })
}

/// The place of an interface in the counters.
#[inline(always)]
pub fn place(ifindex: u32) -> u32 {
    NEAR_IFACES.get(ifindex).map_or(0, |[.., place]| u32::from(place & !INTERFACE_KNOWN))
}

/// The MAC of an attached interface.
#[inline(always)]
pub fn mac(ifindex: u32) -> Option<[u16; 3]> {
    if let Some([a, b, c, place]) = NEAR_IFACES.get(ifindex)
        && place & INTERFACE_KNOWN != 0
    {
        return Some([*a, *b, *c]);
    }
    let entry = IFACES.get_ptr(ifindex)?;
    // SAFETY: what is replaced or removed meanwhile is another interface's at worst, but there.
    let [a, b, c, _] = unsafe { *entry };
    Some([a, b, c])
}
