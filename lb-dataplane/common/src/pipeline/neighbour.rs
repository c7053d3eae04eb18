//! Who asks a link for the MAC of a VIP, where this node answers for it there: ARP (RFC 826, RFC 5227) and neighbour discovery
//! (RFC 4861). The kernel would not: to it a VIP is no address of its own.

use crate::checksum;
use crate::family::{V6, word, words};
use crate::packet::Packet;
use crate::parse::{ETHERNET_LEN, ethertype};
use crate::reason::Reason;
use crate::tables::{AnswerKey, Tables};

/// Where an ARP packet for Ethernet and IPv4 ends.
const ARP_END: u32 = ETHERNET_LEN + 28;
const ARP: u16 = 0x0806_u16.to_be();
const ARP_ETHERNET: u16 = 1_u16.to_be();
/// Bytes of a MAC and of an IPv4 address.
const ARP_LENGTHS: u16 = 0x0604_u16.to_be();
const ARP_REQUEST: u16 = 1_u16.to_be();
const ARP_REPLY: u16 = 2_u16.to_be();

/// Where ICMPv6 begins: neighbour discovery has no extension headers to speak of.
const ICMP_AT: u32 = ETHERNET_LEN + 40;
/// Next header ICMPv6 and a hop limit of 255: nobody from another link asks (RFC 4861 §7.1.1).
const ICMP_OF_THE_LINK: u16 = u16::from_ne_bytes([58, 255]);
const SOLICITATION: u16 = u16::from_ne_bytes([135, 0]);
const ADVERTISEMENT: u16 = u16::from_ne_bytes([136, 0]);
/// Of an advertisement: it answers a question, and takes the place of what was known.
const SOLICITED: u16 = 0x6000_u16.to_be();
const OVERRIDE: u16 = 0x2000_u16.to_be();
/// Bytes of a question or an answer without options.
const LEN: u16 = 24;
/// The same with one option, the MAC.
const LEN_WITH_MAC: u16 = 32;
/// The longest question that is looked at.
const MAX_LEN: u16 = 256;
const TARGET_MAC: u16 = u16::from_ne_bytes([2, 1]);
/// All nodes of a link (RFC 4291 §2.7.1), and their MAC (RFC 2464 §7).
const ALL_NODES: V6 = [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()];
const ALL_NODES_MAC: [u16; 3] = [0x3333_u16.to_be(), 0, 1_u16.to_be()];

/// Answers who asks for the MAC of a VIP that is this node's on the link; else the packet ends as it would.
#[inline(never)]
pub(super) fn answer<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    otherwise: Reason,
) -> Reason {
    match try_answer(packet, tables) {
        Some(Some(())) => Reason::NeighbourAnswered,
        Some(None) => Reason::WriteFault,
        None => otherwise,
    }
}

/// `None` if nothing is to be answered; else whether the answer could be written.
#[inline(always)]
fn try_answer<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Option<Option<()>> {
    let [_, _, _, a, b, c, kind] = packet.read::<7>(0)?;
    if kind == ARP {
        answer_arp(packet, tables)
    } else if kind == ethertype(true) {
        answer_solicitation(packet, tables, [a, b, c])
    } else {
        None
    }
}

#[inline(always)]
fn answer_arp<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Option<Option<()>> {
    if !packet.pull(ARP_END) {
        return None;
    }
    let [hardware, protocol, lengths, operation, a, b, c, s0, s1, _, _, _, t0, t1] =
        packet.read::<14>(ETHERNET_LEN)?;
    let is_request = operation == ARP_REQUEST && lengths == ARP_LENGTHS;
    let is_for_us = hardware == ARP_ETHERNET && protocol == ethertype(false);
    // Whoever asks for its own address tells that it has it (RFC 5227 §3).
    if !is_request || !is_for_us || (s0, s1) == (t0, t1) {
        return None;
    }
    let target = [0, 0, u32::to_be(0xffff), word([t0, t1])];
    let [x, y, z] = own_mac(packet, tables, target)?;
    let reply = [ARP_REPLY, x, y, z, t0, t1, a, b, c, s0, s1];
    Some(packet.write(0, [a, b, c, x, y, z]).and_then(|()| packet.write(ETHERNET_LEN + 6, reply)))
}

/// This node's MAC on the link, if it answers for an address there.
#[inline(always)]
fn own_mac<P: Packet, T: Tables>(packet: &P, tables: &T, address: V6) -> Option<[u16; 3]> {
    let ifindex = packet.ifindex();
    if tables.answers(&AnswerKey { address, ifindex }) { packet.own_mac() } else { None }
}

