//! ICMP errors about flows between the families.

use super::{
    TCP_CHECKSUM_AT, UDP_CHECKSUM_AT, check_header, pseudo_header, sum_of_header, sum_of_message,
    way_out, write_echo,
};
use crate::checksum::Delta;
use crate::family::across::{quoted_before_extensions, with_extensions};
use crate::family::{Family, protocol_across};
use crate::flow::{Translation, UDP};
use crate::packet::{MOST_MOVED, Packet};
use crate::parse::{AT_MASK, ETHERNET_LEN, Ip};
use crate::pipeline::forward::address_frame;
use crate::pipeline::{Scratch, Way, either};
use crate::quote::{self, Quote};
use crate::reason::Reason;

const ICMP_CHECKSUM_AT: u32 = 2;
/// Bytes of an ICMP error before what it quotes.
const ERROR_LEN: u32 = 8;

/// Sends an ICMP error about a flow on in the other family. To either side it comes from where the packet that it quotes was
/// sent to: the router that sent it has no address there.
#[inline(never)]
pub(in crate::pipeline) fn error_across<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Reason {
    either(error(packet, scratch, way))
}

#[inline(always)]
fn error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    way: &mut Way,
) -> Result<Reason, Reason> {
    let Scratch { ip, step, member, found, .. } = scratch;
    let found = *found;
    if ip.is_fragment() {
        return Err(Reason::Untranslatable);
    }
    if let Some(reason) = found.end_of_flow() {
        return Err(reason);
    }
    let ends = match way_out::<P>(found, false, member, step.direction) {
        Ok(Reason::ForwardedToBackend) => Ok(Reason::ErrorToBackend),
        Ok(Reason::ForwardedToClient) => Ok(Reason::ErrorToClient),
        other => other,
    };
    check_error(packet, scratch)?;
    let is_sent = ends.is_ok();
    rewrite_error(packet, scratch, is_sent)?;
    move_extensions(packet, scratch)?;
    let reason = ends?;
    let Scratch { step, member, .. } = scratch;
    address_frame(packet, member, step.across.destination, way).ok_or(Reason::WriteFault)?;
    Ok(reason)
}

/// Whether an error's checksums are right. That of the error is summed anew when the error has its new form, and must not make a damaged
/// one good.
#[inline(never)]
fn check_error<A: Family, P: Packet>(packet: &mut P, scratch: &Scratch<A>) -> Result<(), Reason> {
    let ip = &scratch.ip;
    check_header(packet, ip)?;
    let at = ip.transport_at();
    let len = error_len(ip)?;
    let sum = Delta(packet.sum(at, len).ok_or(Reason::Untranslatable)?);
    let sum = if A::ICMP_COVERS_ADDRESSES {
        sum.and(pseudo_header(ip.source, ip.destination, A::ICMP, len))
    } else {
        sum
    };
    if sum.0 == 0xffff { Ok(()) } else { Err(Reason::Malformed) }
}

/// Bytes of an error from its ICMP header on.
#[inline(always)]
fn error_len<A: Family>(ip: &Ip<A>) -> Result<u32, Reason> {
    let before = ip.transport_at() - ETHERNET_LEN;
    if ip.total_len < before { Err(Reason::Malformed) } else { Ok(ip.total_len - before) }
}

/// Gives an error, and what it quotes, headers of the other family.
#[inline(never)]
fn rewrite_error<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &mut Scratch<A>,
    is_sent: bool,
) -> Result<(), Reason> {
    let Scratch { ip, quote, step, header, member, options, .. } = scratch;
    let (to, at) = (&step.across, ip.transport_at());
    let [old_first, _, high, low] = packet.read::<4>(at).ok_or(Reason::Malformed)?;
    let quoted_at = quote.transport_at & AT_MASK;
    let old_inner = quoted_at.wrapping_sub(at + ERROR_LEN) & AT_MASK;
    let new_inner = <A::Other as Family>::header_len(&quote.header);
    let longer = new_inner.wrapping_sub(old_inner).cast_signed();
    let old_number = u32::from(u16::from_be(high)) << 16 | u32::from(u16::from_be(low));
    let quoted_len = old_inner + quote.header.payload_len;
    let (first, mut number) = A::error_across(old_first, old_number, -longer, quoted_len)
        .ok_or(Reason::Untranslatable)?;
    let there = error_len(ip)?.wrapping_add_signed(longer);
    let quoted = quoted_before_extensions::<A>(old_first, old_number);
    let extensions = packet.frame_len().wrapping_sub(at + ERROR_LEN + quoted);
    options.change = 0;
    if quoted >= old_inner
        && extensions.wrapping_sub(1) < MOST_MOVED
        && let Some((zeroes, with)) =
            with_extensions::<A::Other>(first, number, quoted.wrapping_add_signed(longer))
    {
        (options.change, number) = (zeroes, with);
        options.at = ETHERNET_LEN + <A::Other as Family>::HEADER_LEN + ERROR_LEN;
        options.at = options.at.wrapping_add(quoted.wrapping_add_signed(longer));
    }
    header.payload_len = there + options.change;
    // Nobody makes one that long (RFC 1812 §4.3.2.3, RFC 4443 §2.4), and no error is sent about it.
    let len = <A::Other as Family>::HEADER_LEN + header.payload_len;
    if is_sent && len > u32::from(member.mtu) {
        return Err(Reason::Untranslatable);
    }
    header.identification = 0;
    header.fragment = 0;
    header.may_be_fragmented = false;
    header.protocol = <A::Other as Family>::ICMP;
    header.ttl = if is_sent { ip.ttl.wrapping_sub(1) } else { ip.ttl };
    header.class = A::class(packet, ETHERNET_LEN).ok_or(Reason::Malformed)?;
    let before = sum_of_error(packet, ip);
    let new_len = <A::Other as Family>::HEADER_LEN + ERROR_LEN + new_inner;
    packet.change_family(quoted_at - ETHERNET_LEN, new_len, !A::IS_V6).ok_or(Reason::WriteFault)?;
    quote.header.protocol = protocol_across::<A>(quote.header.protocol);
    write_quoted(packet, quote, to).ok_or(Reason::WriteFault)?;
    <A::Other as Family>::write_header(packet, ETHERNET_LEN, to.source, to.destination, header)
        .ok_or(Reason::WriteFault)?;
    let number = [(number >> 16) as u16, number as u16].map(u16::to_be);
    let message = [first, 0, number[0], number[1]];
    write_message(packet, [there, header.payload_len], to, message, before)
        .ok_or(Reason::WriteFault)
}

