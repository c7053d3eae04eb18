//! SCTP (RFC 9260), as far as it matters here: what a packet's first chunk says of an association's life, in TCP's words, so
//! that flows of both live alike; whose tag it has; and the addresses that it must not name.
//!
//! | Chunk | Flags |
//! |---|---|
//! | INIT | SYN |
//! | INIT ACK | SYN, ACK |
//! | SHUTDOWN, SHUTDOWN ACK | FIN, ACK |
//! | ABORT, SHUTDOWN COMPLETE | RST |
//! | any other | ACK |
//!
//! Only the first chunk is looked at. INIT, INIT ACK and SHUTDOWN COMPLETE are alone in their packets (§6.10), so an
//! association whose SHUTDOWN came behind another chunk still ends with the SHUTDOWN ACK and what completes it. Its receiver minds a
//! SHUTDOWN COMPLETE only where it has sent a SHUTDOWN ACK (§8.5.1 C): any other one says nothing here, either, where both
//! directions are seen.
//!
//! **Tags.** Each direction's entry has the tag that its packets are to have, in the place of TCP's first sequence number; zero
//! while it is not known. The client's INIT says the one of packets to it, and the backend's INIT ACK both, until the flow is
//! confirmed: anybody may have sent the INIT that is answered, also that of an association that begins anew (§5.2.2). What
//! the two have agreed on only the backend's COOKIE ACK says: it has the one tag, and, if that is another one than before or
//! no cookie with a known tag came, the client's next packet the other one. Where the backend's answers do not come through
//! here, the client's COOKIE ECHO has it. A packet with another tag goes on, since its receiver drops it (§8.5), but says
//! nothing of the flow's life, so nobody ends or confirms a flow who does not know its tags; but for who is first with a
//! packet behind such a COOKIE ACK, and, where answers are not seen, with a COOKIE ECHO.
//!
//! **Addresses.** An INIT or INIT ACK may list more addresses of its sender. Those of a backend mean nothing to a client, and a
//! flow is known by one address of its client only (RFC 3257 §4), so none is left: the parameters stay where they are, with
//! the highest bit of their type set, which makes them padding (0x8005, RFC 4820) or unknown ones that are skipped
//! without a word (RFC 9260 §3.2.1). Where backends answer clients themselves, packets stay as they are.

use crate::checksum::Delta;
use crate::crc32c;
use crate::family::{Family, word, words};
use crate::flow::{
    DIRECTION_TO_CLIENT, Flow, SCTP, STATE_BACKEND_FIN, STATE_CLIENT_FIN, STATE_CONFIRMED,
    STATE_MODE, Translation,
};
use crate::packet::Packet;
use crate::parse::{AT_MASK, ETHERNET_LEN, Kind, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Transport};
use crate::peer;
use crate::pipeline::{Arrival, Scratch};
use crate::reason::Reason;
use crate::service::{MODE_ACROSS, MODE_NAT};
use crate::tables::TablesOf;

/// Bytes of the common header and of a chunk's.
pub(crate) const LEAST_LEN: u32 = 16;
/// Bytes of the common header.
const COMMON_LEN: u32 = 12;
/// Bytes of a packet with an INIT before its parameters.
const INIT_LEN: u32 = 32;
/// Where the tag is that an INIT gives its receiver.
const INITIATE_TAG_AT: u32 = 16;
const CHECKSUM_AT: u32 = 8;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
/// Of an ABORT's and a SHUTDOWN COMPLETE's flags: its sender knows no association, and has sent the tag back that it got.
const REFLECTED: u8 = 1;
/// That, beside TCP's flags.
const TAG_REFLECTED: u8 = 32;
/// A SHUTDOWN COMPLETE, beside TCP's flags.
const COMPLETES: u8 = 128;
/// What says which tags are agreed on, beside TCP's flags: a cookie or, from the backend, that it was good.
const AGREES: u8 = 64;

/// Parameters of an INIT that are looked at.
const MOST_PARAMETERS: u32 = 24;
/// Bytes of an INIT's packet that are looked at: as far as sums are moved at once.
const MOST_INIT_LEN: u32 = 2044;
const PARAMETER_LEN: u32 = 4;
const IPV4_ADDRESS: u16 = 5_u16.to_be();
const IPV6_ADDRESS: u16 = 6_u16.to_be();
/// The highest bit of a parameter's type: who does not know the type goes on with the next one.
const SKIPPED: u16 = 0x8000_u16.to_be();

