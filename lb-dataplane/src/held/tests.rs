use std::net::Ipv4Addr;

use super::*;

const WAY: Way = Way {
    form: Form::Translated,
    source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5)),
    destination: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 9)),
    link: None,
};
const FOR: Duration = Duration::from_secs(2);
const MOST: usize = 256;
const MOST_OF_SOURCE: usize = 32;
const MOST_DATAGRAMS: usize = 1024;

fn datagram(source: u8, identification: u32) -> Datagram {
    let address = |host| Ipv4Addr::new(10, 1, 0, host).into();
    Datagram { source: address(source), destination: address(255), identification, protocol: 17 }
}

fn fragment(range: Range<u32>, mark: u8) -> Fragment {
    let mut packet = vec![0x45; 20];
    packet[8] = 64;
    packet[10..12].fill(0);
    let sum = crate::icmp::checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.push(mark);
    Fragment { range, packet, is_routed: false }
}

fn marks(answers: &[SentOn]) -> Vec<u8> {
    answers.iter().map(|answer| answer.packet[20]).collect()
}

#[test]
fn what_was_kept_leaves_once_when_its_first_one_has_come_and_what_comes_then_at_once() {
    let (mut held, now) = (Held::new(256, FOR), Instant::now());
    assert_eq!(held.fragment(datagram(5, 1), fragment(2960..4008, 3), now), None);
    assert_eq!(held.fragment(datagram(5, 1), fragment(1480..2960, 2), now), None);
    assert_eq!(held.fragment(datagram(5, 2), fragment(1480..2960, 9), now), None);
    let sent = held.first_came(datagram(5, 1), WAY, now);
    assert_eq!(marks(&sent), [3, 2]);
    let packet = &sent[0].packet;
    assert_eq!((sent[0].to, packet[8]), (WAY.destination, 63));
    assert_eq!((&packet[12..16], &packet[16..20]), (&[10, 1, 0, 5][..], &[10, 2, 0, 9][..]));
    assert!(held.first_came(datagram(5, 1), WAY, now).is_empty());
    let late = held.fragment(datagram(5, 1), fragment(4008..4016, 4), now);
    assert_eq!(marks(late.as_slice()), [4]);
    assert_eq!((held.kept, held.counts().released), (1, 3));
}

#[test]
fn fragments_that_overlap_take_their_datagram_with_them_and_a_copy_is_left_out() {
    let (mut held, now) = (Held::new(256, FOR), Instant::now());
    held.fragment(datagram(5, 1), fragment(8..16, 1), now);
    held.fragment(datagram(5, 1), fragment(8..16, 1), now);
    assert_eq!(held.kept, 1);
    held.fragment(datagram(5, 1), fragment(16..24, 2), now);
    held.fragment(datagram(5, 1), fragment(16..24, 3), now);
    assert_eq!(held.kept, 0, "they differ");
    held.fragment(datagram(5, 1), fragment(32..40, 4), now);
    assert!(held.first_came(datagram(5, 1), WAY, now).is_empty());
    assert_eq!(held.counts(), HeldCounts { overlapping: 5, ..HeldCounts::default() });
}

#[test]
fn there_is_room_for_so_many_of_a_source_and_in_all_and_for_a_second() {
    let (mut held, now) = (Held::new(256, FOR), Instant::now());
    for n in 0..40 {
        held.fragment(datagram(5, n), fragment(8..16, 0), now);
    }
    assert_eq!(held.kept, MOST_OF_SOURCE);
    for n in 0..400 {
        held.fragment(datagram(6 + (n % 200) as u8, 100 + n), fragment(8..16, 0), now);
    }
    assert_eq!(held.kept, MOST);
    for n in 0..MOST_DATAGRAMS as u32 {
        held.first_came(datagram(250, 1000 + n), WAY, now);
    }
    assert_eq!(held.datagrams.len(), MOST_DATAGRAMS);
    let later = now + FOR;
    assert_eq!(held.deadline(), Some(later));
    assert!(held.expire(later).is_empty(), "they were for a VIP");
    held.fragment(datagram(5, 7), fragment(8..16, 0), later);
    assert_eq!((held.kept, held.datagrams.len(), held.order.len()), (1, 1, 1));
    assert_eq!(held.of_source.len(), 1);
    let counts = held.counts();
    assert_eq!((counts.expired, counts.refused), (MOST as u64, 440 - MOST as u64));
    assert_eq!(marks(&held.first_came(datagram(5, 7), WAY, later)), [0]);
}

#[test]
fn the_last_hop_is_not_gone() {
    let (mut held, now) = (Held::new(256, FOR), Instant::now());
    let mut last = fragment(8..16, 0);
    last.packet[8] = 1;
    held.fragment(datagram(5, 1), last, now);
    assert!(held.first_came(datagram(5, 1), WAY, now).is_empty());
    let mut lying = fragment(8..16, 0);
    lying.packet.truncate(14);
    assert_eq!(held.fragment(datagram(5, 1), lying, now), None);
}

#[test]
fn a_backends_own_goes_on_as_it_came_where_it_cannot_be_kept_or_nothing_is_said_in_time() {
    let (mut held, now) = (Held::new(256, FOR), Instant::now());
    let own = |n: u32| Fragment { is_routed: true, ..fragment(8..16, n as u8) };
    for n in 0..MOST_OF_SOURCE as u32 {
        assert_eq!(held.fragment(datagram(5, n), own(n), now), None);
    }
    let beyond = held.fragment(datagram(5, 99), own(99), now).expect("there is no room for it");
    let came = IpAddr::from([0x45; 4]);
    assert_eq!((beyond.to, beyond.link, beyond.packet[8]), (came, None, 63));
    assert_eq!(crate::icmp::checksum(&beyond.packet[..20]), 0);
    let late = held.expire(now + FOR);
    assert_eq!(marks(&late), (0..MOST_OF_SOURCE as u8).collect::<Vec<_>>());
    assert_eq!(held.deadline(), None);
    let counts = held.counts();
    assert_eq!((counts.expired, counts.refused), (MOST_OF_SOURCE as u64, 1));
}

#[test]
fn a_damaged_header_does_not_become_whole_and_one_without_a_number_goes_by_its_mac_only() {
    let now = Instant::now();
    let link = Some(Link { ifindex: 8, macs: [2; 12], mtu: 21 });
    for (damage, way, sent) in [
        (5_usize, WAY, 0),
        (12, WAY, 0),
        (4, WAY, 0),
        (4, Way { link, ..WAY }, 1),
        (4, Way { link: link.map(|link| Link { mtu: 20, ..link }), ..WAY }, 0),
        (4, Way { form: Form::Within, ..WAY }, 1),
    ] {
        let mut held = Held::new(256, FOR);
        let mut odd = fragment(8..16, 0);
        if damage == 4 {
            odd.packet[4..6].fill(0);
            odd.packet[10..12].fill(0);
            let sum = crate::icmp::checksum(&odd.packet[..20]);
            odd.packet[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            odd.packet[damage] ^= 1;
        }
        held.fragment(datagram(5, 1), odd, now);
        let released = held.first_came(datagram(5, 1), way, now);
        assert_eq!(released.len(), sent, "{damage} {way:?}");
        assert_eq!(held.counts().refused, 1 - sent as u64);
    }
}
