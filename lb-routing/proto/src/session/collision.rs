//! Which of two connections to one neighbour survives (RFC 4271 §6.8, RFC 6286 §2.3).

use std::net::Ipv4Addr;

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// We did.
    Outgoing,
    /// The neighbour did.
    Incoming,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Outgoing, Self::Incoming];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Outgoing => Self::Incoming,
            Self::Incoming => Self::Outgoing,
        }
    }
}

/// The connection that the speaker with the higher identifier opened survives; with equal
/// identifiers, that of the higher AS number. Both ends come to the same connection.
pub(crate) fn winner(ours: (Ipv4Addr, u32), theirs: (Ipv4Addr, u32)) -> Side {
    if ours > theirs { Side::Outgoing } else { Side::Incoming }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_identifier_wins_and_then_the_higher_as_number() {
        let low = (Ipv4Addr::new(9, 255, 255, 255), 65000);
        let high = (Ipv4Addr::new(10, 0, 0, 1), 64000);
        assert_eq!(winner(high, low), Side::Outgoing);
        assert_eq!(winner(low, high), Side::Incoming);
        let twin = (low.0, 65001);
        assert_eq!(winner(twin, low), Side::Outgoing);
        assert_eq!(winner(low, twin), Side::Incoming);
    }
}
