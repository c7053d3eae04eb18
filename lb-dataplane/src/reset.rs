//! RSTs to the sides of a flow that ends here (RFC 9293 §3.5.2): whole packets from the other side's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_dataplane_common::flow::TCP;
use lb_dataplane_common::parse::{TCP_ACK, TCP_RST};

use crate::icmp::{Answer, OWN_TTL, checksum};

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;

/// A RST from one end of a connection to the other. `sequence` is the number of the next octet that the other one expects
/// (RFC 5961 §3.2: only that one is taken at once).
pub(crate) fn reset(from: SocketAddr, to: SocketAddr, sequence: u32) -> Option<Answer> {
    packet(from, to, sequence, None)
}

/// The RST that a connection's first segment is answered with (RFC 9293 §3.10.7.1), given the head of its packet. `None`
/// where the head has no such, or has it behind extension headers.
pub(crate) fn refusal(head: &[u8]) -> Option<Answer> {
    let (from, to, len, tcp_at) = match head.first()? >> 4 {
        4 => {
            let address =
                |at: usize| octets::<4>(head, at).map(|o| IpAddr::from(Ipv4Addr::from(o)));
            let tcp_at = usize::from(head.first()? & 15) * 4;
            (address(12)?, address(16)?, word(head, 2)?, (*head.get(9)? == TCP).then_some(tcp_at)?)
        }
        6 => {
            let address =
                |at: usize| octets::<16>(head, at).map(|o| IpAddr::from(Ipv6Addr::from(o)));
            let len = word(head, 4)?.checked_add(IPV6_LEN as u16)?;
            (address(8)?, address(24)?, len, (*head.get(6)? == TCP).then_some(IPV6_LEN)?)
        }
        _ => return None,
    };
    let (from_port, to_port) = (word(head, tcp_at)?, word(head, tcp_at + 2)?);
    let sequence = u32::from_be_bytes(octets(head, tcp_at + 4)?);
    let header_len = usize::from(head.get(tcp_at + 12)? >> 4) * 4;
    let payload = usize::from(len).checked_sub(tcp_at + header_len)?;
    // The SYN takes a number, too.
    let next = sequence.wrapping_add(1).wrapping_add(u32::try_from(payload).ok()?);
    packet(SocketAddr::new(to, to_port), SocketAddr::new(from, from_port), 0, Some(next))
}

fn packet(from: SocketAddr, to: SocketAddr, sequence: u32, next: Option<u32>) -> Option<Answer> {
    let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(next.unwrap_or(0).to_be_bytes());
    tcp.extend([((TCP_LEN / 4) << 4) as u8, TCP_RST | if next.is_some() { TCP_ACK } else { 0 }]);
    tcp.extend([0; 6]);
    let (mut packet, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend(((IPV4_LEN + TCP_LEN) as u16).to_be_bytes());
            // Not to be fragmented, so without an identification (RFC 6864 §4.1); the kernel fills in the checksum.
            header.extend([0, 0, 0x40, 0, OWN_TTL, TCP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let pseudo = [&from.octets()[..], &to.octets(), &[0, TCP, 0, TCP_LEN as u8]].concat();
            (header, pseudo)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, TCP_LEN as u8, TCP, OWN_TTL];
            header.extend(from.octets());
            header.extend(to.octets());
            let len = [0, 0, 0, TCP_LEN as u8, 0, 0, 0, TCP];
            (header, [&from.octets()[..], &to.octets(), &len].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let sum = checksum(&[pseudo, tcp.clone()].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(tcp);
    Some(Answer { to: to.ip(), packet, has_header: true })
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    octets(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_reset_has_the_addresses_of_the_other_side_and_the_number_that_is_expected() {
        let answer =
            reset(address("192.0.2.1:80"), address("10.1.0.5:40000"), 0x0102_0304).unwrap();
        assert!(answer.has_header);
        assert_eq!(answer.to, address("10.1.0.5:0").ip());
        let (ip, tcp) = answer.packet.split_at(20);
        assert_eq!((&ip[12..16], &ip[16..20]), (&[192, 0, 2, 1][..], &[10, 1, 0, 5][..]));
        assert_eq!(tcp[..14], [0, 80, 0x9c, 0x40, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 4]);
        let pseudo = [&ip[12..20], &[0, 6, 0, 20]].concat();
        assert_eq!(checksum(&[&pseudo, tcp].concat()), 0);
        let answer = reset(address("[2001:db8::1]:80"), address("[2001:db8::5]:4"), 7).unwrap();
        let (ip, tcp) = answer.packet.split_at(40);
        let pseudo = [&ip[8..40], &[0, 0, 0, 20, 0, 0, 0, 6]].concat();
        assert_eq!(checksum(&[&pseudo, tcp].concat()), 0);
    }

    #[test]
    fn a_first_segment_is_refused_with_what_it_takes_of_the_numbers() {
        let mut head = vec![0x45, 0, 0, 45, 0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 0, 5, 192, 0, 2, 1];
        head.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        let answer = refusal(&head).unwrap();
        let tcp = &answer.packet[20..];
        // SYN and five octets of payload.
        assert_eq!(tcp[..14], [0, 80, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 15, 0x50, 0x14]);
        head[9] = 17;
        assert_eq!(refusal(&head), None, "no TCP");
        assert_eq!(refusal(&[]), None);
        assert_eq!(refusal(&[0x60; 44]), None, "an extension header, and too short");
    }
}
