//! ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2).

use super::{Family, Message, Notification, error, frame};

pub(super) fn decode(message: &[u8], body: &[u8]) -> Result<Message, Notification> {
    match *body {
        [a, b, subtype, safi] => {
            let family = Family { afi: u16::from_be_bytes([a, b]), safi };
            Ok(match subtype {
                0 => Message::RouteRefresh(family),
                subtype => Message::RefreshMark(family, subtype),
            })
        }
        // RFC 7313 §5: the data is the complete message.
        [_, _, 1 | 2, ..] => Err(Notification::with_data(error::INVALID_MESSAGE_LENGTH, message)),
        _ => Err(Notification::with_data(
            error::BAD_MESSAGE_LENGTH,
            message.get(16..18).unwrap_or_default(),
        )),
    }
}

pub(super) fn encode(family: Family, subtype: u8) -> Vec<u8> {
    let [high, low] = family.afi.to_be_bytes();
    frame::seal(frame::Kind::RouteRefresh, &[high, low, subtype, family.safi])
}

#[cfg(test)]
mod tests;