/// What a packet says whose header begins at `at` and which ends at `end`; its first [`LEAST_LEN`] bytes are there.
#[inline(always)]
pub(crate) fn transport<P: Packet>(packet: &mut P, at: u32, end: u32) -> Result<Transport, Reason> {
    let h = packet.read::<7>(at).ok_or(Reason::Malformed)?;
    let [chunk, chunk_flags] = h[6].to_ne_bytes();
    let tag = word([h[2], h[3]]);
    let mut initiate_tag = 0;
    if chunk == INIT || chunk == INIT_ACK {
        if at + INIT_LEN > end || !packet.pull(at + INIT_LEN) {
            return Err(Reason::Malformed);
        }
        let [a, b] = packet.read::<2>(at + INITIATE_TAG_AT).ok_or(Reason::Malformed)?;
        initiate_tag = word([a, b]);
    }
    let flags = match chunk {
        INIT if tag == 0 && initiate_tag != 0 => TCP_SYN,
        // It begins nothing (RFC 9260 §8.5.1 A, §3.3.2).
        INIT => TCP_SYN | TCP_RST,
        INIT_ACK => TCP_SYN | TCP_ACK,
        SHUTDOWN | SHUTDOWN_ACK => TCP_FIN | TCP_ACK,
        ABORT | SHUTDOWN_COMPLETE => {
            let reflected = if chunk_flags & REFLECTED != 0 { TAG_REFLECTED } else { 0 };
            TCP_RST | reflected | if chunk == SHUTDOWN_COMPLETE { COMPLETES } else { 0 }
        }
        COOKIE_ECHO | COOKIE_ACK => TCP_ACK | AGREES,
        _ => TCP_ACK,
    };
    Ok(Transport {
        kind: Kind::Sctp,
        flags,
        header_len: COMMON_LEN,
        sequence: initiate_tag,
        acknowledged: tag,
        source_port: h[0],
        destination_port: h[1],
    })
}

/// The tag that a flow's first packet gives those to its client; 0 if it gives none.
#[inline(always)]
pub(crate) fn tag_to_client<A: Family>(arrival: &Arrival<A>) -> u32 {
    if arrival.key.protocol() == SCTP { u32::from_be(arrival.sequence) } else { 0 }
}

/// The flags that a flow's packet has a right to, by its tag; none if it has another one. Learns tags on the way.
#[inline(never)]
pub(crate) fn genuine_flags<A: Family, T: TablesOf<A>>(
    tables: &T,
    arrival: &Arrival<A>,
    entry: &T::Flow,
) -> u32 {
    let (flags, tag) = (arrival.flags, u32::from_be(arrival.acknowledged));
    let is_from_backend = entry.direction() == DIRECTION_TO_CLIENT;
    let is_confirmed = entry.seen() & STATE_CONFIRMED != 0;
    let offers = flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK && !is_confirmed;
    // Of a flow that the cookie itself confirmed all is known.
    let agrees = flags & AGREES != 0 && !(is_confirmed && entry.first_reply() == tag);
    if is_from_backend && (offers || agrees) {
        entry.set_first_reply(tag);
        if let Some(peer) = peer::find(tables, &arrival.key, entry) {
            // Of a COOKIE ACK none: the client's next packet has it.
            peer.set_first_reply(u32::from_be(arrival.sequence));
        }
    } else if flags & AGREES != 0 && entry.seen() & STATE_MODE != 0 {
        entry.set_first_reply(tag);
    }
    if flags & TCP_SYN != 0 {
        return u32::from(flags & (TCP_SYN | TCP_ACK));
    }
    let mut expected = entry.first_reply();
    if flags & TAG_REFLECTED != 0 {
        expected = match peer::find(tables, &arrival.key, entry) {
            Some(peer) => peer.first_reply(),
            None => 0,
        };
    } else if expected == 0 && flags & (TCP_RST | TCP_FIN) == 0 {
        // A flow that began elsewhere, or whose backend's answers do not come through here.
        entry.set_first_reply(tag);
        expected = tag;
    }
    let awaited = if is_from_backend { STATE_CLIENT_FIN } else { STATE_BACKEND_FIN };
    let is_early = flags & COMPLETES != 0 && entry.seen() & (awaited | STATE_MODE) == 0;
    if tag != 0 && tag == expected && !is_early { u32::from(flags) } else { 0 }
}

