//! Packets at XDP: the driver's buffer, before the kernel made anything of it.

use core::mem::offset_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    bpf_xdp_store_bytes,
};
use lb_dataplane_common::checksum::{self, Delta};
use lb_dataplane_common::early::EarlyHead;
use lb_dataplane_common::packet::{ChecksumChange, Outer, Packet};
use lb_dataplane_common::parse::{ETHERNET_LEN, ethertype};
use lb_dataplane_common::reason::Reason;
use lb_dataplane_common::vlan::{self, TagWord};

use crate::frame::{self, Frame, Near};
use crate::{early, interfaces, punts, sum};

/// Bytes that IPv6's header has more than IPv4's.
const HEADERS_DIFFER: i32 = 20;
/// Bytes of a VLAN tag.
const TAG_LEN: i32 = 4;

/// A packet at XDP.
pub struct XdpFrame {
    ctx: *mut xdp_md,
    /// The interface that it belongs to: its VLAN's, or the one that it came in through.
    ifindex: u64,
}

impl XdpFrame {
    /// The program's packet.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        let mut packet = Self { ctx, ifindex: 0 };
        packet.ifindex = packet.link().into();
        packet
    }

    #[inline(always)]
    fn frame(&self) -> Frame {
        // SAFETY: the kernel hands the program a valid context.
        unsafe {
            Frame::of::<_, { offset_of!(xdp_md, data) }, { offset_of!(xdp_md, data_end) }>(self.ctx)
        }
    }

    /// The interface that it came in through, whatever its tags say.
    #[inline(always)]
    pub fn link(&self) -> u32 {
        // SAFETY: as in `frame`.
        unsafe { (*self.ctx).ingress_ifindex }
    }

    /// Copies words out; `at` is even.
    #[inline(always)]
    pub fn get<const N: usize>(&self, at: u32) -> Option<[u16; N]> {
        self.frame().read(at)
    }
}

