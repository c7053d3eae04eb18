//! Looks at what came out, byte by byte and with every sum made anew, and has the reference say whether it may.

use std::net::IpAddr;

use lb_dataplane::{Answer, Contract, Kind, Reason};

use super::reference::{Came, Flow, Reference, Way};
use super::said::{self, Ends, Part, SCTP, Said, TCP, UDP};
use crate::frame::{pseudo_header, sum};
use crate::naive::Naive;
use crate::scene::Ended;

/// GUE's port (draft-ietf-intarea-gue).
const GUE_PORT: u16 = 6080;

/// Whether what became of a packet is right; whether another one is to find out if it has begun a flow.
pub(super) fn check(reference: &mut Reference, ended: &Ended, frame: &[u8]) -> Option<Ends> {
    let before =
        Naive::parse(frame).filter(|naive| naive.is_between_hosts() && !said::has_stops(frame));
    let (said, part) = before.as_ref().map_or((Said::Wrong, None), |b| said::read(frame, b));
    let to = before.as_ref().map_or(IpAddr::from([0; 4]), |before| before.to);
    let allowed = reference.judge(&said, part.as_ref(), to);
    let came = came(ended, frame);
    let what = || format!("{:?} of {said:?}: {allowed:?}", ended.reason);
    if ended.reason.kind() == Kind::Reply {
        assert!(allowed.answered, "{}", what());
        reference.count("an echo that is answered");
        check_echo(&Naive::parse(frame).unwrap(), frame, ended.bytes());
    }
    if allowed.must && is_plain(before.as_ref().unwrap(), frame) {
        let (id, way) = allowed.flows[0];
        let leaves = reference.flow(id).leaves(way);
        assert!(came.is_some() || is_blackhole(leaves.to.ip()), "{}", what());
        reference.count("of a flow that has to be there");
    }
    if let (Some(_), Some(before)) = (came, &before) {
        assert!(before.may_be_forwarded(), "{}", what());
    }
    if let Some(what) = counted(&said, came) {
        reference.count(what);
    }
    let found = reference.learn((&said, part.as_ref()), &allowed, came);
    if let (Some(came), Some(before)) = (came, &before) {
        let flow = found.map(|(id, way)| (*reference.flow(id), way));
        check_bytes(ended, frame, (before, &said, part.as_ref()), came, flow);
    }
    match said {
        Said::Ends(ends, _) | Said::Asks(ends) if allowed.begins && came.is_none() => Some(ends),
        _ => None,
    }
}

/// What a packet that came out is counted as.
fn counted(said: &Said, came: Option<Came>) -> Option<&'static str> {
    Some(match (came?, said) {
        (Came::Plain, _) => "routed as it is",
        (Came::Direct, _) => "in a frame to a backend",
        (Came::Inside(..), _) => "within another packet",
        (Came::Translated(_), Said::Error(about)) if about.protocol == TCP => "an error about TCP",
        (Came::Translated(_), Said::Error(_)) => "another error",
        (Came::Translated(_), Said::Later) => "a later part",
        (Came::Translated(_), _) => "translated",
    })
}

/// How a packet came out, if it did.
fn came(ended: &Ended, frame: &[u8]) -> Option<Came> {
    let out = ended.bytes();
    match (ended.reason.kind(), ended.reason.contract()) {
        (Kind::Drop | Kind::Reply, _) => None,
        (Kind::Pass, Contract::Original) => {
            assert_eq!(out, frame, "passed on changed");
            None
        }
        _ if ended.reason == Reason::ForwardedDirectly => Some(Came::Direct),
        (_, Contract::Original) => Some(Came::Plain),
        _ => {
            let after = Naive::parse(out).expect("what came out contradicts itself");
            if ended.reason == Reason::ForwardedByTunnel {
                return Some(Came::Inside(after.from, after.to));
            }
            Some(Came::Translated(match said::read(out, &after).0 {
                Said::Ends(ends, _) | Said::Asks(ends) => ends,
                _ => Ends {
                    protocol: after.protocol,
                    from: (after.from, 0).into(),
                    to: (after.to, 0).into(),
                },
            }))
        }
    }
}

