//! Packets that are put back before every repetition: a test run hands a program what the run before it left of the packet.
//!
//! `tc_restore` and `xdp_restore` write the next packet of `PACKETS` over the frame and go on, by tail call, with the
//! program under test. What they cost is measured with `tc_nothing` and `xdp_nothing` there.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action};
use aya_ebpf::helpers::generated::{bpf_skb_change_proto, bpf_xdp_adjust_head};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, HashMap, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use lb_dataplane_common::family::{self, Family as _, V4, V6};
use lb_dataplane_common::flow::FlowKey;
use lb_dataplane_common::hash::FlowHash;
use lb_dataplane_common::service::{BackendEntry, PAGE_WORDS, ServiceEntry, VipKey};

use crate::fib_maps::word;

/// 16-bit words of a packet: Ethernet, IPv4 and TCP without options.
const WORDS: usize = 27;
/// Words of the same with IPv6.
const WORDS6: usize = 37;
/// Words of a packet in `PACKETS`, a cache line each; an IPv6 packet takes two.
const SLOT: usize = 32;
/// Leaves the packet to the next program of the hook (`TCX_NEXT`).
const TCX_NEXT: i32 = -1;

/// Packets in the order in which they come.
#[map]
static PACKETS: Array<[u16; SLOT]> = Array::with_max_entries(64, BPF_F_MMAPABLE);
/// Word 0: the next packet's place. Word 1: how many places are taken; after the last one comes the first one again.
#[map]
static NEXT_PACKET: Array<[u32; 2]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// The program under test, at TC.
#[map]
static TC_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The program under test, at XDP.
#[map]
static XDP_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// The kernel's tables of as many entries as the dataplane's own have.
#[map]
static BARE: HashMap<FlowKey<V4>, [u64; 8]> = HashMap::with_max_entries(64, 0);
#[map]
static BARE6: HashMap<FlowKey<V6>, [u64; 8]> = HashMap::with_max_entries(64, 0);

