//! Sets that policies name.

use std::collections::HashSet;
use std::net::IpAddr;

use lb_api_types::policy::{BgpSet, Members};
use lb_routing::policy::{AsPathSet, CommunityPattern, PrefixRange};

use super::super::named;
use super::{MAX_NAMED, bounded, unique};
use crate::read::{Cursor, Object};

/// Members of a set at most; of patterns, which are compiled together, fewer.
const MAX_MEMBERS: usize = 100_000;
const MAX_PATTERNS: usize = 1000;

/// A set's kinds, and the fields that they stand in.
const KINDS: [&str; 4] = ["prefixes", "as_paths", "communities", "neighbors"];

/// The list of sets.
pub(in crate::config) fn sets(cursor: &Cursor<'_>) -> Option<Vec<BgpSet>> {
    let mut names = HashSet::new();
    let sets = cursor.list(|cursor| set(cursor, &mut names))?;
    bounded(cursor, sets, MAX_NAMED)
}

/// A set with members that cannot be read is a set still, so that a policy that names it is not wrong as well.
fn set<'a>(cursor: &Cursor<'a>, names: &mut HashSet<&'a str>) -> Option<BgpSet> {
    let (name, tags, object) = named::parts(cursor, &KINDS, true)?;
    let name = name.and_then(|name| unique(&name, names));
    let members = one_kind(&object)?;
    Some(BgpSet { name: name?.to_owned(), tags, members })
}

/// What is in a set.
pub(crate) fn read(cursor: &Cursor<'_>) -> Option<Members> {
    one_kind(&cursor.object(&KINDS)?)
}

fn one_kind(object: &Object<'_>) -> Option<Members> {
    let mut kinds = KINDS.iter().filter_map(|kind| Some((*kind, object.field(kind)?)));
    let (Some((kind, list)), None) = (kinds.next(), kinds.next()) else {
        return object.cursor().wrong(format!("has to have exactly one of {}", KINDS.join(", ")));
    };
    Some(match kind {
        "prefixes" => Members::Prefixes(members(&list, MAX_MEMBERS, parsed::<PrefixRange>)),
        "as_paths" => Members::AsPaths(patterns(&list)),
        "communities" => {
            Members::Communities(members(&list, MAX_MEMBERS, parsed::<CommunityPattern>))
        }
        _ => Members::Neighbors(members(&list, MAX_MEMBERS, neighbour)),
    })
}

fn members(
    list: &Cursor<'_>,
    most: usize,
    read: impl FnMut(&Cursor<'_>) -> Option<String>,
) -> Vec<String> {
    let (mut read, mut listed) = (read, 0_usize);
    let members = list.list(|cursor| {
        listed += 1;
        read(cursor)
    });
    let Some(members) = members else { return Vec::new() };
    if listed == 0 {
        return list.wrong("is empty: list a member, or remove the set").unwrap_or_default();
    }
    bounded(list, members, most).unwrap_or_default()
}

/// Each by itself, and then all together, which may take more than there is room for.
fn patterns(list: &Cursor<'_>) -> Vec<String> {
    let patterns = members(list, MAX_PATTERNS, |cursor| {
        let pattern = cursor.text()?.to_owned();
        match AsPathSet::new(vec![pattern.clone()]) {
            Ok(_) => Some(pattern),
            Err(error) => cursor.wrong(error.to_string()),
        }
    });
    match AsPathSet::new(patterns.clone()) {
        Ok(_) => patterns,
        Err(error) => list.wrong(error.to_string()).unwrap_or_default(),
    }
}

/// A text that is a `T`.
pub(super) fn parsed<T>(cursor: &Cursor<'_>) -> Option<String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = cursor.text()?;
    match text.parse::<T>() {
        Ok(_) => Some(text.to_owned()),
        Err(error) => cursor.wrong(error.to_string()),
    }
}

/// An address, or a prefix that holds some.
fn neighbour(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    match text.parse::<IpAddr>() {
        Ok(_) => Some(text.to_owned()),
        Err(_) if text.contains('/') => cursor.prefix().map(|_| text.to_owned()),
        Err(_) => cursor.wrong(format!(
            "is `{text}`, but has to be an address such as 192.0.2.1, or a prefix such as 192.0.2.0/24"
        )),
    }
}