fn check_bytes(
    ended: &Ended,
    frame: &[u8],
    (before, said, part): (&Naive, &Said, Option<&Part>),
    came: Came,
    flow: Option<(Flow, Way)>,
) {
    let out = ended.bytes();
    let is_sent = ended.reason.kind() == Kind::Forward;
    let towards = match came {
        Came::Plain => {
            check_hop(out, frame, before);
            let is_link_local = match before.from {
                IpAddr::V4(from) => from.is_link_local(),
                IpAddr::V6(from) => from.is_unicast_link_local(),
            };
            assert!(!is_link_local, "RFC 3927 §7, RFC 4291 §2.5.6: {before:?}");
            before.to
        }
        Came::Direct => {
            check_hop(out, frame, before);
            flow.unwrap().0.after.to.ip()
        }
        Came::Inside(_, to) => {
            check_tunnel(out, frame, before);
            to
        }
        Came::Translated(_) => {
            let after = Naive::parse(out).unwrap();
            let (flow, way) = flow.unwrap();
            assert_eq!(after.ttl + u8::from(is_sent), before.ttl, "the hop is counted once");
            check_headers((before, frame), (&after, out));
            if let Said::Error(_) = said {
                check_quoted((before, frame), (&after, out), &flow, way);
            } else {
                let is_later = part.is_some_and(|part| !part.is_first);
                check_content((before, frame), (&after, out), is_later);
            }
            after.to
        }
    };
    if is_sent {
        assert_eq!(Some(ended.ifindex), route(towards), "the way to {towards}");
    }
}

/// The interface towards an address, by the scene's routes.
fn route(to: IpAddr) -> Option<u32> {
    let network = match to {
        IpAddr::V4(to) => match to.octets() {
            [10, network, ..] => network.into(),
            _ => return None,
        },
        IpAddr::V6(to) => match to.segments() {
            [0x2001, 0xdb8, network, ..] => network,
            _ => return None,
        },
    };
    match network {
        1 => Some(7),
        2 | 5 | 6 => Some(8),
        _ => None,
    }
}

fn is_blackhole(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(to) => to.octets()[..2] == [10, 4],
        IpAddr::V6(to) => to.segments()[..3] == [0x2001, 0xdb8, 4],
    }
}

/// Whether there is nothing about a packet for which it might not go on.
fn is_plain(naive: &Naive, frame: &[u8]) -> bool {
    let has_plain_header = if naive.from.is_ipv4() {
        frame[14] == 0x45
    } else {
        frame[20] == naive.protocol && naive.transport.start == 54
    };
    has_plain_header
        && !naive.is_fragment
        && naive.header_is_right
        && naive.transport_is_right(frame) == Some(true)
        && naive.ttl > 1
        && frame.len() <= 1400
}

/// As it came but for MACs and a hop.
fn check_hop(out: &[u8], frame: &[u8], before: &Naive) {
    let after = Naive::parse(out).expect("what came out contradicts itself");
    assert_eq!(after.header_is_right, before.header_is_right, "{after:?}");
    let (ttl_at, sum_at) = if before.from.is_ipv4() { (22, 24..26) } else { (21, 0..0) };
    assert_eq!(out[ttl_at] + 1, frame[ttl_at], "the hop is counted once");
    let mut restored = out.to_vec();
    restored[..12].copy_from_slice(&frame[..12]);
    restored[ttl_at] = frame[ttl_at];
    restored[sum_at.clone()].copy_from_slice(&frame[sum_at]);
    assert_eq!(restored, frame, "a packet that is routed stays as it is");
}

/// The packet is in another one, as it came but for a hop.
fn check_tunnel(out: &[u8], frame: &[u8], before: &Naive) {
    let outer = Naive::parse(out).expect("what came out contradicts itself");
    let is_gue = outer.protocol == UDP;
    assert!(outer.header_is_right && (is_gue || [4, 41].contains(&outer.protocol)), "{outer:?}");
    let (header, mut inside) = out.split_at(outer.transport.start);
    if is_gue {
        let word = |n: usize| u16::from_be_bytes([inside[n], inside[n + 1]]);
        let expected = (GUE_PORT, outer.transport.len(), 0);
        assert_eq!((word(2), usize::from(word(4)), word(6)), expected);
        inside = &inside[8..];
    }
    assert_eq!(header.len() - 14, if before.from.is_ipv4() { 20 } else { 40 });
    check_hop(&[&frame[..14], inside].concat(), frame, before);
}

