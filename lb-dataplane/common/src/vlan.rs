//! VLAN tags (IEEE 802.1Q): those of a frame, those that a way out puts, and the interfaces that they belong to.

/// The ethertype of a C-tag, and of a tag that is the only one (802.1Q).
const C_TAG: u16 = 0x8100;
/// The ethertype of an S-tag (802.1ad).
const S_TAG: u16 = 0x88a8;
/// The bits of a VLAN's number.
const ID: u16 = 0x0fff;

/// VLANs whose frames are handled where they come in, at most; those of others are the kernel's.
pub const MAX_VLANS: u32 = 4096;

/// The four bytes of a frame's tag, as this machine loads them; 0 where there is none.
pub type TagWord = u32;

/// Whether an ethertype, in network byte order, is that of a tag.
#[must_use]
#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == C_TAG.to_be() || ethertype == S_TAG.to_be()
}

/// The word of a tag's two halves, in network byte order.
#[must_use]
#[inline(always)]
pub const fn word(protocol: u16, control: u16) -> TagWord {
    let ([a, b], [c, d]) = (protocol.to_ne_bytes(), control.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// The halves of a tag's word: the ethertype, and priority and number; in network byte order.
#[must_use]
#[inline(always)]
pub const fn halves(word: TagWord) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

/// Which VLAN a tag is of: 12 bits of its number, and whether its ethertype is 802.1ad's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u16);

/// Bits of a [`Tag`].
const TAG_BITS: u32 = 13;
/// Set in [`Tags`] before each tag that is there.
const PRESENT: u32 = 1 << TAG_BITS;
/// Bits of [`Tags`] for each.
const PLACE_BITS: u32 = TAG_BITS + 1;

impl Tag {
    /// A tag with priority 0, as the kernel puts it unless it is told otherwise.
    #[must_use]
    pub const fn new(is_service_tag: bool, id: u16) -> Self {
        Self(id & ID | (is_service_tag as u16) << 12)
    }

    /// That of a frame, without its priority; `None` if it names no VLAN, but a priority only.
    #[must_use]
    #[inline(always)]
    pub const fn of_frame(word: TagWord) -> Option<Self> {
        let [protocol, control] = halves(word);
        let id = u16::from_be(control) & ID;
        if id == 0 { None } else { Some(Self::new(protocol == S_TAG.to_be(), id)) }
    }

    #[inline(always)]
    const fn in_frame(self) -> TagWord {
        let protocol = if self.0 >> 12 & 1 == 0 { C_TAG } else { S_TAG };
        word(protocol.to_be(), (self.0 & ID).to_be())
    }
}

/// The tags that a way out puts on frames: none, one or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Tags(u32);

impl Tags {
    /// One.
    #[must_use]
    pub const fn one(tag: Tag) -> Self {
        Self(tag.0 as u32 | PRESENT)
    }

    /// Two: the outer one comes first in the frame.
    #[must_use]
    pub const fn two(outer: Tag, inner: Tag) -> Self {
        Self(Self::one(outer).0 | Self::one(inner).0 << PLACE_BITS)
    }

    /// From what [`Tags::bits`] says; those above the 28th are others'.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << (2 * PLACE_BITS)) - 1))
    }

    /// As 28 bits; 0 where there are none.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The outer one, or the only one, for a frame.
    #[must_use]
    #[inline(always)]
    pub const fn outer(self) -> TagWord {
        if self.0 & PRESENT == 0 { 0 } else { Tag(self.0 as u16).in_frame() }
    }

    /// The inner one of two.
    #[must_use]
    #[inline(always)]
    pub const fn inner(self) -> TagWord {
        Self(self.0 >> PLACE_BITS).outer()
    }
}

/// Key of the hash `VLANS`, whose values are indices of interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct VlanKey {
    /// The interface that frames with the tag come in through: a link, or the VLAN of the tag before this one.
    pub link: u32,
    /// The tag.
    pub tag: Tag,
    /// Zero.
    pub pad: u16,
}

impl VlanKey {
    /// The key of a tag on a link.
    #[must_use]
    #[inline(always)]
    pub const fn new(link: u32, tag: Tag) -> Self {
        Self { link, tag, pad: 0 }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f]) = (self.link.to_ne_bytes(), self.tag.0.to_ne_bytes());
        [a, b, c, d, e, f, 0, 0]
    }
}

const _: () = assert!(size_of::<VlanKey>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_put_as_frames_have_them() {
        let (inner, outer) = (Tag::new(false, 0x123), Tag::new(true, 4094));
        let bytes = |word: TagWord| word.to_ne_bytes();
        let tags = Tags::two(outer, inner);
        assert_eq!(bytes(tags.outer()), [0x88, 0xa8, 0x0f, 0xfe]);
        assert_eq!(bytes(tags.inner()), [0x81, 0x00, 0x01, 0x23]);
        assert_eq!(Tags::from_bits(tags.bits() | 0xf << 28), tags);
        let one = Tags::one(inner);
        assert_eq!((bytes(one.outer()), one.inner()), ([0x81, 0x00, 0x01, 0x23], 0));
        assert_eq!((Tags::default().outer(), Tags::default().inner()), (0, 0));
        // VLAN 0 is one where an interface says so.
        assert_eq!(bytes(Tags::one(Tag::new(false, 0)).outer()), [0x81, 0, 0, 0]);
    }

    #[test]
    fn a_frames_tag_names_a_vlan_whatever_its_priority_and_none_where_the_number_is_0() {
        let of = |bytes: [u8; 4]| Tag::of_frame(u32::from_ne_bytes(bytes));
        assert_eq!(of([0x81, 0x00, 0xf1, 0x23]), Some(Tag::new(false, 0x123)));
        assert_eq!(of([0x88, 0xa8, 0x00, 0x01]), Some(Tag::new(true, 1)));
        assert_eq!(of([0x81, 0x00, 0xf0, 0x00]), None);
        assert!(is_tag(0x8100_u16.to_be()) && is_tag(0x88a8_u16.to_be()));
        assert!(!is_tag(0x0800_u16.to_be()) && !is_tag(0x9100_u16.to_be()));
        assert_eq!(halves(word(0x1234, 0x5678)), [0x1234, 0x5678]);
    }
}
