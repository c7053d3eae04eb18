use super::*;
use crate::wire::{Context, Message, decode as decode_message, encode as encode_message};

const CONTEXT: Context = Context { four_octet_as: true, external: true };

/// The body of an OPEN with these optional parameters, their length included.
fn body(parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 1];
    body.extend(parameters);
    body
}

fn example() -> Open {
    Open {
        asn: 4_200_000_001,
        hold_time_secs: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::Multiprotocol(Family::IPV6_UNICAST),
            Capability::RouteRefresh,
            Capability::FourOctetAs(4_200_000_001),
            Capability::EnhancedRouteRefresh,
        ],
    }
}

#[test]
fn the_golden_bytes_of_an_open_are_read_and_written() {
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 53, 1]);
    bytes.extend([4, 0x5b, 0xa0, 0, 90, 192, 0, 2, 1]);
    bytes.extend([24, 2, 22]);
    bytes.extend([1, 4, 0, 1, 0, 1]);
    bytes.extend([1, 4, 0, 2, 0, 1]);
    bytes.extend([2, 0]);
    bytes.extend([65, 4, 0xfa, 0x56, 0xea, 0x01]);
    bytes.extend([70, 0]);
    let message = Message::Open(example());
    assert_eq!(encode_message(&message, CONTEXT), bytes);
    assert_eq!(decode_message(&bytes, CONTEXT), Ok(message));
}

#[test]
fn errors_in_an_open_have_the_codes_and_data_of_rfc_4271_section_6_2() {
    let with = |at: usize, octets: &[u8]| {
        let mut body = body(&[0]);
        body[at..at + octets.len()].copy_from_slice(octets);
        body
    };
    let notification = Notification::new;
    let refused = |code, field: &[u8]| Notification::with_data(code, field);
    let table: &[(&str, Vec<u8>, Notification)] = &[
        (
            "version 3",
            with(0, &[3]),
            Notification::with_data(error::UNSUPPORTED_VERSION_NUMBER, [0, 4]),
        ),
        ("AS 0", with(1, &[0, 0]), refused(error::BAD_PEER_AS, &[0; 4])),
        (
            "AS 0 of four octets",
            body(&[8, 2, 6, 65, 4, 0, 0, 0, 0]),
            refused(error::BAD_PEER_AS, &[0; 4]),
        ),
        ("hold time 1", with(3, &[0, 1]), refused(error::UNACCEPTABLE_HOLD_TIME, &[0, 1])),
        ("hold time 2", with(3, &[0, 2]), refused(error::UNACCEPTABLE_HOLD_TIME, &[0, 2])),
        ("identifier 0.0.0.0", with(5, &[0; 4]), refused(error::BAD_BGP_IDENTIFIER, &[0; 4])),
        (
            "authentication parameter",
            body(&[3, 1, 1, 0]),
            refused(error::UNSUPPORTED_OPTIONAL_PARAMETER, &[1]),
        ),
        ("parameters shorter than said", body(&[9, 2, 0]), notification(error::OPEN_MESSAGE_ERROR)),
        ("parameters longer than said", body(&[0, 2, 0]), notification(error::OPEN_MESSAGE_ERROR)),
        ("parameter beyond the field", body(&[2, 2, 5]), notification(error::OPEN_MESSAGE_ERROR)),
        ("half a parameter", body(&[3, 2, 0, 2]), notification(error::OPEN_MESSAGE_ERROR)),
        ("half a capability", body(&[3, 2, 1, 1]), notification(error::OPEN_MESSAGE_ERROR)),
        (
            "capability beyond the parameter",
            body(&[4, 2, 2, 65, 4]),
            notification(error::OPEN_MESSAGE_ERROR),
        ),
        (
            "multiprotocol of three octets",
            body(&[7, 2, 5, 1, 3, 0, 1, 0]),
            notification(error::OPEN_MESSAGE_ERROR),
        ),
        (
            "route refresh of one octet",
            body(&[5, 2, 3, 2, 1, 0]),
            notification(error::OPEN_MESSAGE_ERROR),
        ),
        (
            "extended parameters shorter than said",
            body(&[255, 255, 0, 9, 2, 0, 0]),
            notification(error::OPEN_MESSAGE_ERROR),
        ),
    ];
    for (what, body, expected) in table {
        assert_eq!(decode(body), Err(expected.clone()), "{what}");
    }
}

#[test]
fn hold_times_zero_and_three_are_accepted() {
    for secs in [0, 3, 65535_u16] {
        let mut body = body(&[0]);
        body[3..5].copy_from_slice(&secs.to_be_bytes());
        assert_eq!(decode(&body).unwrap().hold_time_secs, secs);
    }
}