/// Right stays right and wrong stays wrong; who had no sum may get one between the families.
fn check_headers((before, frame): (&Naive, &[u8]), (after, out): (&Naive, &[u8])) {
    if out[12..14] != frame[12..14] {
        assert!(before.header_is_right && after.header_is_right, "{before:?} {after:?}");
    } else {
        assert_eq!(out.len(), frame.len());
        assert_eq!((after.protocol, &after.transport), (before.protocol, &before.transport));
        assert_eq!(before.header_is_right, after.header_is_right, "header: {after:?}");
    }
    match (before.transport_is_right(frame), after.transport_is_right(out)) {
        (None, None | Some(true)) => {}
        (before, after) => assert_eq!(before, after, "of {frame:02x?}: {out:02x?}"),
    }
}

/// Nothing but ports and sums has changed, and the sums by what the ports and addresses have.
fn check_content((before, frame): (&Naive, &[u8]), (after, out): (&Naive, &[u8]), is_later: bool) {
    let (old, new) = (&frame[before.transport.clone()], &out[after.transport.clone()]);
    let changes: &[std::ops::Range<usize>] = match before.protocol {
        _ if is_later => &[],
        TCP => &[0..4, 16..18],
        UDP => &[0..4, 6..8],
        1 | 58 => &[2..4, 4..6],
        // Addresses in what begins an association are hidden.
        SCTP if [1, 2].contains(&old[12]) => &[0..4, 8..12, 32..usize::MAX],
        SCTP => &[0..4, 8..12],
        other => panic!("protocol {other} has no flows"),
    };
    let kept = |bytes: &[u8]| -> Vec<u8> {
        let is_kept = |at: &usize| !changes.iter().any(|range| range.contains(at));
        (0..bytes.len()).filter(is_kept).map(|at| bytes[at]).collect()
    };
    assert_eq!(kept(old), kept(new), "content");
    let has_sum = match before.protocol {
        _ if is_later => false,
        UDP => old[6..8] != [0, 0],
        protocol => protocol != SCTP,
    };
    if has_sum {
        let sums = (linear(before, old), linear(after, new));
        assert_eq!(sums.0, sums.1, "of a part, too: {frame:02x?} {out:02x?}");
    }
}

/// What a checksum makes a constant: the sum over addresses, ports and all that it covers, itself included. It says of a part of a
/// packet, too, whether its sum was changed by as much as the rest of it.
fn linear(naive: &Naive, transport: &[u8]) -> u16 {
    summed(naive.from, naive.to, naive.protocol, transport)
}

fn summed(from: IpAddr, to: IpAddr, protocol: u8, transport: &[u8]) -> u16 {
    let pseudo = if protocol == 1 { Vec::new() } else { pseudo_header(from, to, 0, 0) };
    // Both forms of zero are one.
    sum(&[&pseudo, transport]) % 0xffff
}

/// What an error quotes is the packet as the error's receiver sent it, and the error comes from whom it has to do with.
fn check_quoted(
    (before, frame): (&Naive, &[u8]),
    (after, out): (&Naive, &[u8]),
    flow: &Flow,
    way: Way,
) {
    let is_across = out[12..14] != frame[12..14];
    let from = match way {
        Way::ToClient => flow.there.to.ip(),
        Way::ToBackend if is_across => flow.after.from.ip(),
        Way::ToBackend => before.from,
    };
    assert_eq!(after.from, from, "who tells of the error");
    let old = &frame[before.transport.start + 8..before.transport.end];
    let new = &out[after.transport.start + 8..after.transport.end];
    let quoted = said::quoted(after.from, new);
    assert_eq!(quoted, Some(flow.leaves(way).reversed()), "whose packet it is about");
    let of = |v4, bytes| said::quoted_header(v4, bytes).unwrap();
    let (old_from, old_to, old_protocol, old_at) = of(before.from.is_ipv4(), old);
    let (new_from, new_to, new_protocol, new_at) = of(after.from.is_ipv4(), new);
    if after.from.is_ipv4() {
        let is_right = |header: &[u8]| sum(&[header]) == 0;
        let expected = is_across || is_right(&old[..old_at]);
        assert_eq!(is_right(&new[..new_at]), expected, "the quoted header");
    }
    let (old, new) = (&old[old_at..], &new[new_at..]);
    assert_eq!(old.len(), new.len(), "as much is quoted");
    let has_sum = match old_protocol {
        TCP => old.len() >= 18,
        UDP => old[6..8] != [0, 0],
        protocol => [1, 58].contains(&protocol),
    };
    if has_sum {
        let sums = [
            summed(old_from, old_to, old_protocol, old),
            summed(new_from, new_to, new_protocol, new),
        ];
        assert_eq!(sums[0], sums[1], "what is quoted: {frame:02x?} {out:02x?}");
    }
}

