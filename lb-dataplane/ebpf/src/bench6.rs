//! The benchmark's and tests' programs for IPv6, as those for IPv4 beside them.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_fib_lookup as FibParams, xdp_action,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::programs::XdpContext;
use lb_dataplane_common::fib::{Route, lookup_group4};
use lb_dataplane_common::fib6::lookup6;

use crate::fib_maps::{Fib, WIDE_WORDS, wide_word, word};
use crate::{EXPECTED, STATE, found};

/// Lookups in one run: a loop in a loop, so fewer, for the verifier.
const LOOKUPS: u32 = 16;

/// AF_INET6.
const AF_INET6: u8 = 10;

/// Destinations, both halves in host byte order, 256 pages: 65,536 of them.
#[map]
static DESTINATIONS6: Array<[u64; WIDE_WORDS]> = Array::with_max_entries(256, BPF_F_MMAPABLE);
/// Prefix to group, as `FIB6_NODES` has it.
#[map]
static TRIE6: LpmTrie<[u64; 2], u32> = LpmTrie::with_max_entries(2_000_000, BPF_F_NO_PREALLOC);

/// Nothing but the loop.
#[xdp]
pub fn empty6(_: XdpContext) -> u32 {
    walk(|_, expected| Some(expected))
}

/// The FIB's answers for the first destinations, written to `EXPECTED`.
#[xdp]
pub fn answer6(_: XdpContext) -> u32 {
    let Some(to) = EXPECTED.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    for place in 0..LOOKUPS {
        let Some(destination) = destination(place) else { return xdp_action::XDP_ABORTED };
        let answer = match lookup6(&Fib, destination, || destination[1] as u32) {
            Route::Forward(member) => found(&member),
            Route::Miss => 0,
            Route::Kernel => 1,
            Route::Blackhole | Route::NoRoom => 2,
        };
        // SAFETY: a word of the map's first page; one run at a time.
        unsafe { (*to)[place as usize] = answer };
    }
    xdp_action::XDP_PASS
}

/// The FIB: from the destination to the interface and both MACs.
#[xdp]
pub fn multibit6(_: XdpContext) -> u32 {
    walk(|destination, _| match lookup6(&Fib, destination, || destination[1] as u32) {
        Route::Forward(member) => Some(found(&member)),
        Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
    })
}

/// `LPM_TRIE` for the prefix, then the same groups and members.
#[xdp]
pub fn trie6(_: XdpContext) -> u32 {
    walk(|destination, _| {
        let group = TRIE6.get(&Key::new(128, destination.map(u64::to_be)))?;
        match lookup_group4(&Fib, *group, || destination[1] as u32) {
            Route::Forward(member) => Some(found(&member)),
            Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
        }
    })
}

/// The kernel's own lookup, neighbour included.
#[xdp]
pub fn kernel6(context: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map's value; user space wrote it before the run.
    let ifindex = unsafe { (*state)[2] };
    // SAFETY: zeroes are a valid value of this C struct.
    let mut params: FibParams = unsafe { core::mem::zeroed() };
    params.family = AF_INET6;
    params.__bindgen_anon_3.ipv6_src = [0xfd_u32.to_le(), 0, 0, 0x0200_0000];
    walk(|[high, low], _| {
        // Fields that the last answer overwrote.
        params.ifindex = ifindex;
        params.__bindgen_anon_1.tot_len = 0;
        params.__bindgen_anon_2.rt_metric = 0;
        params.__bindgen_anon_4.ipv6_dst =
            [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32].map(u32::to_be);
        let length = size_of::<FibParams>() as i32;
        // SAFETY: a helper call with this program's own context and a struct that outlives it.
        let result = unsafe { bpf_fib_lookup(context.as_ptr(), &mut params, length, 0) };
        let [_, _, a, b, c, d] = params.dmac;
        let [_, _, e, f, g, h] = params.smac;
        let source = u32::from_ne_bytes([e, f, g, h]);
        (result == 0).then(|| u32::from_ne_bytes([a, b, c, d]) ^ source ^ params.ifindex)
    })
}

#[inline(always)]
fn destination(place: u32) -> Option<[u64; 2]> {
    Some([wide_word(&DESTINATIONS6, place * 2)?, wide_word(&DESTINATIONS6, place * 2 + 1)?])
}

/// Looks up the next destinations and counts wrong answers.
#[inline(always)]
fn walk(mut lookup: impl FnMut([u64; 2], u32) -> Option<u32>) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map's value; one run at a time.
    let start = unsafe { (*state)[0] };
    let mut wrong = 0;
    // 64 bits: the verifier loses count of fewer in memory.
    for step in 0..u64::from(LOOKUPS) {
        let place = start.wrapping_add(step as u32) & 0xffff;
        let (Some(destination), Some(expected)) = (destination(place), word(&EXPECTED, place))
        else {
            return xdp_action::XDP_ABORTED;
        };
        if lookup(destination, expected) != Some(expected) {
            wrong += 1;
        }
    }
    // SAFETY: as above.
    unsafe {
        (*state)[0] = start.wrapping_add(LOOKUPS);
        (*state)[1] += wrong;
    }
    xdp_action::XDP_PASS
}
