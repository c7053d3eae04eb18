//! The statements of a policy.

use std::net::IpAddr;

use lb_api_types::policy::{
    BgpSet, BgpStatement, CommunityMatch, Conditions, Family, Members, Origin, Prepend, Range,
    RouteChanges, Source,
};
use lb_routing::policy::{Community, CommunityPattern, MAX_PREPEND, is_next_hop};

use super::sets::parsed;
use super::{ACTIONS, LONGEST_NAME, bounded};
use crate::config::bgp::asn;
use crate::read::{Cursor, Object};

const ORIGINS: [(&str, Origin); 3] =
    [("igp", Origin::Igp), ("egp", Origin::Egp), ("incomplete", Origin::Incomplete)];
pub(crate) const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
const SOURCES: [(&str, Source); 3] =
    [("vips", Source::Vips), ("internal", Source::Internal), ("external", Source::External)];
const MATCHES: [(&str, CommunityMatch); 2] =
    [("any", CommunityMatch::Any), ("all", CommunityMatch::All)];

/// Communities that a statement sets, adds or removes at most.
const MAX_COMMUNITIES: usize = 100;

pub(super) fn statement(cursor: &Cursor<'_>, sets: Option<&[BgpSet]>) -> Option<BgpStatement> {
    let object = cursor.object(&["name", "match", "set", "action"])?;
    let name = object.field("name").and_then(|cursor| {
        let name = cursor.text()?;
        if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return cursor.wrong(format!("has to be {LONGEST_NAME} printable characters at most"));
        }
        Some(name.to_owned())
    });
    // A condition that says nothing would hold for every route (RFC 8212): none may be there and empty.
    let conditions = object.given("match").and_then(|cursor| conditions(&cursor, sets));
    let set = object.field("set").and_then(|cursor| changes(&cursor));
    let action = object.field("action");
    let Some(action) = action else {
        return object.missing("action", "say accept, reject or next");
    };
    Some(BgpStatement {
        name,
        conditions: conditions.unwrap_or_default(),
        set: set.unwrap_or_default(),
        action: action.one_of(&ACTIONS)?,
    })
}

fn conditions(cursor: &Cursor<'_>, sets: Option<&[BgpSet]>) -> Option<Conditions> {
    let object = cursor.object(&[
        "prefix_set",
        "as_path_set",
        "as_path_length",
        "community_set",
        "community_match",
        "neighbor_set",
        "next_hop_set",
        "family",
        "origin",
        "med",
        "local_pref",
        "source",
    ])?;
    let set = |field: &str, kind: &str| set_named(&object, field, kind, sets);
    let community_set = set("community_set", "communities");
    if let (Some(how), None) = (object.given("community_match"), object.given("community_set")) {
        how.wrong::<()>(
            "says how many of `community_set`, which is not there: add it, or leave this out",
        );
    }
    Some(Conditions {
        prefix_set: set("prefix_set", "prefixes"),
        as_path_set: set("as_path_set", "as_paths"),
        as_path_length: range(&object, "as_path_length"),
        community_set,
        community_match: object.given("community_match").and_then(|how| how.one_of(&MATCHES)),
        neighbor_set: set("neighbor_set", "neighbors"),
        next_hop_set: set("next_hop_set", "prefixes"),
        family: object.given("family").and_then(|family| family.one_of(&FAMILIES)),
        origin: object.given("origin").and_then(|origin| origin.one_of(&ORIGINS)),
        med: range(&object, "med"),
        local_pref: range(&object, "local_pref"),
        source: object.given("source").and_then(|source| source.one_of(&SOURCES)),
    })
}