#[test]
fn capabilities_in_several_parameters_are_one_list() {
    let open = decode(&body(&[10, 2, 2, 2, 0, 2, 4, 64, 2, 0, 120])).unwrap();
    let restart = Capability::GracefulRestart(GracefulRestart {
        restarted: false,
        notifications: false,
        time_secs: 120,
        families: vec![],
    });
    assert_eq!(open.asn, 65000);
    assert_eq!(open.capabilities, [Capability::RouteRefresh, restart]);
}

#[test]
fn capabilities_of_extensions_are_read_and_written() {
    let next_hops = vec![(Family::IPV4_UNICAST, 2), (Family { afi: 1, safi: 128 }, 2)];
    for (golden, expected) in [
        (&[6, 0][..], Capability::ExtendedMessage),
        (&[70, 0], Capability::EnhancedRouteRefresh),
        (&[5, 12, 0, 1, 0, 1, 0, 2, 0, 1, 0, 128, 0, 2], Capability::ExtendedNextHop(next_hops)),
    ] {
        assert_eq!(encode_capability(&expected), golden);
        assert_eq!(capability(golden[0], &golden[2..]), Some(expected));
    }
    let many = Capability::ExtendedNextHop(vec![(Family::IPV4_UNICAST, 2); 100]);
    assert_eq!(encode_capability(&many).len(), 2 + 42 * 6);
    // A value that cannot be read is one that nobody knows.
    for (code, value) in [(5, vec![0, 1]), (6, vec![1]), (70, vec![1])] {
        let unread = Capability::Unknown { code, value: value.clone() };
        assert_eq!(capability(code, &value), Some(unread));
    }
}

#[test]
fn graceful_restart_is_read_and_written_bit_by_bit() {
    let restart = GracefulRestart {
        restarted: true,
        notifications: true,
        time_secs: 0x0abc,
        families: vec![(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, false)],
    };
    let value = [0xca, 0xbc, 0, 1, 1, 0x80, 0, 2, 1, 0];
    assert_eq!(encode_restart(&restart), value);
    assert_eq!(capability(64, &value), Some(Capability::GracefulRestart(restart.clone())));
    let too_much = GracefulRestart {
        time_secs: u16::MAX,
        families: vec![(Family::IPV4_UNICAST, true); 100],
        ..restart
    };
    let value = encode_restart(&too_much);
    assert_eq!((value.len(), &value[..2]), (254, &[0xcf, 0xff][..]));
}

#[test]
fn a_graceful_restart_capability_that_cannot_be_read_is_no_promise_and_no_error() {
    for value in [&[][..], &[0], &[0, 120, 0], &[0, 120, 0, 1, 1]] {
        let unread = Capability::Unknown { code: 64, value: value.to_vec() };
        assert_eq!(capability(64, value), Some(unread), "{value:?}");
    }
}

#[test]
fn the_extended_format_is_read_whatever_the_short_length_says() {
    for length in [255, 1] {
        let open = decode(&body(&[length, 255, 0, 5, 2, 0, 2, 2, 0])).unwrap();
        assert_eq!(open.capabilities, [Capability::RouteRefresh]);
    }
}

#[test]
fn many_capabilities_take_the_extended_format_and_stop_at_a_message() {
    let capability = Capability::Unknown { code: 71, value: vec![7; 98] };
    for (count, kept) in [(2, 2), (3, 3), (40, 40), (41, 40), (100, 40)] {
        let open = Open { capabilities: vec![capability.clone(); count], ..example() };
        let bytes = encode(&open);
        assert!(bytes.len() <= MAX_MESSAGE_LEN);
        assert_eq!(bytes[29] == EXTENDED, count > 2, "{count} capabilities");
        let read = decode(&bytes[HEADER_LEN..]).unwrap();
        assert_eq!(read.capabilities, vec![capability.clone(); kept]);
    }
}

#[test]
fn a_capability_for_several_paths_that_cannot_be_understood_is_as_if_it_were_not_there() {
    let ours = AddPath { family: Family::IPV4_UNICAST, receive: true, send: false };
    let both = AddPath { family: Family::IPV6_UNICAST, receive: true, send: true };
    let capability = |value: &[u8]| {
        let mut options = vec![0, 2, 0, 69, value.len() as u8];
        options.extend(value);
        (options[0], options[2]) = (value.len() as u8 + 4, value.len() as u8 + 2);
        decode(&body(&options)).unwrap().capabilities
    };
    let entries = [[0, 1, 1, 1], [0, 2, 1, 3]].concat();
    assert_eq!(capability(&entries), [Capability::AddPath(vec![ours, both])]);
    for way in [0, 4] {
        let value = [[0, 1, 1, 1], [0, 2, 1, way]].concat();
        assert_eq!(capability(&value), [Capability::Unknown { code: 69, value }]);
    }
    let cut = Capability::Unknown { code: 69, value: vec![0, 1, 1] };
    assert_eq!(capability(&[0, 1, 1]), [cut]);
}
