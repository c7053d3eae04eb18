use super::*;
use crate::wire::{Context, Message, decode as decode_message, encode};

const CONTEXT: Context = Context { four_octet_as: true, external: true };

#[test]
fn notifications_are_described_in_the_words_of_the_rfcs() {
    let table: &[(Notification, &str)] = &[
        (Notification::new(error::HOLD_TIMER_EXPIRED), "Hold Timer Expired"),
        (Notification::new(error::BAD_PEER_AS), "OPEN Message Error / Bad Peer AS"),
        (Notification::new(error::CEASE), "Cease"),
        (Notification::new((6, 99)), "Cease / subcode 99"),
        (Notification::new((99, 3)), "error 99/3"),
        (
            Notification::with_data(error::ADMINISTRATIVE_SHUTDOWN, *b"\x04soon"),
            "Cease / Administrative Shutdown: \"soon\"",
        ),
        (
            Notification::with_communication(error::ADMINISTRATIVE_RESET, "a\nb"),
            "Cease / Administrative Reset: \"a\\nb\"",
        ),
        // What it is about.
        (
            Notification::with_data(error::BAD_PEER_AS, [0xfd, 0xe9]),
            "OPEN Message Error / Bad Peer AS: AS 65001",
        ),
        (
            Notification::with_data(error::BAD_PEER_AS, 4_200_000_000_u32.to_be_bytes()),
            "OPEN Message Error / Bad Peer AS: AS 4200000000",
        ),
        (
            Notification::with_data(error::UNACCEPTABLE_HOLD_TIME, [0, 2]),
            "OPEN Message Error / Unacceptable Hold Time: 2 s",
        ),
        (
            Notification::with_data(error::BAD_BGP_IDENTIFIER, [0; 4]),
            "OPEN Message Error / Bad BGP Identifier: 0.0.0.0",
        ),
        (
            Notification::with_data(error::OPTIONAL_ATTRIBUTE_ERROR, [0x80, 15, 2, 0, 2]),
            "UPDATE Message Error / Optional Attribute Error: MP_UNREACH_NLRI (15), it was 80 0f 02 00 02",
        ),
        (
            Notification::with_data(error::UNEXPECTED_MESSAGE_IN_OPEN_SENT, [4]),
            "Finite State Machine Error / Receive Unexpected Message in OpenSent State: KEEPALIVE",
        ),
        (
            Notification::with_data(
                error::MAXIMUM_NUMBER_OF_PREFIXES_REACHED,
                [0, 1, 1, 0, 0, 0, 9],
            ),
            "Cease / Maximum Number of Prefixes Reached: 9 at most of IPv4 unicast",
        ),
        (
            Notification::with_data(error::BAD_MESSAGE_LENGTH, [0, 18]),
            "Message Header Error / Bad Message Length: 18 octets",
        ),
        (
            Notification::with_data(error::UNSUPPORTED_CAPABILITY, [65, 4, 0, 0, 0xfd, 0xe9]),
            "OPEN Message Error / Unsupported Capability: capability 65",
        ),
        // Empty, cut short, no UTF-8, another subcode: no communication.
        (
            Notification::with_data(error::ADMINISTRATIVE_SHUTDOWN, [0]),
            "Cease / Administrative Shutdown",
        ),
        (
            Notification::with_data(error::ADMINISTRATIVE_SHUTDOWN, *b"\x05soon"),
            "Cease / Administrative Shutdown",
        ),
        (
            Notification::with_data(error::ADMINISTRATIVE_SHUTDOWN, [2, 0xc3, 0x28]),
            "Cease / Administrative Shutdown",
        ),
        (
            Notification::with_data(error::CONNECTION_REJECTED, *b"\x04soon"),
            "Cease / Connection Rejected",
        ),
    ];
    for (notification, words) in table {
        assert_eq!(notification.describe(), *words);
    }
}

#[test]
fn a_communication_is_cut_at_a_character_within_255_octets() {
    let text = "é".repeat(200);
    let notification = Notification::with_communication(error::ADMINISTRATIVE_SHUTDOWN, &text);
    assert_eq!(notification.data.len(), 1 + 254);
    assert_eq!(notification.communication(), Some("é".repeat(127).as_str()));
}

#[test]
fn the_golden_bytes_of_a_notification_are_read_and_written() {
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 23, 3, 1, 2, 0, 18]);
    let message =
        Message::Notification(Notification::with_data(error::BAD_MESSAGE_LENGTH, [0, 18]));
    assert_eq!(encode(&message, CONTEXT), bytes);
    assert_eq!(decode_message(&bytes, CONTEXT), Ok(message));
}

#[test]
fn a_broken_notification_never_causes_another() {
    for body in [&[][..], &[7], &[200, 201], &[0xff; 300]] {
        let bytes = frame::seal(frame::Kind::Notification, body);
        let message = decode_message(&bytes, CONTEXT);
        assert!(matches!(message, Ok(Message::Notification(_))), "{body:?}");
    }
    assert_eq!(decode(&[7]), Notification::with_data((0, 0), [7]));
}

#[test]
fn data_beyond_a_message_is_cut() {
    let notification = Notification::with_data(error::MALFORMED_ATTRIBUTE_LIST, vec![1; 5000]);
    assert_eq!(notification.encode().len(), MAX_MESSAGE_LEN);
}

#[test]
fn a_hard_reset_says_what_it_is_around() {
    let shutdown = Notification::with_communication(error::ADMINISTRATIVE_SHUTDOWN, "upgrade");
    let hard = shutdown.hardened();
    assert_eq!((hard.code, hard.subcode, &hard.data[..2]), (6, 9, &[6, 2][..]));
    let words = "Cease / Hard Reset (Cease / Administrative Shutdown: \"upgrade\")";
    assert_eq!(hard.describe(), words);
    // One around another, or around nothing, is read without a word of what is in it.
    for data in [&[][..], &[6], &[6, 9, 6, 9]] {
        let odd = Notification::with_data(error::HARD_RESET, data);
        assert_eq!(odd.describe(), "Cease / Hard Reset");
    }
}