/// Makes a flow's packet ready for its translation: takes the addresses out of an INIT or INIT ACK, and leaves in `scratch`
/// what the change of ports does to the sum. Here, once for all ways that it may go on from here, since the verifier walks
/// the multiplications for each.
///
/// # Errors
///
/// `Untranslatable` if it is in fragments, whose sum covers what is in the others, or merged from several and on its way to the
/// other family; or what [`hide_addresses`] says.
#[inline(never)]
pub(crate) fn prepare<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { ip, transport, step, .. } = scratch;
    let (source, destination) = match step.mode {
        MODE_NAT => (step.translation.source_port, step.translation.destination_port),
        MODE_ACROSS => (step.across.source_port, step.across.destination_port),
        _ => return Ok(()),
    };
    let changed = [transport.source_port ^ source, transport.destination_port ^ destination];
    let difference = u32::from_le(word(changed));
    let is_merged = packet.segment_payload() != 0;
    if ip.is_fragment() && difference != 0 || is_merged && step.mode == MODE_ACROSS {
        return Err(Reason::Untranslatable);
    }
    let len = (ETHERNET_LEN + ip.total_len).wrapping_sub(ip.transport_at());
    if transport.flags & TCP_SYN != 0 {
        hide_addresses(packet, scratch)?;
    }
    scratch.options.change = crc32c::moved(difference, len);
    Ok(())
}

/// Gives a packet whose header begins at `at` other ports; `change` is what that does to its sum.
#[inline(always)]
pub(crate) fn write_ports<A: Family, P: Packet>(
    packet: &mut P,
    at: u32,
    change: u32,
    to: &Translation<A>,
) -> Option<()> {
    packet.write(at, [to.source_port, to.destination_port])?;
    change_sum(packet, at, change, to.ports)
}

/// Changes the sum of a packet whose words have changed by `content`: to a device's sum of the whole packet both are words.
#[inline(always)]
fn change_sum<P: Packet>(packet: &mut P, at: u32, change: u32, content: Delta) -> Option<()> {
    let old = packet.read::<2>(at + CHECKSUM_AT)?;
    let new = words(crc32c::update(u32::from_le(word(old)), change).to_le());
    packet.note_change(content.and(Delta::of(old, new)));
    packet.write(at + CHECKSUM_AT, new)
}

/// Takes the addresses out of a flow's INIT or INIT ACK.
///
/// # Errors
///
/// `Untranslatable` if it is in fragments, or of more bytes or parameters than are looked at.
#[inline(never)]
pub(crate) fn hide_addresses<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
) -> Result<(), Reason> {
    let Scratch { ip, options, .. } = scratch;
    let at = ip.transport_at();
    let packet_end = if packet.segment_payload() == 0 {
        ETHERNET_LEN + ip.total_len
    } else {
        packet.frame_len()
    };
    let len = packet_end.wrapping_sub(at);
    if ip.is_fragment() || len > MOST_INIT_LEN {
        return Err(Reason::Untranslatable);
    }
    if !packet.pull(packet_end) {
        return Err(Reason::Malformed);
    }
    let [_, chunk_len] = packet.read::<2>(at + COMMON_LEN).ok_or(Reason::Malformed)?;
    let chunk_end = at + COMMON_LEN + u32::from(u16::from_be(chunk_len));
    options.at = at + INIT_LEN;
    options.packet_end = packet_end;
    options.end = if chunk_end < packet_end { chunk_end } else { packet_end };
    options.change = 0;
    let mut looks = 0;
    while looks < MOST_PARAMETERS {
        looks += 1;
        if hide_next(packet, scratch) == 0 {
            let Scratch { ip, options, .. } = scratch;
            let (at, change) = (ip.transport_at(), options.change);
            return change_sum(packet, at, change, Delta::default()).ok_or(Reason::WriteFault);
        }
    }
    Err(Reason::Untranslatable)
}

/// Looks at the next parameter; 0 if there is none. What is behind one of an impossible length nobody reads.
#[inline(never)]
fn hide_next<A: Family, P: Packet>(packet: &mut P, scratch: &mut Scratch<A>) -> u32 {
    let options = &mut scratch.options;
    let at = options.at & AT_MASK & !1;
    if at + PARAMETER_LEN > options.end {
        return 0;
    }
    let Some([kind, len]) = packet.read::<2>(at) else { return 0 };
    let len = u32::from(u16::from_be(len));
    if len < PARAMETER_LEN {
        return 0;
    }
    if kind == IPV4_ADDRESS || kind == IPV6_ADDRESS {
        if packet.write(at, [kind | SKIPPED]).is_none() {
            return 0;
        }
        packet.note_change(Delta::of([kind], [kind | SKIPPED]));
        options.change ^= crc32c::moved_highest_bit(options.packet_end - at);
    }
    // Beyond what a frame's offsets can say there is nothing to look at.
    let next = at + ((len + 3) & !3);
    options.at = if next > AT_MASK { AT_MASK } else { next };
    1
}
