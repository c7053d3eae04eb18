//! The host's packets: what the kernel does to a packet behind a program's back.

use std::cell::Cell;
use std::ops::Range;

use crate::checksum::{self, Delta};
use crate::early::EarlyHead;
use crate::packet::{ChecksumChange, MOST_MOVED, MOST_ZEROES, Outer, Packet};
use crate::reason::Reason;
use crate::vlan::{self, TagWord};

/// Where a device's sum begins.
const ETHERNET_LEN: usize = 14;

/// A packet at TC (`RESOLVES`) or at XDP.
#[derive(Clone, Debug)]
pub(crate) struct ModelPacket<const RESOLVES: bool> {
    pub(crate) bytes: Vec<u8>,
    /// Bytes that may be read in place; the rest lies in other pages until it is pulled.
    pub(crate) linear: usize,
    /// Payload bytes of each merged segment, or 0.
    pub(crate) segment_payload: u32,
    /// Where the transport's checksum is, if it holds the pseudo-header's sum only (`CHECKSUM_PARTIAL`).
    pub(crate) partial: Option<usize>,
    /// What a device's sum of the whole packet was told to have changed by.
    pub(crate) noted: Delta,
    /// What user space was told.
    pub(crate) punted: Cell<Option<(Reason, u16)>>,
}

impl<const RESOLVES: bool> ModelPacket<RESOLVES> {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let linear = bytes.len();
        Self {
            linear,
            bytes,
            segment_payload: 0,
            partial: None,
            noted: Delta::default(),
            punted: Cell::new(None),
        }
    }

    /// The sum that a device makes of the whole packet.
    pub(crate) fn device_sum(&self) -> Delta {
        let from = self.bytes.len().min(ETHERNET_LEN);
        Delta(self.sum_of(from..self.bytes.len()))
    }

    /// What that was told is what has changed since.
    pub(crate) fn check_device_sum(&self, before: Delta, reason: Reason) {
        // Where the sender has left the checksum to its device there is no such sum.
        if RESOLVES && self.partial.is_none() {
            let (told, is) = (before.and(self.noted), self.device_sum());
            assert!(checksum::is_same(told.0, is.0), "{reason:?}: the device's sum is wrong");
        }
    }

    fn sum_of(&self, range: Range<usize>) -> u16 {
        let words = self.bytes[range].chunks(2).map(|word| match *word {
            [a, b] => u16::from_ne_bytes([a, b]),
            _ => u16::from_ne_bytes([word[0], 0]),
        });
        super::folded(&words.collect::<Vec<_>>())
    }

    fn word(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at + 2).filter(|_| at + 2 <= self.linear)?;
        Some(u16::from_ne_bytes([bytes[0], bytes[1]]))
    }
}

impl<const RESOLVES: bool> Packet for ModelPacket<RESOLVES> {
    const RESOLVES_NEIGHBOURS: bool = RESOLVES;
    /// How many they are.
    type Near = u32;
    const HAS_DEVICE_SUM: bool = RESOLVES;

    fn unlinked(n: u32) -> u32 {
        n
    }

    fn zero(_: u32) -> u64 {
        0
    }

    fn any(reason: Reason, _: u64) -> Reason {
        reason
    }

    fn frame_len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn segment_payload(&self) -> u32 {
        self.segment_payload
    }

    fn link_mtu(&self) -> u32 {
        1500
    }

    fn interface_place(&self) -> u32 {
        0
    }

    fn ifindex(&self) -> u32 {
        1
    }

    fn own_mac(&self) -> Option<[u16; 3]> {
        Some([0; 3])
    }

    fn is_addressed_here(&self, destination: [u16; 3]) -> bool {
        destination == [0; 3]
    }

    fn has_tag_aside(&self) -> bool {
        false
    }

    fn tag(&self) -> TagWord {
        let [protocol, control] = self.read(12).unwrap_or_default();
        if vlan::is_tag(protocol) { vlan::word(protocol, control) } else { 0 }
    }

    fn take_tag(&mut self) -> Option<()> {
        // The kernel leaves no frame that is shorter than Ethernet's header.
        if self.bytes.len() < 4 + 14 {
            return None;
        }
        let rest = self.bytes.len().min(18);
        // The kernel takes out of the sum what is before the packet then.
        self.noted = self.noted.and(Delta(self.sum_of(ETHERNET_LEN..rest)).undone());
        self.bytes.drain(12..16);
        self.linear -= 4;
        Some(())
    }

    fn put_tag(&mut self, tag: TagWord) -> Option<()> {
        self.bytes.splice(12..12, tag.to_ne_bytes());
        self.linear += 4;
        self.noted = self.noted.and(Delta(self.sum_of(ETHERNET_LEN..18)));
        Some(())
    }

    fn enter(&mut self, _: u32) {}

