//! What a way out puts around a packet beside its Ethernet header: one word of a FIB's member, by kinds.
//!
//! ```text
//! bits 63..60   59..32              31..0
//!      kind     of the kind's own   of the kind's own: an interface, an index into a table of the kind's
//! ```
//!
//! The word is written and read as a whole, so that packets see what it was or what it is. Another kind (VXLAN, GTP-U, SRv6) is
//! a variant here, without which `address_frame` does not compile. A kind that these programs do not know leaves the packet to
//! the kernel.

use crate::vlan::Tags;

const KIND_SHIFT: u32 = 60;
const NONE: u64 = 0;
const VLAN: u64 = 1;

/// What is put around packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing: plain frames.
    None,
    /// VLAN tags, and the interface below the VLAN's that frames with them leave through. The kernel's own neighbour path goes
    /// through the VLAN's interface, which puts them itself.
    Vlan {
        /// Its index.
        link: u32,
        /// What is put.
        tags: Tags,
    },
    /// Nobody knows what.
    Unknown,
}

impl Encapsulation {
    /// From a member's word.
    #[must_use]
    #[inline(always)]
    pub const fn decode(word: u64) -> Self {
        match word >> KIND_SHIFT {
            NONE => Self::None,
            VLAN => Self::Vlan { link: word as u32, tags: Tags::from_bits((word >> 32) as u32) },
            _ => Self::Unknown,
        }
    }

    /// The member's word; what is not known is all ones.
    #[must_use]
    pub const fn encode(self) -> u64 {
        match self {
            Self::None => NONE << KIND_SHIFT,
            Self::Vlan { link, tags } => {
                VLAN << KIND_SHIFT | (tags.bits() as u64) << 32 | link as u64
            }
            Self::Unknown => u64::MAX,
        }
    }

    /// Whether packets can be sent so.
    #[must_use]
    #[inline(always)]
    pub const fn is_known(word: u64) -> bool {
        !matches!(Self::decode(word), Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlan::Tag;

    #[test]
    fn a_word_says_what_was_encoded_and_kinds_of_others_are_unknown() {
        let (inner, outer) = (Tag::new(false, 4095), Tag::new(true, 1));
        for known in [
            Encapsulation::None,
            Encapsulation::Vlan { link: u32::MAX, tags: Tags::one(inner) },
            Encapsulation::Vlan { link: 7, tags: Tags::two(outer, inner) },
        ] {
            assert_eq!(Encapsulation::decode(known.encode()), known);
            assert!(Encapsulation::is_known(known.encode()));
        }
        assert_eq!(Encapsulation::None.encode(), 0, "a member of zeroes is plain");
        for kind in 2..16 {
            let word = kind << KIND_SHIFT | 5;
            assert_eq!(Encapsulation::decode(word), Encapsulation::Unknown);
            assert!(!Encapsulation::is_known(word));
        }
        assert!(!Encapsulation::is_known(Encapsulation::Unknown.encode()));
    }
}