/// Moves what is behind what an error quotes to where the error says that it is.
#[inline(never)]
fn move_extensions<A: Family, P: Packet>(
    packet: &mut P,
    scratch: &Scratch<A>,
) -> Result<(), Reason> {
    let options = &scratch.options;
    if options.change == 0 {
        return Ok(());
    }
    packet.insert_zeroes(options.at, options.change).ok_or(Reason::WriteFault)
}

/// The sum of a packet that is an error, whose checksums are right.
#[inline(never)]
fn sum_of_error<A: Family, P: Packet>(packet: &mut P, ip: &Ip<A>) -> u16 {
    let before = ip.transport_at() - ETHERNET_LEN;
    // One that cannot be summed is not there: the message behind it was summed.
    let header = sum_of_header::<A, P>(packet, before).unwrap_or_default();
    let len = ip.total_len.wrapping_sub(before);
    header.and(sum_of_message(ip.source, ip.destination, len)).0
}

/// Writes what an error of the family B quotes: it goes the other way than the error.
#[inline(never)]
fn write_quoted<B: Family, P: Packet>(
    packet: &mut P,
    quote: &Quote<B::Other>,
    to: &Translation<B>,
) -> Option<()> {
    let ip_at = ETHERNET_LEN + B::HEADER_LEN + ERROR_LEN;
    let at = ip_at + B::header_len(&quote.header);
    if !packet.pull(at + UDP_CHECKSUM_AT + 2) {
        return None;
    }
    B::write_header(packet, ip_at, to.destination, to.source, &quote.header)?;
    let old = &quote.key;
    if quote.header.protocol == B::ICMP {
        let len = quote.header.payload_len;
        let before = sum_of_message(old.source, old.destination, len);
        let change = before.undone().and(sum_of_message(to.destination, to.source, len));
        let identifier = to.source_port | to.destination_port;
        return write_echo::<B::Other, P>(packet, at, identifier, change);
    }
    packet.write(at, [to.destination_port, to.source_port])?;
    if quote.sum_at != 0 {
        let addresses = Delta::between(
            old.source.sum() + old.destination.sum(),
            to.source.sum() + to.destination.sum(),
        );
        let ports = Delta::of([old.source_port], [to.destination_port])
            .and(Delta::of([old.destination_port], [to.source_port]));
        let protocol = quote.header.protocol;
        let sum_at = at + if protocol == UDP { UDP_CHECKSUM_AT } else { TCP_CHECKSUM_AT };
        if !packet.pull(sum_at + 2) {
            return None;
        }
        let [sum] = packet.read::<1>(sum_at)?;
        packet.write(sum_at, [quote::update_sum(protocol, sum, addresses.and(ports))])?;
    }
    Some(())
}

/// Writes an error's own header, and the sum over all of it, which is `there` bytes and zeroes that are still to come. The packet's
/// sum was `before` in its other form.
#[inline(never)]
fn write_message<B: Family, P: Packet>(
    packet: &mut P,
    [there, len]: [u32; 2],
    to: &Translation<B>,
    message: [u16; 4],
    before: u16,
) -> Option<()> {
    let at = ETHERNET_LEN + B::HEADER_LEN;
    packet.write(at, message)?;
    let sum = Delta(packet.sum(at, there)?);
    let sum = if B::ICMP_COVERS_ADDRESSES {
        sum.and(pseudo_header(to.source, to.destination, B::ICMP, len))
    } else {
        sum
    };
    packet.write(at + ICMP_CHECKSUM_AT, [!sum.0])?;
    let header = sum_of_header::<B, P>(packet, B::HEADER_LEN)?;
    let after = header.and(sum_of_message(to.source, to.destination, len));
    packet.note_change(Delta(before).undone().and(after));
    Some(())
}