#[inline(always)]
fn answer_solicitation<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: [u16; 3],
) -> Option<Option<()>> {
    if !packet.pull(ICMP_AT + u32::from(LEN)) {
        return None;
    }
    let [_, _, len, next_and_hops] = packet.read::<4>(ETHERNET_LEN)?;
    let [first, _] = packet.read::<2>(ICMP_AT)?;
    let len = u16::from_be(len);
    if next_and_hops != ICMP_OF_THE_LINK || first != SOLICITATION || !(LEN..MAX_LEN).contains(&len)
    {
        return None;
    }
    let target = address(packet, ICMP_AT + 8)?;
    let own = own_mac(packet, tables, target)?;
    let source = address(packet, ETHERNET_LEN + 8)?;
    let asked = address(packet, ETHERNET_LEN + 24)?;
    let sum = packet.sum(ICMP_AT, u32::from(len))?;
    let sum = u32::from(sum) + pseudo_header(source, asked, len);
    if checksum::fold(sum) != 0xffff {
        return None;
    }
    // Who has no address yet wants to know whether somebody has this one (RFC 4862 §5.4), and asks all who may.
    let [a, b, c, d] = source;
    let (to, mac, flags) = match a | b | c | d {
        0 if !is_solicited_node(asked) => return None,
        0 => (ALL_NODES, ALL_NODES_MAC, OVERRIDE),
        _ => (source, sender, SOLICITED),
    };
    let len = if len >= LEN_WITH_MAC { LEN_WITH_MAC } else { LEN };
    Some(write_advertisement(packet, target, own, (to, mac), flags, len))
}

/// Whether this is the multicast address of some node (RFC 4291 §2.7.1, ff02::1:ff00:0/104).
#[inline(always)]
fn is_solicited_node([a, b, c, d]: V6) -> bool {
    let is_prefix = [a, b, c] == [0xff02_0000_u32.to_be(), 0, 1_u32.to_be()];
    is_prefix && d & 0xff00_0000_u32.to_be() == 0xff00_0000_u32.to_be()
}

#[inline(always)]
fn write_advertisement<P: Packet>(
    packet: &mut P,
    target: V6,
    own: [u16; 3],
    (to, mac): (V6, [u16; 3]),
    flags: u16,
    len: u16,
) -> Option<()> {
    let [x, y, z] = own;
    let [a, b, c] = mac;
    let mut sum = pseudo_header(target, to, len) + u32::from(ADVERTISEMENT) + u32::from(flags);
    sum += sum_of(target);
    packet.write(0, [a, b, c, x, y, z])?;
    if len == LEN_WITH_MAC {
        sum += u32::from(TARGET_MAC) + u32::from(x) + u32::from(y) + u32::from(z);
        packet.write(ICMP_AT + u32::from(LEN), [TARGET_MAC, x, y, z])?;
    }
    packet.write(ETHERNET_LEN + 4, [len.to_be(), ICMP_OF_THE_LINK])?;
    packet.write(ETHERNET_LEN + 8, all_words(target))?;
    packet.write(ETHERNET_LEN + 24, all_words(to))?;
    packet.write(ICMP_AT, [ADVERTISEMENT, !checksum::fold(sum), flags, 0])
}

/// The sum of what ICMPv6's checksum covers beside the message (RFC 8200 §8.1), not folded.
#[inline(always)]
fn pseudo_header(source: V6, destination: V6, len: u16) -> u32 {
    sum_of(source) + sum_of(destination) + u32::from(len.to_be()) + u32::from(58_u16.to_be())
}

#[inline(always)]
fn sum_of(address: V6) -> u32 {
    let [a, b, c, d] = address;
    let half = |word: u32| (word & 0xffff) + (word >> 16);
    half(a) + half(b) + half(c) + half(d)
}

#[inline(always)]
fn address<P: Packet>(packet: &P, at: u32) -> Option<V6> {
    let [a, b, c, d, e, f, g, h] = packet.read::<8>(at)?;
    Some([word([a, b]), word([c, d]), word([e, f]), word([g, h])])
}

#[inline(always)]
fn all_words(address: V6) -> [u16; 8] {
    let [[a, b], [c, d], [e, f], [g, h]] = address.map(words);
    [a, b, c, d, e, f, g, h]
}
