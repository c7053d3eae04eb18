//! Whole messages of this type, through the public functions.

use crate::wire::{
    Context, Family, Message, Notification, decode, encode, error,
    frame::{Kind, seal},
};

const CONTEXT: Context = Context { four_octet_as: true, external: true };

#[test]
fn the_golden_bytes_of_a_route_refresh_are_read_and_written() {
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 23, 5, 0, 2, 0, 1]);
    let message = Message::RouteRefresh(Family::IPV6_UNICAST);
    assert_eq!(encode(&message, CONTEXT), bytes);
    assert_eq!(decode(&bytes, CONTEXT), Ok(message.clone()));
    // Whether the octet is reserved (RFC 2918 §3) or a subtype (RFC 7313 §3.2), the session knows.
    bytes[21] = 77;
    let marked = Message::RefreshMark(Family::IPV6_UNICAST, 77);
    assert_eq!(encode(&marked, CONTEXT), bytes);
    assert_eq!(decode(&bytes, CONTEXT), Ok(marked));
}

#[test]
fn a_wrong_length_is_answered_by_the_subtype_s_own_error() {
    let plain = seal(Kind::RouteRefresh, &[0, 1, 0, 1, 9]);
    let refusal = Notification::with_data(error::BAD_MESSAGE_LENGTH, [0, 24]);
    assert_eq!(decode(&plain, CONTEXT), Err(refusal));
    for subtype in [1, 2] {
        let bytes = seal(Kind::RouteRefresh, &[0, 1, subtype, 1, 9]);
        let refusal = Notification::with_data(error::INVALID_MESSAGE_LENGTH, bytes.clone());
        assert_eq!(decode(&bytes, CONTEXT), Err(refusal), "RFC 7313 §5, subtype {subtype}");
    }
}
