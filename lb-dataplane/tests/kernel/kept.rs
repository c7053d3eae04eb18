//! What must be the same of a packet before and behind, byte by byte and with every sum made anew. The tests in the kernel hold the
//! programs against it, and those on the host the packet path.

use std::net::IpAddr;

use crate::frame::{pseudo_header, sum};
use crate::naive::Naive;
use crate::said::{self, Ends, SCTP, TCP, UDP};

/// GUE's port (draft-ietf-intarea-gue).
const GUE_PORT: u16 = 6080;

/// As it came but for MACs and a hop.
pub(crate) fn check_hop(out: &[u8], frame: &[u8], before: &Naive) {
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
pub(crate) fn check_tunnel(out: &[u8], frame: &[u8], before: &Naive) {
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
pub(crate) fn check_headers((before, frame): (&Naive, &[u8]), (after, out): (&Naive, &[u8])) {
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
pub(crate) fn check_content(
    (before, frame): (&Naive, &[u8]),
    (after, out): (&Naive, &[u8]),
    is_later: bool,
) {
    let (old, new) = (&frame[before.transport.clone()], &out[after.transport.clone()]);
    let is_across = out[12..14] != frame[12..14];
    let changes: &[std::ops::Range<usize>] = match before.protocol {
        _ if is_later => &[],
        TCP => &[0..4, 16..18],
        UDP => &[0..4, 6..8],
        // What says that it is an echo is another byte in the other family.
        1 | 58 if is_across => &[0..1, 2..6],
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
        1 | 58 => !is_across,
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

/// What an error quotes is the packet as the error's receiver sent it, from and to these ports where they are known.
pub(crate) fn check_quoted(
    (before, frame): (&Naive, &[u8]),
    (after, out): (&Naive, &[u8]),
    about: Ends,
    are_ports_known: bool,
) {
    let is_across = out[12..14] != frame[12..14];
    let old = &frame[before.transport.start + 8..before.transport.end];
    let new = &out[after.transport.start + 8..after.transport.end];
    let quoted = said::quoted(after.from, new);
    if are_ports_known {
        assert_eq!(quoted, Some(about), "whose packet it is about");
    } else {
        let whose = |ends: Ends| (ends.protocol, ends.from.ip(), ends.to.ip());
        assert_eq!(quoted.map(whose), Some(whose(about)), "whose packet it is about");
    }
    let of = |v4, bytes| said::quoted_header(v4, bytes).unwrap();
    let (old_from, old_to, old_protocol, old_at) = of(before.from.is_ipv4(), old);
    let (new_from, new_to, new_protocol, new_at) = of(after.from.is_ipv4(), new);
    if after.from.is_ipv4() {
        let is_right = |header: &[u8]| sum(&[header]) == 0;
        let expected = is_across || is_right(&old[..old_at]);
        assert_eq!(is_right(&new[..new_at]), expected, "the quoted header");
    }
    // The sum of an echo of IPv6 covers what that of IPv4 does not.
    let covered = |quoted: &[u8], at: usize, ends: (IpAddr, IpAddr), protocol: u8| match protocol {
        58 if is_across => {
            let len = 40 + usize::from(u16::from_be_bytes([quoted[4], quoted[5]]));
            let pseudo = pseudo_header(ends.0, ends.1, protocol, len.saturating_sub(at));
            sum(&[&pseudo, &quoted[at..]]) % 0xffff
        }
        _ => summed(ends.0, ends.1, protocol, &quoted[at..]),
    };
    let sums = [
        covered(old, old_at, (old_from, old_to), old_protocol),
        covered(new, new_at, (new_from, new_to), new_protocol),
    ];
    let (old, new) = (&old[old_at..], &new[new_at..]);
    let zeroes = new.len().checked_sub(old.len()).expect("as much is quoted");
    if zeroes != 0 {
        let message = &frame[before.transport.clone()];
        let says = if before.from.is_ipv4() {
            4 * usize::from(message[5])
        } else {
            8 * usize::from(message[4])
        };
        check_padding(old, new, zeroes, says.checked_sub(old_at));
    }
    let has_sum = match old_protocol {
        TCP => old.len() >= 18,
        UDP => old[6..8] != [0, 0],
        protocol => [1, 58].contains(&protocol),
    };
    if has_sum {
        assert_eq!(sums[0], sums[1], "what is quoted: {frame:02x?} {out:02x?}");
    }
}

/// Between what an error between the families quotes and extensions that it says to be behind that there may be zeroes (RFC 4884
/// §5.1, §5.2).
fn check_padding(old: &[u8], new: &[u8], zeroes: usize, extensions_at: Option<usize>) {
    let at = extensions_at.filter(|at| *at < old.len()).expect("there are no extensions");
    assert!(zeroes < 32 && new[at..at + zeroes].iter().all(|byte| *byte == 0), "{new:02x?}");
    assert_eq!(new[at + zeroes..], old[at..], "extensions");
}

/// An echo's answer is the request, turned round.
pub(crate) fn check_echo(before: &Naive, frame: &[u8], out: &[u8]) {
    let after = Naive::parse(out).expect("what came out contradicts itself");
    assert_eq!((after.from, after.to), (before.to, before.from));
    assert_eq!(before.header_is_right, after.header_is_right, "header: {after:?}");
    assert_eq!(before.transport_is_right(frame), after.transport_is_right(out), "{out:02x?}");
    let (old, new) = (&frame[before.transport.clone()], &out[after.transport.clone()]);
    assert_eq!(new[..2], if before.from.is_ipv4() { [0, 0] } else { [129, 0] });
    assert_eq!(old[4..], new[4..], "identifier, number and content");
}