/// An echo's answer is the request, turned round.
fn check_echo(before: &Naive, frame: &[u8], out: &[u8]) {
    let after = Naive::parse(out).expect("what came out contradicts itself");
    assert_eq!((after.from, after.to), (before.to, before.from));
    assert_eq!(before.header_is_right, after.header_is_right, "header: {after:?}");
    assert_eq!(before.transport_is_right(frame), after.transport_is_right(out), "{out:02x?}");
    let (old, new) = (&frame[before.transport.clone()], &out[after.transport.clone()]);
    assert_eq!(new[..2], if before.from.is_ipv4() { [0, 0] } else { [129, 0] });
    assert_eq!(old[4..], new[4..], "identifier, number and content");
}

/// What a packet's sender is told of it: an ICMP error that quotes it as it was, or a RST.
pub(super) fn check_answer(reference: &mut Reference, answer: &Answer, frame: &[u8]) {
    let naive = Naive::parse(frame).expect("nobody answers what contradicts itself");
    assert_eq!(answer.to, naive.from, "its sender is told");
    let (said, part) = said::read(frame, &naive);
    let is_later = part.is_some_and(|part| !part.is_first);
    assert!(!is_later && !matches!(said, Said::Error(_)), "of {said:?} nobody is told");
    let packet = &answer.packet;
    let is_v4 = naive.from.is_ipv4();
    let header_len = if !answer.has_header { 0 } else { if is_v4 { 20 } else { 40 } };
    let (header, message) = packet.split_at(header_len);
    if answer.has_header && is_v4 {
        assert_eq!(header[0], 0x45);
        assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), packet.len());
    }
    let is_reset = answer.has_header && header[if is_v4 { 9 } else { 6 }] == TCP;
    if is_reset {
        let Said::Ends(ends, life) = said else { panic!("a RST to {said:?}") };
        reference.count("a RST");
        assert!(life.asks && reference.refuses_with_a_reset(&ends), "a RST to {ends:?}");
        return check_reset(answer, ends.reversed());
    }
    reference.count("an ICMP error");
    // ICMPv6's sum is the kernel's to make, which knows the address that it sends from.
    let sent = if is_v4 { sum(&[message]) } else { 0 };
    assert_eq!(sent, 0, "ICMP checksum of {packet:02x?}");
    let quoted = &message[8..];
    assert!(quoted.len() >= 28 && frame[14..].starts_with(quoted), "as it was: {packet:02x?}");
}

/// A RST that an end of a connection gets, as if from the other.
pub(super) fn check_reset(answer: &Answer, ends: Ends) {
    let packet = &answer.packet;
    let tcp = &packet[if ends.from.is_ipv4() { 20 } else { 40 }..];
    let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    assert_eq!((word(0), word(2)), (ends.from.port(), ends.to.port()));
    assert!(tcp.len() == 20 && tcp[12] == 0x50 && tcp[13] & 4 != 0, "{tcp:02x?}");
    let pseudo = pseudo_header(ends.from.ip(), ends.to.ip(), TCP, tcp.len());
    assert_eq!(sum(&[&pseudo, tcp]), 0, "TCP checksum of {packet:02x?}");
    // The addresses that the sum is over are those of its header.
    let (from, to) = if ends.from.is_ipv4() { (12..16, 16..20) } else { (8..24, 24..40) };
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let expected = (octets(ends.from.ip()), octets(ends.to.ip()));
    assert_eq!((packet[from].to_vec(), packet[to].to_vec()), expected);
}
