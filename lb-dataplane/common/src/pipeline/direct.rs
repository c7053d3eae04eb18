//! Direct server return: a client's packets reach a backend with the addresses that they came with, in a frame to its MAC or in
//! another packet, and the backend answers the client itself. So there is no direction to the client, and what a backend
//! sends says nothing of a flow's life.

use super::forward::{Found, address_frame, left_to_kernel, packet_len};
use super::{Scratch, Way};
use crate::checksum::Delta;
use crate::family::Family;
use crate::fib::{MEMBER_HAS_GATEWAY, MEMBER_HAS_GATEWAY6};
use crate::flow::FlowKey;
use crate::hash::FlowHash;
use crate::packet::{Outer, Packet};
use crate::parse::{ETHERNET_LEN, Kind};
use crate::punt::QUOTED;
use crate::reason::Reason;
use crate::service::{MODE_GUE, MODE_L2};

/// Bytes of a UDP header.
const UDP_LEN: u32 = 8;
/// The port of GUE (IANA, "gue"). The datagrams are of its variant 1: the packet follows UDP's header (draft-ietf-intarea-gue §4).
const GUE_PORT: u16 = 6080;
/// Source ports of GUE: those that RFC 6335 §6 leaves to everybody.
const FIRST_SOURCE_PORT: u16 = 49_152;

/// Sends a packet of a flow, or an ICMP error about one, to the flow's backend.
#[inline(never)]
pub(super) fn forward_direct<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    super::either(forward(packet, scratch, way))
}

/// The source port of the datagrams around a flow's packets: another one for each flow, by which others spread them.
#[inline(always)]
pub(super) fn source_port<A: Family>(key: &FlowKey<A>) -> u16 {
    FIRST_SOURCE_PORT | FlowHash::of(key).for_route() as u16
}

#[inline(always)]
fn forward<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, transport, arrival, step, member, found, .. } = scratch;
    let found = *found;
    // No error is sent about a later fragment or an error (RFC 1122 §3.2.2).
    let may_tell = !matches!(transport.kind, Kind::LaterFragment | Kind::Error);
    if ip.ttl <= 1 {
        if may_tell {
            packet.punt(Reason::FlowTtlExpired, A::QUOTED_SHORT, 0);
        }
        return Err(Reason::FlowTtlExpired);
    }
    let backend = step.translation.destination;
    if let Some(reason) = found.end_of_flow() {
        return Err(reason);
    }
    let overhead = match step.mode {
        MODE_L2 => 0,
        MODE_GUE => A::HEADER_LEN + UDP_LEN,
        _ => A::HEADER_LEN,
    };
    let len = packet_len(packet, ip, transport) + overhead;
    if found == Found::Member && len > u32::from(member.mtu) {
        // Also of a packet that may be fragmented: nobody does that here, and silence would last.
        if may_tell {
            let room = u32::from(member.mtu).saturating_sub(overhead);
            packet.punt(Reason::FlowTooBig, QUOTED, room as u16);
        }
        return Err(Reason::FlowTooBig);
    }
    let is_without_flow = step.begins && !step.is_new;
    if step.mode == MODE_L2 {
        let behind_gateway = member.flags & (MEMBER_HAS_GATEWAY | MEMBER_HAS_GATEWAY6) != 0;
        // The kernel would lead such a packet to the VIP again.
        if found != Found::Member || behind_gateway || left_to_kernel::<P>(member, true).is_some() {
            return Err(Reason::DirectUnreachable);
        }
        A::write_ttl(packet, ip.ttl.wrapping_sub(1)).ok_or(Reason::WriteFault)?;
        address_frame(packet, member, backend, way).ok_or(Reason::WriteFault)?;
        return Ok(if is_without_flow {
            Reason::ForwardedWithoutFlow
        } else {
            Reason::ForwardedDirectly
        });
    }
    A::write_ttl(packet, ip.ttl.wrapping_sub(1)).ok_or(Reason::WriteFault)?;
    // Merged segments may be longer than the field can say; whoever takes them apart writes it anew.
    let inner_len = match packet.segment_payload() {
        0 => ip.total_len,
        _ => packet.frame_len() - ETHERNET_LEN,
    };
    let has_udp = step.mode == MODE_GUE;
    packet.grow(Outer { is_v6: A::IS_V6, has_udp }).ok_or(Reason::WriteFault)?;
    A::write_outer(packet, step.translation.source, backend, inner_len + overhead, has_udp)
        .ok_or(Reason::WriteFault)?;
    if has_udp {
        let port = source_port(&arrival.key);
        let len = (inner_len + UDP_LEN) as u16;
        // No checksum: what is inside has its own (RFC 768; RFC 6935 §5, RFC 6936).
        let udp = [port.to_be(), GUE_PORT.to_be(), len.to_be(), 0];
        packet.write(ETHERNET_LEN + A::HEADER_LEN, udp).ok_or(Reason::WriteFault)?;
        packet.note_change(Delta::of([0; 4], udp));
    }
    match found {
        Found::Member => {}
        Found::Kernel | Found::Blackhole | Found::NoRoom => return Err(Reason::FlowRoutedByKernel),
        Found::Nothing => return Err(Reason::FlowNoRoute),
    }
    if let Some(reason) = left_to_kernel::<P>(member, true) {
        return Err(reason);
    }
    address_frame(packet, member, backend, way).ok_or(Reason::WriteFault)?;
    Ok(if is_without_flow { Reason::ForwardedWithoutFlow } else { Reason::ForwardedByTunnel })
}
