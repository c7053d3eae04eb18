use super::*;

fn read(field: &[u8], version: Version) -> Result<Vec<String>, Malformed> {
    Ok(Field::new(field, version)?.prefixes().map(|prefix| prefix.to_string()).collect())
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
