//! Looks at what came out, byte by byte and with every sum made anew, and has the reference say whether it may.

use std::net::IpAddr;

use lb_dataplane::fib::Member;
use lb_dataplane::{Answer, Contract, Kind, Reason};

use super::reference::{Allowed, Came, Flow, Reference, Way};
use crate::frame::{pseudo_header, sum};
use crate::kept::{
    check_content, check_echo, check_headers, check_hop, check_quoted, check_tunnel,
};
use crate::naive::Naive;
use crate::said::{self, Ends, Part, Said, TCP};
use crate::scene::{BACKEND_SIDE, CLIENT_SIDE, Ended};

/// Whether what became of a packet is right; whether another one is to find out if it has begun a flow.
pub(super) fn check(reference: &mut Reference, ended: &Ended, frame: &[u8]) -> Option<Ends> {
    if frame[..6] != [0; 6] {
        // The loopback interface's is that of zeroes.
        assert_eq!((ended.reason.kind(), ended.bytes()), (Kind::Pass, frame), "for another MAC");
        reference.count("for another MAC");
        return None;
    }
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
        check_macs(ended, (&frame[6..12], &frame[..6]), "back to who asked");
        check_echo(&Naive::parse(frame).unwrap(), frame, ended.bytes());
    }
    if let Some(kind) = before.as_ref().and_then(|it| demanded(reference, &allowed, it, frame)) {
        let is_there = came.is_some() || ended.reason.kind() == Kind::Reply;
        assert!(is_there, "{kind}: {}", what());
        reference.count(kind);
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

/// As what a packet that nothing is wrong with is not to end here.
fn demanded(
    reference: &Reference,
    allowed: &Allowed,
    before: &Naive,
    frame: &[u8],
) -> Option<&'static str> {
    if !is_plain(before, frame) {
        return None;
    }
    if allowed.must {
        let (id, way) = allowed.flows[0];
        let leaves = reference.flow(id).leaves(way);
        return (!is_blackhole(leaves.to.ip())).then_some("of a flow that has to be there");
    }
    if allowed.serves {
        return Some("of a flow that has to begin");
    }
    if allowed.answered && !allowed.begins {
        return Some("an echo that has to be answered");
    }
    let is_link_wide = before.protocol == 58 && (133..=137).contains(&frame[54]);
    let is_routed = way_out(before.to).is_some_and(|way| way.destination_mac.is_some());
    let is_only_routed = allowed.plain && allowed.flows.is_empty() && !allowed.begins;
    (is_only_routed && is_routed && !is_link_wide).then_some("routed that has to be")
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
            assert!(!is_link_local(before.from), "RFC 3927 §7, RFC 4291 §2.5.6: {before:?}");
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
                let is_across = out[12..14] != frame[12..14];
                let from = match way {
                    Way::ToClient => flow.there.to.ip(),
                    Way::ToBackend if is_across => flow.after.from.ip(),
                    Way::ToBackend => before.from,
                };
                assert_eq!(after.from, from, "who tells of the error");
                let about = flow.leaves(way).reversed();
                // One that has begun in its place comes from another port of ours.
                let is_known = !flow.may_be_another();
                check_quoted((before, frame), (&after, out), about, is_known);
            } else {
                let is_later = part.is_some_and(|part| !part.is_first);
                check_content((before, frame), (&after, out), is_later);
            }
            after.to
        }
    };
    if !is_sent {
        // It looks at them.
        return check_macs(ended, (&frame[..6], &frame[6..12]), "the kernel's");
    }
    let way = way_out(towards).unwrap_or_else(|| panic!("there is no way to {towards}"));
    assert_eq!(ended.ifindex, way.ifindex, "the way to {towards}");
    match (way.destination_mac, way.gateway, towards) {
        (Some(mac), _, _) => check_macs(ended, (&mac, &way.source_mac), "the way out's"),
        (None, Some(IpAddr::V4(hop)), _) | (None, None, IpAddr::V4(hop)) => {
            assert_eq!(ended.resolve, hop, "whom the kernel looks for");
        }
        (None, _, _) => {}
    }
}

/// To whom a frame is, and from whom.
fn check_macs(ended: &Ended, (to, from): (&[u8], &[u8]), whose: &str) {
    let out = ended.bytes();
    assert_eq!((&out[..6], &out[6..12]), (to, from), "MACs: {whose}");
}

/// The way to an address, by the scene's routes.
fn way_out(to: IpAddr) -> Option<Member> {
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
        1 => Some(CLIENT_SIDE),
        2 => Some(BACKEND_SIDE),
        5 => Some(Member { destination_mac: None, ..BACKEND_SIDE }),
        6 => {
            let gateway = Some([10, 2, 0, 254].into());
            Some(Member { destination_mac: None, gateway, ..BACKEND_SIDE })
        }
        _ => None,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
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
        && !is_link_local(naive.from)
        // None is none between the families, and IPv6 has one (RFC 8200 §8.1).
        && naive.transport_is_right(frame).unwrap_or(naive.from.is_ipv4())
        && naive.ttl > 1
        && frame.len() <= 1400
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
