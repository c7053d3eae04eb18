use super::*;

/// A header and `body_len` octets of zeros.
fn message(kind: u8, body_len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(19 + body_len).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.resize(19 + body_len, 0);
    bytes
}

#[test]
fn whole_messages_are_delimited_and_partial_ones_awaited() {
    let keepalive = message(4, 0);
    assert_eq!(frame(&keepalive), Ok(Some(19)));
    assert_eq!(frame(&[]), Ok(None));
    for len in 0..19 {
        assert_eq!(frame(&keepalive[..len]), Ok(None), "{len} octets");
    }
    assert_eq!(frame(&message(2, 4)[..22]), Ok(None));
    assert_eq!(frame(&[keepalive.as_slice(), &[0xff, 0xff]].concat()), Ok(Some(19)));
    assert_eq!(frame(&message(2, 4096 - 19)), Ok(Some(4096)));
}

#[test]
fn header_errors_have_the_codes_and_data_of_rfc_4271_section_6_1() {
    /// Type, length field, code, data.
    type Row<'a> = (u8, u16, (u8, u8), &'a [u8]);
    let table: &[Row] = &[
        (4, 18, error::BAD_MESSAGE_LENGTH, &[0, 18]),
        (4, 0, error::BAD_MESSAGE_LENGTH, &[0, 0]),
        (2, 4097, error::BAD_MESSAGE_LENGTH, &[16, 1]),
        (2, 0xffff, error::BAD_MESSAGE_LENGTH, &[0xff, 0xff]),
        (1, 28, error::BAD_MESSAGE_LENGTH, &[0, 28]),
        (2, 22, error::BAD_MESSAGE_LENGTH, &[0, 22]),
        (4, 20, error::BAD_MESSAGE_LENGTH, &[0, 20]),
        (5, 22, error::BAD_MESSAGE_LENGTH, &[0, 22]),
        (0, 19, error::BAD_MESSAGE_TYPE, &[0]),
        (6, 19, error::BAD_MESSAGE_TYPE, &[6]),
        (255, 4096, error::BAD_MESSAGE_TYPE, &[255]),
    ];
    for &(kind, len, code, data) in table {
        let mut bytes = message(kind, 0);
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        let expected = Notification { code: code.0, subcode: code.1, data: data.to_vec() };
        assert_eq!(frame(&bytes), Err(expected), "type {kind}, length {len}");
    }
}

#[test]
fn extended_messages_are_taken_once_they_are_agreed_on() {
    let mut framer = Framer::new();
    framer.extend();
    framer.push(&[message(2, 65_535 - 19), message(3, 4096), message(4, 0)].concat());
    let lengths = std::iter::from_fn(|| framer.next_message().unwrap().map(<[u8]>::len));
    assert_eq!(lengths.collect::<Vec<_>>(), [65_535, 4115, 19]);
    // RFC 8654 §4: OPEN stays as short as ever.
    framer.push(&message(1, 4096));
    let refusal = Notification::with_data(error::BAD_MESSAGE_LENGTH, [0x10, 0x13]);
    assert_eq!(framer.next_message(), Err(refusal));
}

#[test]
fn a_bad_marker_is_refused_at_its_first_octet() {
    let refusal = Err(Notification::new(error::CONNECTION_NOT_SYNCHRONIZED));
    assert_eq!(frame(b"G"), refusal);
    let mut bytes = message(4, 0);
    bytes[15] = 0xfe;
    assert_eq!(frame(&bytes), refusal);
}

#[test]
fn the_framer_gives_out_the_same_messages_however_the_stream_is_cut() {
    let stream = [message(4, 0), message(2, 4), message(3, 40), message(4, 0)].concat();
    let lengths = [19, 23, 59, 19];
    for portion in [1, 2, 7, 18, 19, 20, 64, stream.len()] {
        let mut framer = Framer::new();
        let mut seen = Vec::new();
        for bytes in stream.chunks(portion) {
            framer.push(bytes);
            while let Some(message) = framer.next_message().unwrap() {
                seen.push(message.len());
            }
            assert!(framer.buffer.len() - framer.taken < MAX_MESSAGE_LEN);
        }
        assert_eq!(seen, lengths, "in portions of {portion}");
    }
}

#[test]
fn the_framer_stays_refused_after_an_error() {
    let mut framer = Framer::new();
    framer.push(&message(4, 0));
    framer.push(b"GET / HTTP/1.1\r\n");
    assert!(matches!(framer.next_message(), Ok(Some(_))));
    let refusal = framer.next_message().unwrap_err();
    assert_eq!(refusal, Notification::new(error::CONNECTION_NOT_SYNCHRONIZED));
    framer.push(&message(4, 0));
    assert_eq!(framer.next_message(), Err(refusal));
}

#[test]
fn decoding_needs_exactly_one_message() {
    let refusal = Err(Notification::new(error::BAD_MESSAGE_LENGTH));
    assert_eq!(split(&message(2, 4)[..22]), refusal);
    assert_eq!(split(&[message(4, 0), vec![0xff]].concat()), refusal);
    assert_eq!(split(&message(4, 0)), Ok((Kind::Keepalive, &[][..])));
}
