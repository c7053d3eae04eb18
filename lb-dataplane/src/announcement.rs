//! Telling the hosts of a link, unasked, that a VIP has this node's MAC: they replace at once what they knew.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use crate::held::Link;
use crate::icmp::checksum;
use crate::sys;

const BROADCAST: [u8; 6] = [0xff; 6];
/// The MAC of all nodes of a link (RFC 2464 §7), and their address (RFC 4291 §2.7.1).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
/// It takes the place of what was known, and answers no question.
const OVERRIDE: u8 = 0x20;
const TARGET_MAC: u8 = 2;

/// A socket for frames.
#[derive(Debug)]
pub struct Announcer(OwnedFd);

impl Announcer {
    /// In the network namespace of the thread.
    ///
    /// # Errors
    ///
    /// Without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        sys::frame_socket().map(Self)
    }

    /// Tells the link of an interface with this MAC that a VIP has it: by an ARP announcement (RFC 5227 §2.3), or by an
    /// unsolicited neighbour advertisement (RFC 4861 §7.2.6).
    ///
    /// # Errors
    ///
    /// The interface is gone or down, or its queue full.
    pub fn announce(&self, ifindex: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
        sys::send_frame(&self.0, ifindex, &announcement(address, mac))
    }

    /// Sends a packet, from its IP header on, through an interface whose link is Ethernet.
    ///
    /// # Errors
    ///
    /// The interface is gone or down, its queue full, or the packet longer than its MTU.
    pub fn send(&self, link: &Link, packet: &[u8]) -> io::Result<()> {
        let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let ethertype = if is_v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
        let frame = [&link.macs[..], &ethertype.to_be_bytes(), packet].concat();
        sys::send_frame(&self.0, link.ifindex, &frame)
    }
}

fn announcement(address: IpAddr, mac: [u8; 6]) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(address, mac),
        IpAddr::V6(address) => advertisement(address, mac),
    }
}

fn arp(address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let address = address.octets();
    [
        &BROADCAST[..],
        &mac,
        // ARP; Ethernet, IPv4, the lengths of their addresses, a request.
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac,
        &address,
        &[0; 6],
        &address,
    ]
    .concat()
}

fn advertisement(address: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let target = address.octets();
    let all = ALL_NODES.octets();
    let option = [&[TARGET_MAC, 1][..], &mac].concat();
    let mut icmp = [&[ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0][..], &target, &option].concat();
    let len = icmp.len() as u8;
    let pseudo = [&target[..], &all, &[0, 0, 0, len, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd]].concat();
    let ip = [&[0x60, 0, 0, 0, 0, len, ICMPV6, 255][..], &target, &all].concat();
    [ethernet, ip, icmp].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_says_whose_address_has_which_mac() {
        let mac = [2, 0, 0, 0, 0, 7];
        let frame = announcement(IpAddr::from([192, 0, 2, 10]), mac);
        assert_eq!((&frame[..6], &frame[6..12]), (&[0xff; 6][..], &mac[..]));
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!((&frame[22..28], &frame[28..32]), (&mac[..], &[192, 0, 2, 10][..]));
        assert_eq!(frame[38..], [192, 0, 2, 10]);

        let frame = announcement("2001:db8::10".parse().unwrap(), mac);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!((frame[21], frame[54], frame[58]), (255, 136, 0x20));
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo[..], &frame[54..]].concat()), 0);
    }
}
