use super::*;
use Segment::{ConfedSequence, ConfedSet, Sequence, Set};

fn path(segments: &[Segment]) -> AsPath {
    AsPath { segments: segments.to_vec() }
}

#[test]
fn paths_read_as_people_write_them() {
    let table = [
        (path(&[]), ""),
        (path(&[Sequence(vec![64512, 4_200_000_000])]), "64512 4200000000"),
        (path(&[Sequence(vec![64512]), Set(vec![64513])]), "64512 {64513}"),
        (path(&[ConfedSequence(vec![1, 2]), ConfedSet(vec![3, 4])]), "(1 2) [3 4]"),
    ];
    for (path, text) in table {
        assert_eq!(path.to_string(), text);
    }
}

#[test]
fn sets_count_one_and_confederations_none() {
    let path = path(&[ConfedSequence(vec![9]), Sequence(vec![1, 2, 3]), Set(vec![4, 5])]);
    assert_eq!(path.hop_count(), 4);
    assert!(path.contains(9) && path.contains(5) && !path.contains(6));
    assert_eq!(path.first_as(), None);
    assert_eq!(AsPath::sequence(&[7, 8]).first_as(), Some(7));
}

#[test]
fn prepending_begins_a_segment_where_the_first_is_full_or_none() {
    let mut of_set = path(&[Set(vec![1])]);
    of_set.prepend(2);
    of_set.prepend(3);
    assert_eq!(of_set, path(&[Sequence(vec![3, 2]), Set(vec![1])]));
    let mut full = path(&[Sequence(vec![1; 255])]);
    full.prepend(2);
    assert_eq!(full, path(&[Sequence(vec![2]), Sequence(vec![1; 255])]));
    let mut empty = AsPath::default();
    empty.prepend(1);
    assert_eq!(empty, AsPath::sequence(&[1]));
}

#[test]
fn malformed_paths_are_named() {
    let table: &[(&[u8], &str)] = &[
        (&[2], "segment without a length"),
        (&[2, 0], "segment of length zero"),
        (&[2, 2, 0, 1], "segment beyond the attribute"),
        (&[2, 1, 0, 1, 9], "segment without a length"),
        (&[0, 1, 0, 1], "unrecognized segment type"),
        (&[5, 1, 0, 1], "unrecognized segment type"),
        (&[2, 2, 0, 1, 0, 0], "AS 0"),
    ];
    for (value, what) in table {
        assert_eq!(AsPath::decode(value, Width::Two), Err(*what), "{value:?}");
    }
    assert_eq!(AsPath::decode(&[], Width::Two), Ok(AsPath::default()));
}

#[test]
fn segments_too_long_for_the_wire_are_split() {
    let mut value = Vec::new();
    AsPath::sequence(&[1; 300]).encode(Width::Two, &mut value);
    let read = AsPath::decode(&value, Width::Two).unwrap();
    assert_eq!(read, path(&[Sequence(vec![1; 255]), Sequence(vec![1; 45])]));
}

#[test]
fn as4_path_replaces_the_tail_of_the_path() {
    const TRANS: u32 = 23456;
    let wide = 4_200_000_000;
    let table = [
        // As long: all of it.
        (
            vec![Sequence(vec![TRANS, 2])],
            vec![Sequence(vec![wide, 2])],
            vec![Sequence(vec![wide, 2])],
        ),
        // Shorter: an old speaker prepended itself.
        (
            vec![Sequence(vec![1, TRANS, 2])],
            vec![Sequence(vec![wide, 2])],
            vec![Sequence(vec![1, wide, 2])],
        ),
        // Longer: ignored.
        (vec![Sequence(vec![TRANS])], vec![Sequence(vec![wide, 2])], vec![Sequence(vec![TRANS])]),
        // A set counts one.
        (
            vec![Sequence(vec![1]), Set(vec![3, 4]), Sequence(vec![TRANS])],
            vec![Sequence(vec![wide])],
            vec![Sequence(vec![1]), Set(vec![3, 4]), Sequence(vec![wide])],
        ),
        // Leading confederation segments stay.
        (
            vec![ConfedSequence(vec![8, 9]), Sequence(vec![TRANS])],
            vec![Sequence(vec![wide])],
            vec![ConfedSequence(vec![8, 9]), Sequence(vec![wide])],
        ),
    ];
    for (two, four, merged) in table {
        assert_eq!(path(&two).merge(path(&four)), path(&merged));
    }
}

#[test]
fn as4_path_is_written_only_where_two_octets_lose_a_number() {
    assert_eq!(AsPath::sequence(&[1, 65535]).to_as4_path(), None);
    let wide = path(&[ConfedSequence(vec![9]), Sequence(vec![1, 65536])]);
    assert_eq!(wide.to_as4_path(), Some(AsPath::sequence(&[1, 65536])));
}
