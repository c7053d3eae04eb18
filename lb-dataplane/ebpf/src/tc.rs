//! Packets at TC ingress: a socket buffer, perhaps of merged segments, perhaps with its checksum still to be made.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::bpf_adj_room_mode::{BPF_ADJ_ROOM_MAC, BPF_ADJ_ROOM_NET};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
    bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_proto, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    bpf_skb_vlan_push,
};
use lb_dataplane_common::checksum::{self, Delta};
use lb_dataplane_common::early::EarlyHead;
use lb_dataplane_common::packet::{ChecksumChange, Outer, Packet};

use lb_dataplane_common::parse::{AT_MASK, ETHERNET_LEN, ethertype};
use lb_dataplane_common::pipeline::Way;
use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::vlan::{self, TagWord};

use crate::frame::{self, Frame, Near};
use crate::{early, interfaces, punts, sum};

const PACKET_HOST: u32 = 0;
const ETHERTYPE_AT: u32 = 12;
/// Bytes that IPv6's header has more than IPv4's.
const HEADERS_DIFFER: i32 = 20;
/// Of `bpf_l4_csum_replace`, kernel 6.16 and later: the bindings have it not yet.
const BPF_F_IPV6: u64 = 1 << 7;

/// A packet at TC.
pub struct SkBuff {
    skb: *mut __sk_buff,
    /// The interface that it belongs to: its VLAN's, or the one that it came in through.
    ifindex: u64,
}

impl SkBuff {
    /// The program's packet.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let mut packet = Self { skb, ifindex: 0 };
        packet.ifindex = packet.link().into();
        packet
    }

    #[inline(always)]
    fn frame(&self) -> Frame {
        // SAFETY: the kernel hands the program a valid context.
        unsafe {
            Frame::of::<_, { offset_of!(__sk_buff, data) }, { offset_of!(__sk_buff, data_end) }>(
                self.skb,
            )
        }
    }

    /// The interface that it came in through, whatever its tags say.
    #[inline(always)]
    pub fn link(&self) -> u32 {
        // SAFETY: as in `frame`.
        unsafe { (*self.skb).ifindex }
    }

    /// Adds to the sum that a device has made of the whole packet; what it is then, or of no meaning if there is none.
    #[inline(always)]
    fn add_to_device_sum(&mut self, change: u32) -> u32 {
        // SAFETY: the context is valid. Without such a sum the helper does nothing.
        unsafe { bpf_csum_update(self.skb, change) as u32 }
    }

    /// Applies a difference of sums to a transport's checksum. The helper knows whether the checksum is complete,
    /// partial, or kept beside the packet.
    #[inline(always)]
    fn apply(&mut self, at: u32, delta: Delta, flags: u64) -> Option<()> {
        // SAFETY: the context is valid, and the helper checks the offset. A size of 0 in the flags says that `to` is a
        // difference.
        let result = unsafe { bpf_l4_csum_replace(self.skb, at, 0, u64::from(delta.0), flags) };
        (result == 0).then_some(())
    }
}

impl Packet for SkBuff {
    const RESOLVES_NEIGHBOURS: bool = true;
    type Near = Near;
    const HAS_DEVICE_SUM: bool = true;

    #[inline(always)]
    fn unlinked(n: u32) -> u32 {
        frame::unlinked(n)
    }

    #[inline(always)]
    fn zero(unknown: u32) -> u64 {
        frame::zero(unknown)
    }

    #[inline(always)]
    fn any(reason: Reason, zero: u64) -> Reason {
        frame::any(reason, zero)
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: as in `frame`.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        // SAFETY: as in `frame`.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn link_mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: the context is valid, and so is the place that the MTU is written to.
        let result =
            unsafe { bpf_check_mtu(self.skb.cast(), self.ifindex as u32, &raw mut mtu, 0, 0) };
        if result < 0 { u32::MAX } else { mtu }
    }

    #[inline(always)]
    fn interface_place(&self) -> u32 {
        interfaces::place(self.link())
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex as u32
    }

    #[inline(always)]
    fn own_mac(&self) -> Option<[u16; 3]> {
        interfaces::mac(self.ifindex())
    }

