//! BGP policy: sets, policies, and which of them a neighbour names.

pub(crate) mod sets;
pub(super) mod statement;

use std::collections::HashSet;

use lb_api_types::policy::{Action, BgpPolicy, BgpSet, Install, Policies, PolicySpec};

pub(super) use self::sets::sets;
use self::statement::statement;
use super::named;
use crate::read::{Cursor, Object};

/// Policies at most, and sets.
const MAX_NAMED: usize = 1024;
/// Statements of a policy at most.
const MAX_STATEMENTS: usize = 1024;
/// Policies that a neighbour has one after the other at most.
const MAX_CHAIN: usize = 16;
const LONGEST_NAME: usize = 64;

/// Ready-made policies, and whether they say something of what comes in.
const READY_MADE: [(&str, bool); 3] = [("none", true), ("all", true), ("vips", false)];

const ACTIONS: [(&str, Action); 3] =
    [("accept", Action::Accept), ("reject", Action::Reject), ("next", Action::Next)];

const INSTALLS: [(&str, Install); 3] =
    [("both", Install::Both), ("dataplane", Install::Dataplane), ("kernel", Install::Kernel)];

/// Which tables have a route.
pub(super) fn install(cursor: &Cursor<'_>) -> Option<Install> {
    cursor.one_of(&INSTALLS)
}

/// Which way routes cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Import,
    Export,
}

/// The list of policies; `sets` are those that they may name.
pub(super) fn policies(cursor: &Cursor<'_>, sets: &[BgpSet]) -> Option<Vec<BgpPolicy>> {
    let mut names = HashSet::new();
    let policies = cursor.list(|cursor| policy(cursor, sets, &mut names))?;
    bounded(cursor, policies, MAX_NAMED)
}

fn policy<'a>(
    cursor: &Cursor<'a>,
    sets: &[BgpSet],
    names: &mut HashSet<&'a str>,
) -> Option<BgpPolicy> {
    let (name, tags, object) = named::parts(cursor, &["statements", "otherwise"], true)?;
    let name = name.and_then(|cursor| {
        let name = unique(&cursor, names)?;
        if READY_MADE.iter().any(|(ready, _)| *ready == name) {
            return cursor.wrong(format!(
                "is `{name}`, which is the name of a ready-made policy: choose another"
            ));
        }
        Some(name)
    });
    let spec = spec(&object, Some(sets));
    Some(BgpPolicy { name: name?.to_owned(), tags, spec })
}

/// What a policy says. Without `sets`, whether those that it names are there is not asked.
pub(crate) fn read(cursor: &Cursor<'_>) -> Option<PolicySpec> {
    Some(spec(&cursor.object(&["statements", "otherwise"])?, None))
}

fn spec(object: &Object<'_>, sets: Option<&[BgpSet]>) -> PolicySpec {
    let statements = object.field("statements").and_then(|list| {
        let statements = list.list(|cursor| statement(cursor, sets))?;
        bounded(&list, statements, MAX_STATEMENTS)
    });
    let otherwise = object.field("otherwise").and_then(|action| action.one_of(&ACTIONS));
    PolicySpec {
        statements: statements.unwrap_or_default(),
        otherwise: otherwise.unwrap_or(Action::Next),
    }
}

/// A neighbour's policies: a name, or a list of them. Without `policies`, whether they are there is not asked.
pub(super) fn chain(
    cursor: &Cursor<'_>,
    way: Way,
    policies: Option<&[BgpPolicy]>,
) -> Option<Policies> {
    let names = if cursor.is_list() {
        let names = cursor.list(|cursor| link(cursor, way, policies))?;
        bounded(cursor, names, MAX_CHAIN)?
    } else {
        vec![link(cursor, way, policies)?]
    };
    Some(Policies(names))
}

fn link(cursor: &Cursor<'_>, way: Way, policies: Option<&[BgpPolicy]>) -> Option<String> {
    let name = cursor.text()?;
    if let Some((_, says_in)) = READY_MADE.iter().find(|(ready, _)| *ready == name) {
        if way == Way::Import && !says_in {
            return cursor.wrong("is `vips`, which says what is advertised: use all, none or a policy of bgp.policies");
        }
        return Some(name.to_owned());
    }
    let Some(policies) = policies else { return Some(name.to_owned()) };
    let Some(policy) = policies.iter().find(|policy| policy.name == name) else {
        let known = policies.iter().map(|policy| policy.name.as_str());
        let ready = READY_MADE.iter().filter(|(_, says_in)| way == Way::Export || *says_in);
        let known: Vec<_> = ready.map(|(name, _)| *name).chain(known).collect();
        return cursor.wrong(format!(
            "names the policy `{name}`, which is not there: {}",
            cursor.choice(name, &known)
        ));
    };
    // A statement that says something which has no meaning on this way is a mistake of whoever names it here.
    let foreign: &[&str] = match way {
        Way::Import => &["self", "unchanged"],
        Way::Export => &["peer"],
    };
    let said =
        policy.spec.statements.iter().filter_map(|statement| statement.set.next_hop.as_deref());
    if let Some(said) = said.into_iter().find(|said| foreign.contains(said)) {
        let (here, there) = match way {
            Way::Import => ("accepted", "export"),
            Way::Export => ("advertised", "import"),
        };
        return cursor.wrong(format!(
            "names the policy `{name}`, which sets next_hop to `{said}`: that says nothing of what is {here}, use it in `{there}`"
        ));
    }
    Some(name.to_owned())
}

/// A name that none before it has.
pub(super) fn unique<'a>(cursor: &Cursor<'a>, names: &mut HashSet<&'a str>) -> Option<&'a str> {
    let name = cursor.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(1..=LONGEST_NAME).contains(&name.len()) || !name.chars().all(plain) {
        return cursor.wrong(format!(
            "is `{name}`, but has to be 1 to {LONGEST_NAME} letters, digits, hyphens, dots and underscores"
        ));
    }
    if !names.insert(name) {
        return cursor.wrong(format!("is `{name}`, which another one has: rename one of the two"));
    }
    Some(name)
}

pub(super) fn bounded<T>(cursor: &Cursor<'_>, items: Vec<T>, most: usize) -> Option<Vec<T>> {
    if items.len() > most {
        return cursor.wrong(format!("lists {}, but {most} are the most", items.len()));
    }
    Some(items)
}

#[cfg(test)]
mod tests;
