//! The hash of a flow: 64 bits, of which the choice of a backend and that of a way out use different halves.
//!
//! It has no seed: every node must choose alike. The addresses are multiplied and folded, the ports put in, and the whole
//! is finished by Stafford's "Mix13" variant of SplitMix64, so that the halves are independent.

use crate::family::Family;
use crate::flow::FlowKey;

/// The hash of one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FlowHash(u64);

impl FlowHash {
    /// The hash of a packet's addresses, ports and protocol.
    #[must_use]
    #[inline(always)]
    pub fn of<A: Family>(key: &FlowKey<A>) -> Self {
        // Big-endian numbers: the same on every machine.
        let port = |n: u16| u64::from(u16::from_be(n));
        let addresses = A::fold(key.source, key.destination);
        let ports = port(key.source_port) << 32
            | port(key.destination_port) << 16
            | u64::from(key.protocol);
        let mut h = (addresses ^ (addresses >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= (h >> 29) ^ ports;
        h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self(h ^ (h >> 31))
    }

    /// The hash of a client's address alone.
    #[must_use]
    #[inline(always)]
    pub fn of_source<A: Family>(source: A) -> Self {
        let none = FlowKey {
            source,
            destination: A::default(),
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            pad: 0,
        };
        Self::of(&none)
    }

    /// The half that chooses a backend.
    #[must_use]
    #[inline(always)]
    pub fn for_backend(self) -> u32 {
        self.0 as u32
    }

    /// The half that chooses a way out.
    #[must_use]
    #[inline(always)]
    pub fn for_route(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_spread_evenly_and_independently() {
        let mut cells = [[0_u32; 8]; 8];
        for n in 0..64_000_u32 {
            let key = FlowKey {
                source: u32::from_ne_bytes([10, 0, (n >> 16) as u8, 1]),
                destination: u32::from_ne_bytes([192, 0, 2, 1]),
                source_port: (n as u16).to_be(),
                destination_port: 80_u16.to_be(),
                protocol: 6,
                pad: 0,
            };
            let hash = FlowHash::of(&key);
            cells[(hash.for_backend() % 8) as usize][(hash.for_route() % 8) as usize] += 1;
        }
        // 1,000 expected in each of 64 cells; six standard deviations is 190.
        assert!(cells.iter().flatten().all(|&n| (810..1190).contains(&n)), "{cells:?}");
    }
}