impl Packet for XdpFrame {
    const RESOLVES_NEIGHBOURS: bool = false;
    type Near = Near;
    const HAS_DEVICE_SUM: bool = false;

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
        self.frame().len()
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn link_mtu(&self) -> u32 {
        let mut mtu = 0;
        // SAFETY: the context is valid, and so is the place that the MTU is written to.
        let result =
            unsafe { bpf_check_mtu(self.ctx.cast(), self.ifindex as u32, &raw mut mtu, 0, 0) };
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
    fn is_addressed_here(&self, destination: [u16; 3]) -> bool {
        interfaces::mac(self.link()) == Some(destination)
    }

    /// Attaching to XDP has the device leave tags in their place.
    #[inline(always)]
    fn has_tag_aside(&self) -> bool {
        false
    }

    #[inline(always)]
    fn tag(&self) -> TagWord {
        self.frame().tag()
    }

    #[inline(always)]
    fn take_tag(&mut self) -> Option<()> {
        let macs = self.read::<6>(0)?;
        // SAFETY: as in `grow`.
        if unsafe { bpf_xdp_adjust_head(self.ctx, TAG_LEN) } != 0 {
            return None;
        }
        self.write(0, macs)
    }

    #[inline(always)]
    fn put_tag(&mut self, tag: TagWord) -> Option<()> {
        let [a, b, c, d, e, f] = self.read::<6>(0)?;
        // SAFETY: as in `grow`.
        if unsafe { bpf_xdp_adjust_head(self.ctx, -TAG_LEN) } != 0 {
            return None;
        }
        let [protocol, control] = vlan::halves(tag);
        self.write(0, [a, b, c, d, e, f, protocol, control])
    }

    #[inline(always)]
    fn enter(&mut self, ifindex: u32) {
        self.ifindex = ifindex.into();
    }

    #[inline(always)]
    fn pull(&mut self, len: u32) -> bool {
        self.frame().has(len)
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
    fn renew_checksum(&mut self, near: Near, change: ChecksumChange, _: u32) -> Option<Near> {
        let [old] = near.load(change.at);
        near.store(change.at, [renewed(&change, old)]);
        Some(near)
    }

    #[inline(always)]
    fn grow(&mut self, outer: Outer) -> Option<()> {
        let len = outer.bytes();
        // SAFETY: the context is valid. Every access after this takes the packet's addresses anew.
        if unsafe { bpf_xdp_adjust_head(self.ctx, -(len as i32)) } != 0 {
            return None;
        }
        let header = self.read::<7>(len)?;
        self.write(0, header)
    }

    #[inline(always)]
    fn change_family(&mut self, old_len: u32, new_len: u32, is_v6: bool) -> Option<()> {
        let [a, b, c, d, e, f, _] = self.read::<7>(0)?;
        let shorter = old_len.wrapping_sub(new_len).cast_signed();
        // SAFETY: as in `grow`.
        if unsafe { bpf_xdp_adjust_head(self.ctx, shorter) } != 0 {
            return None;
        }
        self.write(0, [a, b, c, d, e, f, ethertype(is_v6)])
    }

    #[inline(always)]
    fn exchange_header(&mut self, to_v6: bool, len: u32) -> Option<Self::Near> {
        let shorter = if to_v6 { -HEADERS_DIFFER } else { HEADERS_DIFFER };
        // SAFETY: as in `grow`.
        if unsafe { bpf_xdp_adjust_head(self.ctx, shorter) } != 0 {
            return None;
        }
        self.reach(len)
    }

    /// No device says what it has summed.
    #[inline(always)]
    fn note_change(&mut self, _: Delta) {}

    #[inline(always)]
    fn insert_zeroes(&mut self, at: u32, zeroes: u32) -> Option<()> {
        let ctx = self.ctx;
        sum::insert_zeroes(
            at,
            self.frame_len(),
            zeroes,
            // SAFETY: the context is valid, the room holds `len` bytes, and the helpers check the packet's length.
            |at, to, len| unsafe { bpf_xdp_load_bytes(ctx, at, to.cast(), len) == 0 },
            // SAFETY: as above. Every access after this takes the packet's addresses anew.
            |more| unsafe { bpf_xdp_adjust_tail(ctx, more as i32) == 0 },
            // SAFETY: as above.
            |at, from, len| unsafe { bpf_xdp_store_bytes(ctx, at, from.cast(), len) == 0 },
        )
    }

    #[inline(always)]
    fn sum(&mut self, at: u32, len: u32) -> Option<u16> {
        sum::of(at, len, |at, to, len| {
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_xdp_load_bytes(self.ctx, at, to.cast(), len) == 0 }
        })
    }

    #[inline(always)]
    fn punt(&self, reason: Reason, len: usize, detail: u16) {
        punts::punt(reason, len, detail, |bytes, len| {
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_xdp_load_bytes(self.ctx, ETHERNET_LEN, to, len as u32) == 0 }
        });
    }

    #[inline(always)]
    fn keep(&self, head: &EarlyHead) -> bool {
        early::keep(head, |to, len| {
            // SAFETY: the context is valid, the buffer holds `len` bytes, and the helper checks the packet's length.
            unsafe { bpf_xdp_load_bytes(self.ctx, ETHERNET_LEN, to.cast(), len) == 0 }
        })
    }

    #[inline(always)]
    fn update_transport_checksum(&mut self, change: ChecksumChange) -> Option<()> {
        let [old] = self.read(change.at)?;
        self.write(change.at, [renewed(&change, old)])
    }
}

/// A checksum brought up to date.
#[inline(always)]
fn renewed(change: &ChecksumChange, old: u16) -> u16 {
    if change.optional {
        checksum::update_optional(old, change.pseudo_header.and(change.content))
    } else {
        checksum::update_twice(old, change.pseudo_header, change.content)
    }
}

/// Sends the frame through an interface; the return code says so to the driver.
#[inline(always)]
pub fn redirect(ifindex: u32) -> u32 {
    // SAFETY: a helper without preconditions.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}
