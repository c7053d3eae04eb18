use super::*;

fn read(field: &[u8], version: Version) -> Result<Vec<String>, Malformed> {
    Ok(Field::new(field, version, false)?.prefixes().map(|prefix| prefix.to_string()).collect())
}

#[test]
fn prefixes_are_read_with_host_bits_cleared() {
    let table: &[(&[u8], Version, &[&str])] = &[
        (&[], Version::V4, &[]),
        (&[0], Version::V4, &["0.0.0.0/0"]),
        (&[32, 192, 0, 2, 1], Version::V4, &["192.0.2.1/32"]),
        (&[24, 192, 0, 2, 8, 10], Version::V4, &["192.0.2.0/24", "10.0.0.0/8"]),
        (&[23, 192, 0, 3], Version::V4, &["192.0.2.0/23"]),
        (&[1, 0xff], Version::V4, &["128.0.0.0/1"]),
        (&[0, 0], Version::V6, &["::/0", "::/0"]),
        (&[33, 0x20, 1, 0xd, 0xb8, 0xff], Version::V6, &["2001:db8:8000::/33"]),
    ];
    for (field, version, expected) in table {
        assert_eq!(read(field, *version).unwrap(), *expected, "{field:?}");
    }
}

#[test]
fn prefixes_beyond_family_or_field_are_malformed() {
    let table: &[(&[u8], Version)] = &[
        (&[33, 1, 2, 3, 4, 5], Version::V4),
        (&[255; 40], Version::V4),
        (&[24, 192, 0], Version::V4),
        (&[8, 10, 1], Version::V4),
        (&[129, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Version::V6),
        (&[64, 0x20, 1], Version::V6),
    ];
    for (field, version) in table {
        assert_eq!(read(field, *version), Err(Malformed), "{field:?}");
    }
}

#[test]
fn every_length_survives_the_way_out_and_back() {
    for (text, max, version) in [
        ("255.255.255.255", 32, Version::V4),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128, Version::V6),
    ] {
        for length in 0..=max {
            let prefix = IpNetwork::new(text.parse().unwrap(), length).unwrap();
            let mut field = Vec::new();
            encode(&prefix, &mut field);
            assert_eq!(field.len(), encoded_len(&prefix));
            let expected = format!("{}/{length}", prefix.network());
            assert_eq!(read(&field, version).unwrap(), [expected]);
        }
    }
}

#[test]
fn identifiers_stand_before_prefixes_where_both_sides_said_so() {
    let octets = [0, 0, 0, 7, 8, 10, 0xff, 0, 0, 1, 16, 10, 1];
    let field = Field::new(&octets, Version::V4, true).unwrap();
    let paths: Vec<_> = field.paths().map(|(id, prefix)| (id, prefix.to_string())).collect();
    let expected = [(7, "10.0.0.0/8"), (0xff00_0001, "10.1.0.0/16")];
    assert_eq!(paths, expected.map(|(id, prefix)| (id, prefix.to_owned())));
    // The same octets without identifiers are three default routes, and more.
    assert!(Field::new(&octets[..1], Version::V4, false).is_ok());
    for cut in [1, 3, 4, 5, 7, 9, 11, 12] {
        assert!(Field::new(&octets[..cut], Version::V4, true).is_err(), "{cut} octets");
    }
}
