//! VLANs: a frame's tags are taken off before anything else looks at it, where the interface that they belong to is known, and
//! those of its way out are put on at the end. Frames that go to the kernel, or back, go as they came.

use super::Way;
use crate::packet::Packet;
use crate::reason::{Kind, Reason};
use crate::tables::Tables;
use crate::vlan::{Tag, TagWord, VlanKey};

/// Where a frame came in. In words of 64 bits: of others the verifier also minds in what order they were written, and goes
/// through all that follows once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The place of the interface in the counters, of 32 bits.
    pub place: u64,
    /// The tags that were taken off, the outer one in the low half; 0 for none.
    pub tags: u64,
}

/// What [`untag`] says in place of an ethertype.
const VLAN_TAGGED: u32 = 1 << 16;
const NOT_FOR_US: u32 = 2 << 16;
const WRITE_FAULT: u32 = 3 << 16;

/// The ethertype behind a frame's tags, which are taken off.
///
/// # Errors
///
/// The reason for which the frame's way ends here.
#[inline(always)]
pub(crate) fn behind_tags<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    arrived: &mut Arrived,
) -> Result<u16, Reason> {
    match untag(packet, tables, arrived) {
        VLAN_TAGGED => Err(Reason::VlanTagged),
        NOT_FOR_US => Err(Reason::NotForUs),
        WRITE_FAULT => Err(Reason::WriteFault),
        ethertype => Ok(ethertype as u16),
    }
}

/// A subprogram: the frames without tags do not pay for it, and it returns a scalar.
#[inline(never)]
fn untag<P: Packet, T: Tables>(packet: &mut P, tables: &T, arrived: &mut Arrived) -> u32 {
    let Some(mac) = packet.read::<3>(0) else { return WRITE_FAULT };
    let mut here = Here { ifindex: packet.ifindex(), is_mac_of: packet.is_addressed_here(mac) };
    arrived.tags = match take(packet, tables, &mut here, mac) {
        Ok(outer) => outer.into(),
        Err(why) => return why,
    };
    if packet.tag() != 0 {
        arrived.tags |= match take(packet, tables, &mut here, mac) {
            Ok(inner) => u64::from(inner) << 32,
            Err(why) => return why,
        };
    }
    if packet.tag() != 0 {
        return VLAN_TAGGED;
    }
    arrived.place = tables.interface_place(here.ifindex).into();
    packet.enter(here.ifindex);
    if !here.is_mac_of {
        return NOT_FOR_US;
    }
    packet.read::<1>(12).map_or(WRITE_FAULT, |[ethertype]| ethertype.into())
}

/// The interface that the tags so far belong to, and whether the frame is addressed to it.
struct Here {
    ifindex: u32,
    is_mac_of: bool,
}

/// Takes a tag off, if it is known which interface it belongs to. One that says a priority only belongs to that below it.
#[inline(always)]
fn take<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    here: &mut Here,
    mac: [u16; 3],
) -> Result<TagWord, u32> {
    let word = packet.tag();
    if let Some(tag) = Tag::of_frame(word) {
        let vlan = tables.vlan(&VlanKey::new(here.ifindex, tag)).ok_or(VLAN_TAGGED)?;
        *here = Here { ifindex: vlan, is_mac_of: tables.mac(vlan) == Some(mac) };
    }
    packet.take_tag().ok_or(WRITE_FAULT)?;
    Ok(word)
}

/// Puts the tags on that a frame leaves with: those of its way out, or, where it goes to the kernel or back, its own.
#[inline(never)]
pub(super) fn leave<P: Packet>(packet: &mut P, reason: Reason, arrived: u64, way: &Way) -> Reason {
    let (outer, inner) = match reason.kind_at_once() {
        Kind::Forward => (way.tags.outer(), way.tags.inner()),
        Kind::Pass | Kind::Reply => (arrived as TagWord, (arrived >> 32) as TagWord),
        Kind::Drop => return reason,
    };
    if inner != 0 && packet.put_tag(inner).is_none()
        || outer != 0 && packet.put_tag(outer).is_none()
    {
        return Reason::WriteFault;
    }
    reason
}
