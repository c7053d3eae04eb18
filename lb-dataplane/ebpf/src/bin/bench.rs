//! Programs that only benchmarks and tests load: many lookups in one run, around the FIB and around its peers, and
//! packets put back before the dataplane's own programs.
//!
//! `answer` writes down what the FIB says. Each of the others checks its answers and walks over the same destinations in
//! the same loop; `empty` does nothing in it, so what it costs is what the loop costs.

#![no_std]
#![no_main]

#[path = "../bench6.rs"]
mod bench6;
#[path = "../fib_maps.rs"]
mod fib_maps;
#[path = "bench/packets.rs"]
mod packets;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_fib_lookup as FibParams, xdp_action,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::programs::XdpContext;
use lb_dataplane_common::fib::{MemberEntry, Route, lookup_group4, lookup4};

use crate::fib_maps::{Fib, word};

/// Lookups in one run.
const LOOKUPS: u32 = 256;
const PAGE_WORDS: usize = lb_dataplane_common::service::PAGE_WORDS;
/// AF_INET.
const AF_INET: u8 = 2;

/// Destinations in host byte order, 64 pages: 65,536 of them.
#[map]
static DESTINATIONS: Array<[u32; PAGE_WORDS]> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// What each lookup is to find: the low word of the destination MAC.
#[map]
static EXPECTED: Array<[u32; PAGE_WORDS]> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Word 0: the next place in `DESTINATIONS`. Word 1: wrong lookups. Word 2: the interface that `kernel` asks for.
#[map]
static STATE: Array<[u32; 4]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Prefix to group, as `FIB4_L1` has it.
#[map]
static TRIE: LpmTrie<u32, u32> = LpmTrie::with_max_entries(2_000_000, BPF_F_NO_PREALLOC);

/// Nothing but the loop.
#[xdp]
pub fn empty(_: XdpContext) -> u32 {
    walk(|_, expected| Some(expected))
}

/// The FIB's answers for the first destinations, written to `EXPECTED`: for tests, which know what they should be.
#[xdp]
pub fn answer(_: XdpContext) -> u32 {
    let (Some(from), Some(to)) = (DESTINATIONS.get_ptr(0), EXPECTED.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    for place in 0..LOOKUPS as usize {
        // SAFETY: a word of the map's first page; user space wrote it before the run.
        let destination = unsafe { (*from)[place] };
        let answer = match lookup4(&Fib, destination, || destination) {
            Route::Forward(member) => found(&member),
            Route::Miss => 0,
            Route::Kernel => 1,
            Route::Blackhole | Route::NoRoom => 2,
        };
        // SAFETY: as above; one run at a time.
        unsafe { (*to)[place] = answer };
    }
    xdp_action::XDP_PASS
}

/// The FIB: from the destination to the interface and both MACs.
#[xdp]
pub fn dir(_: XdpContext) -> u32 {
    walk(|destination, _| match lookup4(&Fib, destination, || destination) {
        Route::Forward(member) => Some(found(&member)),
        Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
    })
}

/// `LPM_TRIE` for the prefix, then the same groups and members.
#[xdp]
pub fn trie(_: XdpContext) -> u32 {
    walk(|destination, _| {
        let group = TRIE.get(&Key::new(32, destination.to_be()))?;
        match lookup_group4(&Fib, *group, || destination) {
            Route::Forward(member) => Some(found(&member)),
            Route::Kernel | Route::Blackhole | Route::NoRoom | Route::Miss => None,
        }
    })
}

/// The kernel's own lookup, neighbour included.
#[xdp]
pub fn kernel(context: XdpContext) -> u32 {
    let Some(state) = STATE.get_ptr(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map's value; user space wrote it before the run.
    let ifindex = unsafe { (*state)[2] };
    // SAFETY: zeroes are a valid value of this C struct.
    let mut params: FibParams = unsafe { core::mem::zeroed() };
    params.family = AF_INET;
    params.__bindgen_anon_3.ipv4_src = 0x0100_000a;
    walk(|destination, _| {
        // Fields that the last answer overwrote.
        params.ifindex = ifindex;
        params.__bindgen_anon_1.tot_len = 0;
        params.__bindgen_anon_2.rt_metric = 0;
        params.__bindgen_anon_4.ipv4_dst = destination.to_be();
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
fn found(member: &MemberEntry) -> u32 {
    let [_, _, a, b, c, d] = member.destination_mac;
    let [_, _, e, f, g, h] = member.source_mac;
    u32::from_ne_bytes([a, b, c, d]) ^ u32::from_ne_bytes([e, f, g, h]) ^ member.ifindex
}

/// Looks up the next destinations and counts wrong answers.
#[inline(always)]
fn walk(mut lookup: impl FnMut(u32, u32) -> Option<u32>) -> u32 {
    let Some(state) = STATE.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: the map's value; one run at a time.
    let start = unsafe { (*state)[0] };
    let mut wrong = 0;
    for step in 0..LOOKUPS {
        let place = start.wrapping_add(step) & 0xffff;
        let (Some(destination), Some(expected)) =
            (word(&DESTINATIONS, place), word(&EXPECTED, place))
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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
