//! IPv4 packets whose options choose their way (RFC 791 §3.1, loose and strict source route): no service is a stop on one.
//!
//! All other options are carried along to a flow's other side, unread; between the families they stay behind
//! (RFC 7915 §4.1). Routed packets with options are the kernel's, which does what a router is to do with them.

use crate::family::Family;
use crate::flow::{FlowKey, SCTP, TCP, UDP};
use crate::mss::Options;
use crate::packet::Packet;
use crate::parse::{AT_MASK, ETHERNET_LEN};
use crate::pipeline::{NO_VIP, Scratch, vip_flags};
use crate::punt::QUOTED;
use crate::reason::Reason;
use crate::tables::TablesOf;

/// Steps of the walk over a header's options, of which there are 40 bytes at most. An option is a step, and so are four bytes of
/// nothing; a header of more is nobody's honest one, and taken for one that hides a route.
const MOST_STEPS: u32 = 16;
/// Bytes of both ports.
const PORTS_LEN: u32 = 4;
const END: u8 = 0;
const NOTHING: u8 = 1;
const TWO_OF_NOTHING: u16 = 0x0101;
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

/// Drops a packet to a VIP or of a flow that has stops of a source route still before it, and has its sender told
/// (RFC 7915 §4.1, RFC 7126 §4.3); leaves such packets of others to the kernel.
///
/// # Errors
///
/// The reason for which the packet's way ends here.
#[inline(never)]
pub(crate) fn check<A: Family, P: Packet, T: TablesOf<A>>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { ip, options, .. } = scratch;
    let at = ip.transport_at();
    options.at = ETHERNET_LEN + A::HEADER_LEN;
    options.end = at;
    if !packet.pull(at) || !leads_elsewhere(packet, options) {
        return Ok(());
    }
    // No error is sent about a later fragment, nor about an error, which ICMP may be (RFC 1122 §3.2.2).
    let has_ports = matches!(ip.protocol, TCP | UDP | SCTP) && !ip.is_later_fragment();
    if vip_flags(tables, ip.destination) == NO_VIP {
        if !has_ports || !packet.pull(at + PORTS_LEN) {
            return Err(Reason::IpOptions);
        }
        let [source_port, destination_port] = packet.read::<2>(at).ok_or(Reason::Malformed)?;
        let key = FlowKey {
            source: ip.source,
            destination: ip.destination,
            source_port,
            destination_port,
            protocol: u16::from(ip.protocol),
            pad: 0,
        };
        if tables.flow(&key).is_none() {
            return Err(Reason::IpOptions);
        }
    }
    if has_ports {
        let len = if ip.total_len >= QUOTED as u32 { QUOTED } else { A::QUOTED_SHORT };
        packet.punt(Reason::SourceRouted, len, 0);
    }
    Err(Reason::SourceRouted)
}

/// Whether a header's options name stops that the packet has not come by yet.
#[inline(always)]
fn leads_elsewhere<P: Packet>(packet: &P, options: &mut Options) -> bool {
    let mut steps = 0;
    while steps < MOST_STEPS {
        steps += 1;
        match look(packet, options) {
            Seen::Another => {}
            Seen::Stops => return true,
            Seen::Nothing => return false,
        }
    }
    true
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Seen {
    /// An option of another kind, or a way that is behind the packet: the walk has gone on to the next one.
    Another,
    /// Stops that are still to come.
    Stops,
    /// The end, or what is no option: whoever the packet is for makes of it what they will.
    Nothing,
}

#[inline(never)]
fn look<P: Packet>(packet: &P, options: &mut Options) -> Seen {
    let at = options.at & AT_MASK;
    if at >= options.end {
        return Seen::Nothing;
    }
    // A header's length is a multiple of 4, so an option of 3 bytes and more is within these.
    let Some([first, second]) = packet.read::<2>(at & !1) else { return Seen::Nothing };
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    let (kind, len, pointer) = if at & 1 != 0 { (b, c, d) } else { (a, b, c) };
    if kind == NOTHING {
        let are_four = first == TWO_OF_NOTHING && second == TWO_OF_NOTHING && at & 1 == 0;
        options.at = at + if are_four { 4 } else { 1 };
        return Seen::Another;
    }
    if kind == END || len < 2 || at + u32::from(len) > options.end {
        return Seen::Nothing;
    }
    if matches!(kind, LOOSE | STRICT) && len > 2 && pointer <= len {
        return Seen::Stops;
    }
    options.at = at + u32::from(len);
    Seen::Another
}