/// The dataplane's own, where they are pinned.
#[map]
static SERVICES: HashMap<VipKey, ServiceEntry> = HashMap::with_max_entries(64, 0);
#[map]
static RINGS: Array<[u32; PAGE_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static BACKENDS: Array<BackendEntry> = Array::with_max_entries(64, BPF_F_MMAPABLE);

/// The next packet, and then the program under test.
#[classifier]
pub fn tc_restore(context: TcContext) -> i32 {
    if restore(context.data(), context.data_end()) {
        // SAFETY: a slot of a program array; the verifier checks the rest.
        let _ = unsafe { TC_TARGET.tail_call(&context, 0) };
    }
    TCX_NEXT
}

/// The same with IPv6.
#[classifier]
pub fn tc_restore6(context: TcContext) -> i32 {
    if restore6(context.data(), context.data_end()) {
        // SAFETY: as in `tc_restore`.
        let _ = unsafe { TC_TARGET.tail_call(&context, 0) };
    }
    TCX_NEXT
}

/// The next packet, and then the program under test.
#[xdp]
pub fn xdp_restore(context: XdpContext) -> u32 {
    if restore(context.data(), context.data_end()) {
        // SAFETY: a slot of a program array; the verifier checks the rest.
        let _ = unsafe { XDP_TARGET.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same with IPv6.
#[xdp]
pub fn xdp_restore6(context: XdpContext) -> u32 {
    if restore6(context.data(), context.data_end()) {
        // SAFETY: as in `xdp_restore`.
        let _ = unsafe { XDP_TARGET.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Packets of either family that leave longer or shorter: the next, and then the program under test. The frame is made as long
/// as the packet is, unless the one before has left it so. At TC that is one of the other family.
#[classifier]
pub fn tc_restore_moved(context: TcContext) -> i32 {
    let Some(is_v6) = next_is_v6() else { return TCX_NEXT };
    let is_ready = (context.len() as usize == frame_len(is_v6)) || move_at_tc(&context, is_v6);
    if is_ready && restore_moved(context.data(), context.data_end(), is_v6) {
        // SAFETY: as in `tc_restore`.
        let _ = unsafe { TC_TARGET.tail_call(&context, 0) };
    }
    TCX_NEXT
}

/// The same at XDP, where it may be one in a tunnel, too.
#[xdp]
pub fn xdp_restore_moved(context: XdpContext) -> u32 {
    let Some(is_v6) = next_is_v6() else { return xdp_action::XDP_ABORTED };
    let longer = frame_len(is_v6) as i32 - (context.data_end() - context.data()) as i32;
    let is_ready = longer == 0 || lengthen(&context, longer);
    if is_ready && restore_moved(context.data(), context.data_end(), is_v6) {
        // SAFETY: as in `tc_restore`.
        let _ = unsafe { XDP_TARGET.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The least that another header takes: room for what it is longer by, or none.
#[classifier]
pub fn tc_move(context: TcContext) -> i32 {
    let was_v6 = context.len() as usize == frame_len(true);
    i32::from(move_at_tc(&context, !was_v6))
}

/// The same at XDP.
#[xdp]
pub fn xdp_move(context: XdpContext) -> u32 {
    let was_v6 = context.data_end() - context.data() == frame_len(true);
    let longer = frame_len(true) as i32 - frame_len(false) as i32;
    u32::from(lengthen(&context, if was_v6 { -longer } else { longer }))
}

/// Nothing: what is left is what restoring costs.
#[classifier]
pub fn tc_nothing(_: TcContext) -> i32 {
    TCX_NEXT
}

/// Nothing: what is left is what restoring costs.
#[xdp]
pub fn xdp_nothing(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least that any balancer with state does: the packet's key, and one lookup in the flow table.
#[classifier]
pub fn tc_lookup(context: TcContext) -> i32 {
    i32::from(lookup(context.data(), context.data_end()))
}

/// Puts the packet's key into the table that is looked into.
#[classifier]
pub fn tc_fill(context: TcContext) -> i32 {
    i32::from(fill(context.data(), context.data_end()))
}

/// The same with IPv6.
#[classifier]
pub fn tc_fill6(context: TcContext) -> i32 {
    i32::from(fill6(context.data(), context.data_end()))
}

/// The same at XDP.
#[xdp]
pub fn xdp_lookup(context: XdpContext) -> u32 {
    u32::from(lookup(context.data(), context.data_end()))
}

/// The same with IPv6.
#[classifier]
pub fn tc_lookup6(context: TcContext) -> i32 {
    i32::from(lookup6(context.data(), context.data_end()))
}

/// The same with IPv6.
#[xdp]
pub fn xdp_lookup6(context: XdpContext) -> u32 {
    u32::from(lookup6(context.data(), context.data_end()))
}

/// The least that it takes to choose a backend by a table for each service: the packet's key, the service, a word of its ring, and where
/// the backend is.
#[classifier]
pub fn tc_choose(context: TcContext) -> i32 {
    i32::from(choose(context.data(), context.data_end()).is_some())
}

/// The same at XDP.
#[xdp]
pub fn xdp_choose(context: XdpContext) -> u32 {
    u32::from(choose(context.data(), context.data_end()).is_some())
}

#[inline(always)]
fn restore(data: usize, end: usize) -> bool {
    let Some(next) = NEXT_PACKET.get_ptr_mut(0) else { return false };
    // SAFETY: the map's one element; one run at a time.
    let [place, count] = unsafe { *next };
    let Some(packet) = PACKETS.get_ptr(place) else { return false };
    if data + 2 * WORDS > end {
        return false;
    }
    let to = data as *mut u16;
    for word in 0..WORDS {
        // SAFETY: the frame has as many words, as checked above, and begins at an even address.
        unsafe { to.add(word).write_volatile((*packet)[word]) };
    }
    // SAFETY: as above.
    unsafe { (*next)[0] = if place + 1 == count { 0 } else { place + 1 } };
    true
}

#[inline(always)]
fn restore6(data: usize, end: usize) -> bool {
    let Some(next) = NEXT_PACKET.get_ptr_mut(0) else { return false };
    // SAFETY: as in `restore`.
    let [place, count] = unsafe { *next };
    let (Some(head), Some(rest)) = (PACKETS.get_ptr(place), PACKETS.get_ptr(place + 1)) else {
        return false;
    };
    if data + 2 * WORDS6 > end {
        return false;
    }
    let to = data as *mut u16;
    for word in 0..SLOT {
        // SAFETY: as in `restore`.
        unsafe { to.add(word).write_volatile((*head)[word]) };
    }
    for word in SLOT..WORDS6 {
        // SAFETY: as in `restore`.
        unsafe { to.add(word).write_volatile((*rest)[word - SLOT]) };
    }
    // SAFETY: as in `restore`.
    unsafe { (*next)[0] = if place + 2 == count { 0 } else { place + 2 } };
    true
}

/// Bytes of a packet of a family.
#[inline(always)]
fn frame_len(is_v6: bool) -> usize {
    2 * if is_v6 { WORDS6 } else { WORDS }
}

/// Makes room for a header of the other family.
#[inline(always)]
fn move_at_tc(context: &TcContext, to_v6: bool) -> bool {
    let protocol = if to_v6 { IPV6 } else { IPV4 };
    // SAFETY: the context is valid; who asks takes the packet's addresses anew.
    unsafe { bpf_skb_change_proto(context.skb.skb, protocol, 0) == 0 }
}

/// Makes room in front, or takes some away.
#[inline(always)]
fn lengthen(context: &XdpContext, longer: i32) -> bool {
    // SAFETY: as above.
    unsafe { bpf_xdp_adjust_head(context.ctx, -longer) == 0 }
}

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();

/// Whether the next packet is of IPv6: its ethertype says so.
#[inline(always)]
fn next_is_v6() -> Option<bool> {
    const ETHERTYPE: usize = 6;
    // SAFETY: as in `restore`.
    let packet = PACKETS.get_ptr(unsafe { (*NEXT_PACKET.get_ptr(0)?)[0] })?;
    // SAFETY: as in `restore`.
    Some(unsafe { (*packet)[ETHERTYPE] } == IPV6)
}

/// Each packet has two slots, of which one of IPv4 uses the first.
#[inline(always)]
fn restore_moved(data: usize, end: usize, is_v6: bool) -> bool {
    if is_v6 {
        return restore6(data, end);
    }
    let Some(next) = NEXT_PACKET.get_ptr_mut(0) else { return false };
    // SAFETY: as in `restore`.
    let place = unsafe { (*next)[0] };
    let restored = restore(data, end);
    // The other slot is empty.
    // SAFETY: as in `restore`.
    unsafe {
        (*next)[0] = if place + 2 == (*next)[1] { 0 } else { place + 2 };
    }
    restored
}

#[inline(always)]
fn lookup(data: usize, end: usize) -> bool {
    key(data, end).is_some_and(|key| BARE.get_ptr(&key).is_some())
}

#[inline(always)]
fn lookup6(data: usize, end: usize) -> bool {
    key6(data, end).is_some_and(|key| BARE6.get_ptr(&key).is_some())
}

/// The backend's port.
#[inline(always)]
fn choose(data: usize, end: usize) -> Option<[u8; 2]> {
    let key = key(data, end)?;
    let vip = VipKey {
        address: key.destination.to_v6(),
        port: key.destination_port.to_ne_bytes(),
        protocol: key.protocol(),
        pad: 0,
    };
    // SAFETY: nobody changes services meanwhile.
    let service = unsafe { SERVICES.get(vip)? };
    let place = FlowHash::of(&key).for_backend().checked_rem(service.ring_len)?;
    let backend = BACKENDS.get(word(&RINGS, service.ring_base.wrapping_add(place))?)?;
    (backend.address != [0; 16]).then_some(backend.port)
}

#[inline(always)]
fn fill(data: usize, end: usize) -> bool {
    key(data, end).is_some_and(|key| BARE.insert(&key, &[1; 8], 0).is_ok())
}

#[inline(always)]
fn fill6(data: usize, end: usize) -> bool {
    key6(data, end).is_some_and(|key| BARE6.insert(&key, &[1; 8], 0).is_ok())
}

#[inline(always)]
fn key(data: usize, end: usize) -> Option<FlowKey<V4>> {
    if data + 2 * WORDS > end {
        return None;
    }
    let from = data as *const u16;
    // SAFETY: the frame has as many words, as checked above, and begins at an even address.
    let word = |at: usize| unsafe { *from.add(at / 2) };
    let address = |at| family::word([word(at), word(at + 2)]);
    Some(FlowKey {
        source: address(26),
        destination: address(30),
        source_port: word(34),
        destination_port: word(36),
        protocol: u16::from(word(22).to_ne_bytes()[1]),
        pad: 0,
    })
}

#[inline(always)]
fn key6(data: usize, end: usize) -> Option<FlowKey<V6>> {
    if data + 2 * WORDS6 > end {
        return None;
    }
    let from = data as *const u16;
    // SAFETY: as in `key`.
    let word = |at: usize| unsafe { *from.add(at / 2) };
    let part = |at| family::word([word(at), word(at + 2)]);
    let address = |at| [part(at), part(at + 4), part(at + 8), part(at + 12)];
    Some(FlowKey {
        source: address(22),
        destination: address(38),
        source_port: word(54),
        destination_port: word(56),
        protocol: u16::from(word(20).to_ne_bytes()[0]),
        pad: 0,
    })
}