/// The name of a set that is there and of the right kind.
fn set_named(
    object: &Object<'_>,
    field: &str,
    kind: &str,
    sets: Option<&[BgpSet]>,
) -> Option<String> {
    let cursor = object.given(field)?;
    let name = cursor.text()?;
    let Some(sets) = sets else { return Some(name.to_owned()) };
    let Some(set) = sets.iter().find(|set| set.name == name) else {
        let of_kind = sets.iter().filter(|set| kind_of(set) == kind);
        let known: Vec<_> = of_kind.map(|set| set.name.as_str()).collect();
        let remedy = match known.as_slice() {
            [] => format!("add a set of {kind} with this name to bgp.sets"),
            known => cursor.choice(name, known),
        };
        return cursor.wrong(format!("names the set `{name}`, which is not there: {remedy}"));
    };
    if kind_of(set) != kind {
        let has = kind_of(set);
        return cursor
            .wrong(format!("names the set `{name}`, which has {has}: name one that has {kind}"));
    }
    Some(name.to_owned())
}

fn kind_of(set: &BgpSet) -> &'static str {
    match set.members {
        Members::Prefixes(_) => "prefixes",
        Members::AsPaths(_) => "as_paths",
        Members::Communities(_) => "communities",
        Members::Neighbors(_) => "neighbors",
    }
}

/// A number, or `{min, max}`.
fn range(object: &Object<'_>, field: &str) -> Option<Range> {
    let cursor = object.given(field)?;
    if !cursor.is_mapping() {
        return cursor.number(0..=u32::MAX).map(Range::Exactly);
    }
    let bounds = cursor.object(&["min", "max"])?;
    let bound = |name| bounds.given(name).and_then(|bound| bound.number(0..=u32::MAX));
    let (min, max) = (bound("min"), bound("max"));
    if bounds.given("min").is_none() && bounds.given("max").is_none() {
        return cursor.wrong("has neither `min` nor `max`: say one, or leave it out");
    }
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        return cursor.wrong("has a `min` above its `max`: no route is like that");
    }
    Some(Range::Between { min, max })
}

fn changes(cursor: &Cursor<'_>) -> Option<RouteChanges> {
    let object = cursor.object(&[
        "local_pref",
        "med",
        "origin",
        "next_hop",
        "install",
        "prepend",
        "communities",
        "remove_communities",
        "add_communities",
    ])?;
    let number = |field| object.field(field).and_then(|number| number.number(0..=u32::MAX));
    let list = |field: &str, read: fn(&Cursor<'_>) -> Option<String>| {
        let list = object.field(field)?;
        bounded(&list, list.list(read)?, MAX_COMMUNITIES)
    };
    Some(RouteChanges {
        local_pref: number("local_pref"),
        med: number("med"),
        origin: object.field("origin").and_then(|origin| origin.one_of(&ORIGINS)),
        next_hop: object.field("next_hop").and_then(|hop| next_hop(&hop)),
        install: object.field("install").and_then(|install| super::install(&install)),
        prepend: object.field("prepend").and_then(|prepend| read_prepend(&prepend)),
        communities: list("communities", parsed::<Community>),
        remove_communities: list("remove_communities", parsed::<CommunityPattern>)
            .unwrap_or_default(),
        add_communities: list("add_communities", parsed::<Community>).unwrap_or_default(),
    })
}

fn next_hop(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    if matches!(text, "self" | "unchanged" | "peer") {
        return Some(text.to_owned());
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return cursor.wrong(format!(
            "is `{text}`, but has to be an address, on export self or unchanged, on import peer"
        ));
    };
    if !is_next_hop(address) {
        return cursor.wrong(format!(
            "is {address}, but a next hop is a unicast address that others can reach: neither unspecified, loopback, multicast, link-local nor IPv4-mapped"
        ));
    }
    Some(text.to_owned())
}

fn read_prepend(cursor: &Cursor<'_>) -> Option<Prepend> {
    let object = cursor.object(&["asn", "times"])?;
    let number = object.field("asn").and_then(|number| asn(&number));
    let times = object.required("times").and_then(|times| times.number(1..=MAX_PREPEND));
    Some(Prepend { asn: number, times: times? })
}
