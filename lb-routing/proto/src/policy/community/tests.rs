use proptest::prelude::*;

use super::*;

fn one(text: &str) -> Community {
    text.parse().unwrap()
}

fn pattern(text: &str) -> CommunityPattern {
    text.parse().unwrap()
}

#[test]
fn communities_are_read_and_written_as_people_do() {
    let cases = [
        ("65001:100", Community::Standard(65001 << 16 | 100)),
        ("blackhole", Community::BLACKHOLE),
        ("graceful-shutdown", Community::GRACEFUL_SHUTDOWN),
        ("no-export", Community::NO_EXPORT),
        ("4200000000:1:2", Community::Large([4_200_000_000, 1, 2])),
        ("rt:65001:100", Community::Extended(0x0002_fde9_0000_0064)),
        ("soo:10.0.0.1:5", Community::Extended(0x0103_0a00_0001_0005)),
        ("rt:4200000000:7", Community::Extended(0x0202_fa56_ea00_0007)),
        ("0x43000000000000ff", Community::Extended(0x4300_0000_0000_00ff)),
    ];
    for (text, community) in cases {
        assert_eq!((one(text), community.to_string()), (community, text.to_owned()));
    }
    assert_eq!(one("65535:666"), Community::BLACKHOLE);
}

#[test]
fn what_is_no_community_is_refused() {
    let bad = [
        "", "1", "65536:1", "1:65536", "-1:1", "+1:1", "1:2:3:4", "x:1", "rt:1", "rt:1:2:3",
        "0x12", "*:1",
    ];
    for text in bad {
        assert_eq!(text.parse::<Community>(), Err(CommunityError(text.to_owned())));
    }
    for text in ["rt:*:1", "65536:*", "**:1"] {
        assert!(text.parse::<CommunityPattern>().is_err(), "{text}");
    }
}

#[test]
fn a_star_stands_for_any_number() {
    let cases = [
        ("65001:*", "65001:7", true),
        ("65001:*", "65002:7", false),
        ("*:7", "65002:7", true),
        ("*:*", "1:2:3", false),
        ("65001:*:2", "65001:9:2", true),
        ("65001:*:2", "65001:9:3", false),
        ("rt:65001:*", "rt:65001:70000", true),
        ("rt:65001:*", "soo:65001:7", false),
        ("rt:*", "rt:10.0.0.1:7", true),
        ("rt:*", "65001:2", false),
    ];
    for (text, community, wanted) in cases {
        assert_eq!(pattern(text).matches(one(community)), wanted, "{text} {community}");
    }
}

#[test]
fn sets_ask_for_one_or_for_all() {
    let mut route = Attributes::default();
    for text in ["65001:1", "65001:1:2"] {
        add(&mut route, one(text));
    }
    let set = |texts: &[&str]| CommunitySet::new(texts.iter().map(|text| pattern(text)));
    assert!(set(&["65001:1", "65001:2"]).any(&route));
    assert!(!set(&["65001:1", "65001:2"]).all(&route));
    assert!(set(&["65001:*", "65001:1:*"]).all(&route));
    assert!(!set(&["rt:*"]).any(&route));
    assert!(!set(&[]).any(&route) && !set(&[]).all(&route), "an empty one asks for nothing");
}

#[test]
fn what_is_added_twice_is_there_once_and_an_empty_attribute_vanishes() {
    let mut route = Attributes::default();
    for text in ["65001:1", "rt:65001:1", "65001:1:2", "65001:1", "rt:65001:1", "65001:1:2"] {
        add(&mut route, one(text));
    }
    assert_eq!(of(&route).count(), 3);
    assert_eq!(route.other.len(), 2);
    retain(&mut route, |community| community == one("65001:1"));
    assert_eq!(route, Attributes { communities: vec![65001 << 16 | 1], ..Attributes::default() });
}

proptest! {
    #[test]
    fn a_set_holds_what_one_or_all_of_its_patterns_mean(
        patterns in prop::collection::vec((0..4_u32, 0..4_u32, 0..4_u8), 1..6),
        route in prop::collection::vec((0..4_u32, 0..4_u32), 0..6),
    ) {
        let word = |any: bool, number: u32| if any { "*".to_owned() } else { number.to_string() };
        let patterns: Vec<_> = patterns
            .into_iter()
            .map(|(a, b, any)| pattern(&format!("{}:{}", word(any & 1 == 1, a), word(any & 2 == 2, b))))
            .collect();
        let communities = route.into_iter().map(|(a, b)| a << 16 | b).collect();
        let route = Attributes { communities, ..Attributes::default() };
        let has = |pattern: &CommunityPattern| of(&route).any(|one| pattern.matches(one));
        let set = CommunitySet::new(patterns.clone());
        prop_assert_eq!(set.any(&route), patterns.iter().any(has));
        prop_assert_eq!(set.all(&route), patterns.iter().all(has));
    }

    #[test]
    fn every_community_is_read_back_as_it_is_written(bits: u64, large: [u32; 3]) {
        let standard = Community::Standard((bits >> 32) as u32);
        for community in [standard, Community::Extended(bits), Community::Large(large)] {
            prop_assert_eq!(community.to_string().parse(), Ok(community));
            prop_assert!(CommunityPattern::from(community).matches(community));
        }
        // The named forms too.
        for head in 0..3_u64 {
            let named = Community::Extended(bits & 0x0000_ffff_ffff_ffff | head << 56 | 2 << 48);
            prop_assert_eq!(named.to_string().parse(), Ok(named));
        }
    }
}
