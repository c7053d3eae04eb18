//! ROUTE-REFRESH (RFC 2918 §3).
//!
//! Enhanced route refresh (RFC 7313) is never negotiated, so the octet that it makes a subtype stays
//! reserved and is ignored; only the length rule for its subtypes is kept.

use super::{Family, Notification, error, frame};

pub(super) fn decode(message: &[u8], body: &[u8]) -> Result<Family, Notification> {
    match *body {
        [a, b, _, safi] => Ok(Family { afi: u16::from_be_bytes([a, b]), safi }),
        // RFC 7313 §5: the data is the complete message.
        [_, _, 1 | 2, ..] => Err(Notification::with_data(error::INVALID_MESSAGE_LENGTH, message)),
        _ => Err(Notification::with_data(
            error::BAD_MESSAGE_LENGTH,
            message.get(16..18).unwrap_or_default(),
        )),
    }
}

pub(super) fn encode(family: Family) -> Vec<u8> {
    let [high, low] = family.afi.to_be_bytes();
    frame::seal(frame::Kind::RouteRefresh, &[high, low, 0, family.safi])
}

#[cfg(test)]
mod tests;
