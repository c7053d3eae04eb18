//! Fragments: a later one is of the flow that its first one was of. One that comes before the first, to a VIP or from a backend,
//! is kept by user space, which the first one then tells where the datagram goes, since it sends the others itself.

use super::forward::Found;
use super::{Scratch, direct};
use crate::early::{EARLY_BYTES, EarlyHead, MODE_ROUTED};
use crate::encapsulation::Encapsulation;
use crate::family::Family;
use crate::fib::{MEMBER_HAS_GATEWAY, MEMBER_HAS_GATEWAY6, MEMBER_RESOLVED};
use crate::fragment::{FragmentPorts, is_awaited};
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LEN, Ip, OFFSET, Transport};
use crate::reason::Reason;
use crate::rewrite::mac_words;
use crate::service::{MODE_ACROSS, MODE_L2};
use crate::tables::TablesOf;

/// What a packet carries; of a later fragment, what the first one of its datagram said.
#[inline(always)]
pub(super) fn transport<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    ip: &mut Ip<A>,
) -> Result<Transport, Reason> {
    if !ip.is_later_fragment() {
        return parse::transport(packet, ip);
    }
    if !ip.is_plausible_later_fragment() {
        return Err(Reason::Malformed);
    }
    match tables.fragment(&ip.fragment_key()) {
        Some(ports) if ports.is_current(tables.now()) => {
            // With IPv6 a later one may say another, of an extension header that the first one has.
            ip.protocol = ports.protocol as u8;
            Ok(Transport::of_later_fragment(&ports))
        }
        Some(_) | None => Ok(Transport::OTHER),
    }
}

/// Leaves the ports of a flow's or a backend's first fragment to the later ones.
#[inline(never)]
pub(super) fn note<A: Family, T: TablesOf<A>>(tables: &T, scratch: &Scratch<A>) {
    let Transport { source_port, destination_port, .. } = scratch.transport;
    let now = tables.now();
    let protocol = u32::from(scratch.ip.protocol);
    let (source, destination) = (source_port, destination_port);
    let ports = FragmentPorts { source, destination, seen: now, protocol };
    tables.note_fragment(&scratch.ip.fragment_key(), &ports);
}

/// Tells of a first fragment whose way is found where others of its datagram are waiting. After [`note`]: one that comes early
/// on another CPU just now finds the ports, or is seen here.
#[inline(never)]
pub(super) fn tell_where_awaited<A: Family, T: TablesOf<A>>(
    tables: &T,
    scratch: &mut Scratch<A>,
) -> u32 {
    // Those of a backend's that is of no flow are not to wait: they are routed by what this one says, as it is.
    if !scratch.step.is_flow && tables.is_backend(&scratch.ip.source.to_v6()) {
        note(tables, scratch);
    }
    let awaited = tables.awaited(&scratch.ip.fragment_key().to_v6());
    if awaited.is_some_and(|seen| is_awaited(seen, tables.now())) {
        tell(tables, scratch);
    }
    0
}

#[inline(always)]
fn tell<A: Family, T: TablesOf<A>>(tables: &T, scratch: &mut Scratch<A>) {
    let Scratch { ip, arrival, step, member, found, early, .. } = scratch;
    head(ip, &mut early.head);
    early.head.packet_len = 0;
    early.port = direct::source_port(&arrival.key).into();
    if !step.is_flow {
        early.mode = MODE_ROUTED;
        early.to_source = ip.source.to_v6();
        early.to_destination = ip.destination.to_v6();
    } else if step.mode == MODE_ACROSS {
        early.mode = MODE_ACROSS;
        early.to_source = step.across.source.to_v6();
        early.to_destination = step.across.destination.to_v6();
    } else {
        early.mode = step.mode;
        early.to_source = step.translation.source.to_v6();
        early.to_destination = step.translation.destination.to_v6();
    }
    let gateway = member.flags & (MEMBER_HAS_GATEWAY | MEMBER_HAS_GATEWAY6);
    early.ifindex = 0;
    if *found == Found::Member
        && member.flags & MEMBER_RESOLVED != 0
        && Encapsulation::is_known(member.encapsulation)
        // A router would lead it to the VIP again.
        && (early.mode != MODE_L2 || gateway == 0)
    {
        early.ifindex = member.ifindex;
        early.mtu = u32::from(member.mtu);
        early.macs = mac_words(member.destination_mac, member.source_mac);
    }
    tables.tell_first_came(early);
}

#[inline(always)]
fn head<A: Family>(ip: &Ip<A>, head: &mut EarlyHead) {
    let before = ip.transport_at() - ETHERNET_LEN;
    head.source = ip.source.to_v6();
    head.destination = ip.destination.to_v6();
    head.identification = ip.identification;
    head.protocol = u32::from(ip.fragment_key().protocol);
    head.offset = u32::from(ip.fragment & OFFSET) * 8;
    head.len = ip.total_len.wrapping_sub(before);
    head.packet_len = ip.total_len;
    head.is_routed = 0;
}

/// Has a fragment kept whose first one has not come yet: it is for a VIP, or from a backend. How that ended; `Forwarded` is for
/// one that goes on as it came.
#[inline(never)]
pub(super) fn keep<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
    is_for_vip: bool,
) -> Reason {
    let lost = if is_for_vip { Reason::FragmentToVip } else { Reason::Forwarded };
    let Scratch { ip, early, .. } = scratch;
    if ip.ttl <= 1 || ip.total_len > EARLY_BYTES as u32 {
        return lost;
    }
    let (key, now) = (ip.fragment_key(), tables.now());
    let awaited = key.to_v6();
    if tables.awaited(&awaited) != Some(now) {
        tables.note_awaited(&awaited, now);
    }
    // The first one came just now: this one is as good as lost.
    if tables.fragment(&key).is_some_and(|first| first.is_current(now)) {
        return lost;
    }
    head(ip, &mut early.head);
    early.head.is_routed = u32::from(!is_for_vip);
    if packet.keep(&early.head) { Reason::FragmentKept } else { lost }
}
