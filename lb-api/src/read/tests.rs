use serde_json::json;

use super::*;

fn paths(mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(|mistake| mistake.path.pointer()).collect()
}

#[test]
fn every_mistake_is_found_and_names_its_field() {
    let value = json!({"a": "x", "b": [1, true, 300], "colour": 1});
    let found = document(&value, |cursor| {
        let object = cursor.object(&["a", "b", "c"])?;
        let a = object.field("a").and_then(|a| a.number(0..=9_u8));
        let b = object.field("b").and_then(|b| b.list(|b| b.number(0..=255_u8)));
        let c = object.required("c").and_then(|c| c.boolean());
        Some((a, b, c))
    });
    assert_eq!(paths(&found.unwrap_err()), ["/colour", "/a", "/b/1", "/b/2", "/c"]);
}

#[test]
fn a_misspelt_field_is_answered_with_the_right_name() {
    let found = document(&json!({"hold_time_sec": 1, "zzz": 1}), |cursor| {
        cursor.object(&["hold_time_secs", "asn"]).map(drop)
    })
    .unwrap_err();
    let of = |field: &str| {
        let found = found.iter().find(|mistake| mistake.path.to_string() == field);
        found.unwrap().message.clone()
    };
    assert!(of("hold_time_sec").contains("did you mean `hold_time_secs`?"));
    assert!(of("zzz").contains("hold_time_secs, asn"));
}

#[test]
fn mistakes_are_bounded() {
    let many: Vec<_> = (0..10_000).map(|_| json!("x")).collect();
    let found = document(&json!(many), |cursor| cursor.list(|member| member.boolean()));
    assert_eq!(found.unwrap_err().len(), MAX_MISTAKES);
}

#[test]
fn paths_are_written_for_people_and_as_json_pointers() {
    let path = Path::default().field("bgp").field("peers").index(1).field("a/b~");
    assert_eq!(path.to_string(), "bgp.peers[1].a/b~");
    assert_eq!(path.pointer(), "/bgp/peers/1/a~1b~0");
}

proptest::proptest! {
    #[test]
    fn distance_is_a_metric(a in "[a-d]{0,6}", b in "[a-d]{0,6}", c in "[a-d]{0,6}") {
        use super::words::distance;
        proptest::prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        proptest::prop_assert_eq!(distance(&a, &b) == 0, a == b);
        proptest::prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
    }
}
