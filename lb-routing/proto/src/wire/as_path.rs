//! AS_PATH: its arithmetic, its text and its wire format in both widths (RFC 4271 §4.3, RFC 6793).

use std::fmt::{self, Display, Formatter};

use super::{AsPath, Segment, open::AS_TRANS};

const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// AS numbers that a segment holds at most.
const MAX_SEGMENT: usize = 255;

/// How wide AS numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    pub(super) fn of(four_octet_as: bool) -> Self {
        if four_octet_as { Self::Four } else { Self::Two }
    }

    pub(super) fn octets(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// A number in this width, AS_TRANS where it does not fit (RFC 6793 §4.2.2).
    pub(super) fn put(self, asn: u32, out: &mut Vec<u8>) {
        match self {
            Self::Two => out.extend(u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes()),
            Self::Four => out.extend(asn.to_be_bytes()),
        }
    }
}

impl Segment {
    /// Its AS numbers.
    #[must_use]
    pub fn asns(&self) -> &[u32] {
        match self {
            Self::Sequence(asns)
            | Self::Set(asns)
            | Self::ConfedSequence(asns)
            | Self::ConfedSet(asns) => asns,
        }
    }

    /// What it counts in the length of a path (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    fn hops(&self) -> usize {
        match self {
            Self::Sequence(asns) => asns.len(),
            Self::Set(_) => 1,
            Self::ConfedSequence(_) | Self::ConfedSet(_) => 0,
        }
    }

    pub(super) fn is_confederation(&self) -> bool {
        match self {
            Self::Sequence(_) | Self::Set(_) => false,
            Self::ConfedSequence(_) | Self::ConfedSet(_) => true,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Set(_) => AS_SET,
            Self::Sequence(_) => AS_SEQUENCE,
            Self::ConfedSequence(_) => AS_CONFED_SEQUENCE,
            Self::ConfedSet(_) => AS_CONFED_SET,
        }
    }
}

impl AsPath {
    /// A path of one sequence; empty of none.
    #[must_use]
    pub fn sequence(asns: &[u32]) -> Self {
        let mut path = Self::default();
        if !asns.is_empty() {
            path.segments.push(Segment::Sequence(asns.to_vec()));
        }
        path
    }

    /// Its length in route selection (RFC 4271 §9.1.2.2): sets count one, confederations none.
    #[must_use]
    pub fn hop_count(&self) -> usize {
        self.segments.iter().map(Segment::hops).sum()
    }

    /// Whether it names an AS: the loop check (RFC 4271 §9.1.2).
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        self.segments.iter().any(|segment| segment.asns().contains(&asn))
    }

    /// The neighbouring AS: the first number, where the path begins with a sequence.
    #[must_use]
    pub fn first_as(&self) -> Option<u32> {
        match self.segments.first()? {
            Segment::Sequence(asns) => asns.first().copied(),
            Segment::Set(_) | Segment::ConfedSequence(_) | Segment::ConfedSet(_) => None,
        }
    }

    /// Puts a number in front, into the leading sequence while that has room (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: u32) {
        match self.segments.first_mut() {
            Some(Segment::Sequence(asns)) if asns.len() < MAX_SEGMENT => asns.insert(0, asn),
            Some(_) | None => self.segments.insert(0, Segment::Sequence(vec![asn])),
        }
    }

    /// Reads an AS_PATH or AS4_PATH; an `Err` says what is malformed (RFC 7606 §7.2, RFC 7607 §2).
    pub(super) fn decode(mut value: &[u8], width: Width) -> Result<Self, &'static str> {
        let mut segments = Vec::new();
        while let Some((&kind, rest)) = value.split_first() {
            let (&count, rest) = rest.split_first().ok_or("segment without a length")?;
            let octets = usize::from(count) * width.octets();
            let (field, rest) =
                rest.split_at_checked(octets).ok_or("segment beyond the attribute")?;
            let asns: Vec<u32> = field.chunks_exact(width.octets()).map(number).collect();
            if asns.is_empty() {
                return Err("segment of length zero");
            }
            if asns.contains(&0) {
                return Err("AS 0");
            }
            segments.push(match kind {
                AS_SET => Segment::Set(asns),
                AS_SEQUENCE => Segment::Sequence(asns),
                AS_CONFED_SEQUENCE => Segment::ConfedSequence(asns),
                AS_CONFED_SET => Segment::ConfedSet(asns),
                _ => return Err("unrecognized segment type"),
            });
            value = rest;
        }
        Ok(Self { segments })
    }

    /// Appends the value of an AS_PATH or AS4_PATH; segments beyond 255 numbers are split, empty
    /// ones left out, since the wire knows neither.
    pub(super) fn encode(&self, width: Width, out: &mut Vec<u8>) {
        for segment in &self.segments {
            for asns in segment.asns().chunks(MAX_SEGMENT) {
                out.extend([segment.kind(), u8::try_from(asns.len()).unwrap_or(u8::MAX)]);
                asns.iter().for_each(|&asn| width.put(asn, out));
            }
        }
    }

    /// The path as AS4_PATH carries it, if two octets lose a number (RFC 6793 §4.2.2); that
    /// attribute has no confederation segments.
    pub(super) fn to_as4_path(&self) -> Option<Self> {
        let outside = || self.segments.iter().filter(|segment| !segment.is_confederation());
        let lossy = |segment: &Segment| segment.asns().iter().any(|&asn| asn > u16::MAX.into());
        outside().any(lossy).then(|| Self { segments: outside().cloned().collect() })
    }

    /// Replaces the tail of a two-octet path by AS4_PATH, unless that is the longer one
    /// (RFC 6793 §4.2.3).
    pub(super) fn merge(self, as4_path: Self) -> Self {
        let Some(mut leading) = self.hop_count().checked_sub(as4_path.hop_count()) else {
            return self;
        };
        let mut merged = Self::default();
        for segment in self.segments {
            match segment {
                // Also one at the very front, and one next to a segment that is kept.
                Segment::ConfedSequence(_) | Segment::ConfedSet(_) => {
                    merged.segments.push(segment);
                }
                _ if leading == 0 => break,
                Segment::Set(_) => {
                    leading -= 1;
                    merged.segments.push(segment);
                }
                Segment::Sequence(mut asns) => {
                    asns.truncate(leading);
                    leading -= asns.len();
                    merged.segments.push(Segment::Sequence(asns));
                }
            }
        }
        as4_path.segments.into_iter().for_each(|segment| merged.join(segment));
        merged
    }

    /// Appends a segment, into the last one where both are sequences and there is room.
    fn join(&mut self, segment: Segment) {
        match (self.segments.last_mut(), segment) {
            (Some(Segment::Sequence(last)), Segment::Sequence(asns))
                if last.len() + asns.len() <= MAX_SEGMENT =>
            {
                last.extend(asns);
            }
            (_, segment) => self.segments.push(segment),
        }
    }
}

fn number(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |number, &octet| number << 8 | u32::from(octet))
}

impl Display for AsPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.segments.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " " })?;
            Display::fmt(segment, f)?;
        }
        Ok(())
    }
}

impl Display for Segment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (open, close) = match self {
            Self::Sequence(_) => ("", ""),
            Self::Set(_) => ("{", "}"),
            Self::ConfedSequence(_) => ("(", ")"),
            Self::ConfedSet(_) => ("[", "]"),
        };
        f.write_str(open)?;
        for (at, asn) in self.asns().iter().enumerate() {
            write!(f, "{}{asn}", if at == 0 { "" } else { " " })?;
        }
        f.write_str(close)
    }
}

#[cfg(test)]
mod tests;