    fn pull(&mut self, len: u32) -> bool {
        self.linear = self.linear.max((len as usize).min(self.bytes.len()));
        len as usize <= self.bytes.len()
    }

    fn read<const N: usize>(&self, at: u32) -> Option<[u16; N]> {
        assert_eq!(at % 2, 0, "offsets are even");
        let mut words = [0; N];
        for (n, word) in words.iter_mut().enumerate() {
            *word = self.word(at as usize + 2 * n)?;
        }
        Some(words)
    }

    fn write<const N: usize>(&mut self, at: u32, words: [u16; N]) -> Option<()> {
        self.read::<N>(at)?;
        for (n, word) in words.into_iter().enumerate() {
            let at = at as usize + 2 * n;
            self.bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        Some(())
    }

    fn reach(&self, len: u32) -> Option<u32> {
        (len as usize <= self.linear).then_some(len)
    }

    fn load<const N: usize>(&self, near: u32, at: u32) -> [u16; N] {
        assert!(at + 2 * N as u32 <= near, "the verifier refuses it");
        self.read(at).expect("it is in reach")
    }

    fn store<const N: usize>(&mut self, near: u32, at: u32, words: [u16; N]) {
        assert!(at + 2 * N as u32 <= near, "the verifier refuses it");
        self.write(at, words).expect("it is in reach");
    }

    fn renew_checksum(&mut self, near: u32, change: ChecksumChange, len: u32) -> Option<u32> {
        assert!(change.at + 2 <= near && len <= near && change.partial.is_some());
        self.update_transport_checksum(change).map(|()| len)
    }

    fn grow(&mut self, outer: Outer) -> Option<()> {
        let len = outer.bytes() as usize;
        self.bytes.splice(14..14, std::iter::repeat_n(0xaa, len));
        self.linear += len;
        self.partial = self.partial.map(|at| at + len);
        Some(())
    }

    fn change_family(&mut self, old_len: u32, new_len: u32, is_v6: bool) -> Option<()> {
        let (old, new) = (old_len as usize, new_len as usize);
        assert!(14 + old <= self.linear, "what goes was read");
        self.bytes.splice(14..14 + old, std::iter::repeat_n(0xaa, new));
        self.bytes[12..14].copy_from_slice(if is_v6 { &[0x86, 0xdd] } else { &[8, 0] });
        self.linear = self.linear + new - old;
        self.partial = self.partial.map(|at| at + new - old);
        Some(())
    }

    fn exchange_header(&mut self, to_v6: bool, len: u32) -> Option<Self::Near> {
        if !to_v6 {
            let taken = Delta(self.sum(14, 20)?);
            self.note_change(taken.undone());
        }
        self.change_family(if to_v6 { 20 } else { 40 }, if to_v6 { 40 } else { 20 }, to_v6)?;
        self.bytes[..14].fill(0xaa);
        self.reach(len)
    }

    fn note_change(&mut self, change: Delta) {
        self.noted = self.noted.and(change);
    }

    fn insert_zeroes(&mut self, at: u32, zeroes: u32) -> Option<()> {
        let (at, zeroes) = (at as usize, zeroes as usize);
        assert!(zeroes < MOST_ZEROES as usize && self.bytes.len() - at <= MOST_MOVED as usize);
        self.bytes.splice(at..at, std::iter::repeat_n(0, zeroes));
        self.linear += if at <= self.linear { zeroes } else { 0 };
        Some(())
    }

    fn sum(&mut self, at: u32, len: u32) -> Option<u16> {
        let range = at as usize..(at + len) as usize;
        self.bytes.get(range.clone())?;
        Some(self.sum_of(range))
    }

    fn punt(&self, reason: Reason, _: usize, mtu: u16) {
        self.punted.set(Some((reason, mtu)));
    }

    fn keep(&self, _: &EarlyHead) -> bool {
        true
    }

    /// As the kernel's `bpf_l4_csum_replace` does.
    fn update_transport_checksum(&mut self, change: ChecksumChange) -> Option<()> {
        let [old] = self.read(change.at)?;
        if change.optional && old == 0 {
            let addresses = if change.is_v6 { change.pseudo_header } else { Delta::default() };
            self.note_change(addresses.and(change.content));
            return Some(());
        }
        let new = match self.partial {
            Some(at) => {
                assert_eq!(at, change.at as usize);
                assert!(change.partial.is_none_or(|sum| checksum::is_same(sum, old)), "{change:?}");
                // The field is a plain sum, not its complement.
                !checksum::update(!old, change.pseudo_header)
            }
            None if change.optional => {
                checksum::update_optional(old, change.pseudo_header.and(change.content))
            }
            None => checksum::update(old, change.pseudo_header.and(change.content)),
        };
        if !change.is_v6 {
            self.note_change(change.pseudo_header.undone());
        }
        self.write(change.at, [new])
    }
}
