//! Lowering the maximum segment size that a SYN announces (RFC 9293 §3.7.1), so that segments fit where ICMP errors get lost.

use crate::checksum::Delta;
use crate::family::Family;
use crate::packet::{ChecksumChange, Packet};
use crate::parse::AT_MASK;
use crate::pipeline::{Found, Scratch};
use crate::service::MODE_ACROSS;

/// In place of a size: what fits through the link that a SYN came in by, and through its way out.
pub const MSS_AUTO: u16 = u16::MAX;

/// Bytes of TCP's header without options.
const TCP_LEN: u32 = 20;
const CHECKSUM_AT: u32 = 16;
/// Options that are looked at: a size behind more of them stays as it is.
const MOST_OPTIONS: u32 = 12;
const END: u8 = 0;
const NOTHING: u8 = 1;
const SIZE: u8 = 2;
const SIZE_LEN: u8 = 4;

/// Where the walk over a header's options, or an INIT's parameters, stands, or where an error's extensions move. It is kept in memory, of which the verifier knows no value: in a register
/// each length that an option may have would be a case of its own, and so would all that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Options {
    /// Where the next option begins, in the frame, or the extensions.
    pub at: u32,
    /// Where the header ends.
    pub end: u32,
    /// Where the packet ends; of an INIT only.
    pub packet_end: u32,
    /// What is to be done to the sum of a packet of SCTP, or by how many bytes extensions move.
    pub change: u32,
}

/// Lowers the size that a flow's SYN announces to what its service allows. Once for all ways that it may go on from here: the
/// verifier walks over the options for each.
#[inline(never)]
pub(crate) fn lower<A: Family, P: Packet>(packet: &mut P, scratch: &mut Scratch<A>) -> Option<()> {
    let Scratch { ip, transport, step, member, found, options, .. } = scratch;
    let mtu = if *found == Found::Member { member.mtu.into() } else { u32::MAX };
    let most = if step.mode == MODE_ACROSS {
        most::<A, A::Other, P>(packet, step.mss, mtu)
    } else {
        most::<A, A, P>(packet, step.mss, mtu)
    };
    options.end = ip.transport_at() + transport.header_len;
    walk(packet, options, ip.transport_at(), most, A::IS_V6)
}

/// The largest size that a service allows, or that fits: a packet comes in as one of `A` and goes out as one of `B`.
#[inline(always)]
fn most<A: Family, B: Family, P: Packet>(packet: &P, of_service: u16, mtu_out: u32) -> u16 {
    if of_service != MSS_AUTO {
        return of_service;
    }
    let fits = |mtu: u32, header_len: u32| mtu.saturating_sub(header_len + TCP_LEN);
    let (out, back) = (fits(mtu_out, B::HEADER_LEN), fits(packet.link_mtu(), A::HEADER_LEN));
    let most = if out < back { out } else { back };
    if most > u32::from(u16::MAX) { u16::MAX } else { most as u16 }
}

/// Lowers the size that a segment announces whose header begins at `at` and ends at `options.end`. Options that contradict
/// themselves, or that lie beyond the packet, are left to whoever they are for.
#[inline(always)]
fn walk<P: Packet>(
    packet: &mut P,
    options: &mut Options,
    at: u32,
    most: u16,
    is_v6: bool,
) -> Option<()> {
    let at = at & AT_MASK;
    let end = options.end & AT_MASK;
    if !packet.pull(end) {
        return Some(());
    }
    options.at = at + TCP_LEN;
    let mut looks = 0;
    while looks < MOST_OPTIONS {
        looks += 1;
        match look(packet, options) {
            Seen::Another => {}
            Seen::Size => return write(packet, options.at & AT_MASK, at, most, is_v6),
            Seen::Nothing => return Some(()),
        }
    }
    Some(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Seen {
    /// An option that says no size: the walk has gone on to the next one.
    Another,
    /// The size.
    Size,
    /// The end.
    Nothing,
}

#[inline(never)]
fn look<P: Packet>(packet: &mut P, options: &mut Options) -> Seen {
    let at = options.at & AT_MASK;
    if at + u32::from(SIZE_LEN) > options.end {
        return Seen::Nothing;
    }
    let Some([first, second]) = packet.read::<2>(at & !1) else { return Seen::Nothing };
    let ([a, b], [c, _]) = (first.to_ne_bytes(), second.to_ne_bytes());
    let (kind, len) = if at & 1 != 0 { (b, c) } else { (a, b) };
    if kind == SIZE && len == SIZE_LEN {
        return Seen::Size;
    }
    if kind == END || kind != NOTHING && len < 2 {
        return Seen::Nothing;
    }
    options.at = at + if kind == NOTHING { 1 } else { u32::from(len) };
    Seen::Another
}

#[inline(always)]
fn write<P: Packet>(packet: &mut P, option: u32, at: u32, most: u16, is_v6: bool) -> Option<()> {
    let (odd, even) = (option & 1 != 0, option & !1);
    let old = packet.read::<3>(even)?;
    let [_, [c, d], [e, f]] = old.map(u16::to_ne_bytes);
    let ([high, low], size) = (most.to_be_bytes(), if odd { [d, e] } else { [c, d] });
    if u16::from_be_bytes(size) <= most {
        return Some(());
    }
    let (second, third) = if odd { ([c, high], [low, f]) } else { ([high, low], [e, f]) };
    let new = [old[0], u16::from_ne_bytes(second), u16::from_ne_bytes(third)];
    packet.update_transport_checksum(ChecksumChange {
        at: at + CHECKSUM_AT,
        pseudo_header: Delta::default(),
        content: Delta::of(old, new),
        optional: false,
        is_v6,
        partial: None,
    })?;
    packet.write(even, new)
}