    #[inline(always)]
    fn is_addressed_here(&self, _: [u16; 3]) -> bool {
        // SAFETY: as in `frame`. The kernel compared the MAC when the frame came in.
        unsafe { (*self.skb).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn has_tag_aside(&self) -> bool {
        // SAFETY: as in `frame`.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn tag(&self) -> TagWord {
        if !self.has_tag_aside() {
            return self.frame().tag();
        }
        // SAFETY: as in `frame`.
        unsafe { vlan::word((*self.skb).vlan_proto as u16, ((*self.skb).vlan_tci as u16).to_be()) }
    }

    /// One in its place, if there is one, then is beside.
    #[inline(always)]
    fn take_tag(&mut self) -> Option<()> {
        // SAFETY: the context is valid. Every access after this takes the packet's addresses anew.
        (unsafe { bpf_skb_vlan_pop(self.skb) } == 0).then_some(())
    }

    #[inline(always)]
    fn put_tag(&mut self, tag: TagWord) -> Option<()> {
        let [protocol, control] = vlan::halves(tag);
        // SAFETY: as above.
        let result = unsafe { bpf_skb_vlan_push(self.skb, protocol, u16::from_be(control)) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn enter(&mut self, ifindex: u32) {
        self.ifindex = ifindex.into();
    }

    #[inline(always)]
    fn pull(&mut self, len: u32) -> bool {
        if self.frame().has(len) {
            return true;
        }
        // SAFETY: the context is valid. Every access after this takes the packet's addresses anew.
        unsafe { bpf_skb_pull_data(self.skb, len) == 0 }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u16; N]> {
        self.frame().read(at)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: u32, words: [u16; N]) -> Option<()> {
        self.frame().write(at, words)
    }

    #[inline(always)]
    fn reach(&self, len: u32) -> Option<Near> {
        self.frame().reach(len)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, near: Near, at: u32) -> [u16; N] {
        near.load(at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, near: Near, at: u32, words: [u16; N]) {
        near.store(at, words);
    }

    #[inline(always)]
    fn renew_checksum(&mut self, near: Near, change: ChecksumChange, len: u32) -> Option<Near> {
        let [old] = near.load(change.at);
        if change.optional && old == 0 {
            note_uncovered(self, &change);
            return Some(near);
        }
        if change.partial.is_some_and(|partial| checksum::is_same(old, partial)) {
            ask_kernel(self, &change)?;
            // It may have moved the packet.
            return self.reach(len);
        }
        let sum = sum_beside(self, &change, old);
        near.store(change.at, [sum]);
        Some(near)
    }

    #[inline(always)]
    fn grow(&mut self, outer: Outer) -> Option<()> {
        let ip =
            if outer.is_v6 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 };
        let udp = if outer.has_udp { BPF_F_ADJ_ROOM_ENCAP_L4_UDP } else { 0 };
        let flags = u64::from(ip | udp | BPF_F_ADJ_ROOM_FIXED_GSO);
        let len = outer.bytes() as i32;
        // SAFETY: the context is valid. Every access after this takes the packet's addresses anew.
        let result = unsafe { bpf_skb_adjust_room(self.skb, len, BPF_ADJ_ROOM_MAC, flags) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn change_family(&mut self, old_len: u32, new_len: u32, is_v6: bool) -> Option<()> {
        let protocol = ethertype(is_v6);
        let before = self.add_to_device_sum(0);
        // SAFETY: the context is valid. Every access after this takes the packet's addresses anew.
        if unsafe { bpf_skb_change_proto(self.skb, protocol, 0) } != 0 {
            return None;
        }
        // The helper has made it longer or shorter by what the headers differ in.
        let done = if is_v6 { HEADERS_DIFFER } else { -HEADERS_DIFFER };
        let rest = new_len.wrapping_sub(old_len).cast_signed() - done;
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: as above. What the room is between is written anew.
        if rest != 0 && unsafe { bpf_skb_adjust_room(self.skb, rest, BPF_ADJ_ROOM_NET, flags) } != 0
        {
            return None;
        }
        // What the helpers have taken out of the packet they have taken out of the sum; what they have put in is zero.
        let after = self.add_to_device_sum(0);
        let taken = u64::from(before) + u64::from(!after);
        self.add_to_device_sum((taken as u32).wrapping_add((taken >> 32) as u32));
        self.write(ETHERTYPE_AT, [protocol])
    }

    #[inline(always)]
    fn exchange_header(&mut self, to_v6: bool, len: u32) -> Option<Self::Near> {
        // SAFETY: as above.
        if unsafe { bpf_skb_change_proto(self.skb, ethertype(to_v6), 0) } != 0 {
            return None;
        }
        self.reach(len)
    }

    #[inline(always)]
    fn note_change(&mut self, change: Delta) {
        self.add_to_device_sum(change.0.into());
    }

    #[inline(always)]
    fn insert_zeroes(&mut self, at: u32, zeroes: u32) -> Option<()> {
        let (skb, end) = (self.skb, self.frame_len());
        sum::insert_zeroes(
            at,
            end,
            zeroes,
            // SAFETY: the context is valid, the room holds `len` bytes, and the helpers check the packet's length.
            |at, to, len| unsafe { bpf_skb_load_bytes(skb.cast(), at, to.cast(), len) == 0 },
            // SAFETY: as above. Every access after this takes the packet's addresses anew.
            |more| unsafe { bpf_skb_change_tail(skb, end + more, 0) == 0 },
            // SAFETY: as above.
            |at, from, len| unsafe {
                bpf_skb_store_bytes(skb, at, from.cast_const().cast(), len, 0) == 0
            },
        )
    }

    #[inline(always)]
    fn sum(&mut self, at: u32, len: u32) -> Option<u16> {
        sum::of(at, len, |at, to, len| {
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to.cast(), len) == 0 }
        })
    }

    #[inline(always)]
    fn punt(&self, reason: Reason, len: usize, detail: u16) {
        punts::punt(reason, len, detail, |bytes, len| {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_skb_load_bytes(self.skb.cast(), ETHERNET_LEN, to, len as u32) == 0 }
        });
    }

    #[inline(always)]
    fn keep(&self, head: &EarlyHead) -> bool {
        early::keep(head, |to, len| {
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_skb_load_bytes(self.skb.cast(), ETHERNET_LEN, to.cast(), len) == 0 }
        })
    }

    #[inline(always)]
    fn update_transport_checksum(&mut self, change: ChecksumChange) -> Option<()> {
        let [old] = self.read(change.at)?;
        if change.optional && old == 0 {
            note_uncovered(self, &change);
            return Some(());
        }
        let is_whole = |partial| checksum::sameness(old, partial) == 0;
        if !change.partial.is_some_and(is_whole) {
            return update_by_kernel(self, &change).then_some(());
        }
        let sum = sum_beside(self, &change, old);
        self.write(change.at, [sum])
    }
}

/// Brings the device's sum of a packet up to date that has no checksum to make up for what has changed.
#[inline(always)]
fn note_uncovered(packet: &mut SkBuff, change: &ChecksumChange) {
    let addresses = if change.is_v6 { change.pseudo_header } else { Delta::default() };
    packet.note_change(addresses.and(change.content));
}

/// A checksum that is complete brought up to date, and with it what the kernel has beside the packet.
#[inline(always)]
fn sum_beside(packet: &mut SkBuff, change: &ChecksumChange, old: u16) -> u16 {
    if !change.is_v6 {
        // The device's sum of the whole packet, if there is one: of IPv4, the header's own checksum makes up for the addresses
        // there, but not for what they do to this one. The content makes up for itself.
        packet.add_to_device_sum(!u32::from(change.pseudo_header.0));
    }
    let sum = checksum::update_twice(old, change.pseudo_header, change.content);
    if change.optional && sum == 0 { u16::MAX } else { sum }
}

/// Has the kernel bring a checksum up to date, which knows whether it is complete, partial, or kept beside the packet. A
/// subprogram, since few packets ask: these calls cost more than all else that is done to a packet.
#[inline(never)]
fn update_by_kernel(packet: &mut SkBuff, change: &ChecksumChange) -> bool {
    ask_kernel(packet, change).is_some()
}

#[inline(always)]
fn ask_kernel(packet: &mut SkBuff, change: &ChecksumChange) -> Option<()> {
    // The verifier forgets the bound of what was stored.
    let at = change.at & AT_MASK;
    let zero_is_none = if change.optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    // That of an ICMP message covers no addresses, or they only change places.
    if checksum::is_same(change.pseudo_header.0, 0) {
        return packet.apply(at, change.content, zero_is_none);
    }
    let [old] = packet.read(at)?;
    let pseudo = u64::from(BPF_F_PSEUDO_HDR) | zero_is_none;
    // A kernel that does not know the flag refuses it before it touches anything. It then gets the device's sum of the
    // whole packet wrong, if there is one.
    let is_done =
        change.is_v6 && packet.apply(at, change.pseudo_header, pseudo | BPF_F_IPV6).is_some();
    if !is_done {
        packet.apply(at, change.pseudo_header, pseudo)?;
    }
    // What the helper made of the field says whether it is the sum of all or, to be completed by a device, that of the
    // pseudo-header only. So the content needs no second call.
    let [new] = packet.read(at)?;
    let is_whole = checksum::sameness(new, checksum::update(old, change.pseudo_header));
    let content = Delta(change.content.0 & 0_u16.wrapping_sub(opaque(is_whole)));
    let sum = checksum::update(new, content);
    packet.write(at, [if change.optional && sum == 0 { u16::MAX } else { sum }])
}

/// A number of which the compiler knows nothing: it would make two ways of what depends on it, and the verifier walk both.
#[inline(always)]
fn opaque(mut number: u16) -> u16 {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{0} = {0}", inout(wreg) number, options(pure, nomem, nostack)) };
    number
}

/// Sends the frame through an interface; the return code says so to the hook.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i32 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Hands the frame to the other end of a veth, which is in another network namespace: it goes on there at once, without being
/// queued.
#[inline(always)]
pub fn redirect_to_peer(ifindex: u32) -> i32 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Has the kernel find the next hop's MAC, by asking on the link if need be, and send the packet.
#[inline(always)]
pub fn redirect_neighbour(way: &Way) -> i32 {
    let ifindex = way.ifindex;
    let mut params = bpf_redir_neigh {
        nh_family: way.resolve,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: way.next_hop },
    };
    // SAFETY: the parameters live on the stack until the helper has copied them, and the length is theirs.
    unsafe {
        bpf_redirect_neigh(ifindex, &raw mut params, size_of::<bpf_redir_neigh>() as i32, 0) as i32
    }
}
