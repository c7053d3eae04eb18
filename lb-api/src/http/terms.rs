//! What a request says beside its body: its name, its query, and what it expects to change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use lb_api_types::resource::Metadata;
use lb_api_types::view::List;

use super::problem::Refused;
use super::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::registry::{Bulk, Expected, Terms};
use crate::resources::Selector;
use crate::vip::is_name;

/// The query's names and values.
pub(super) type Asked = axum::extract::Query<Vec<(String, String)>>;

/// The name in the path.
pub(super) fn name(path: Result<Path<String>, PathRejection>) -> Result<String, Refused> {
    path.map(|Path(name)| name).map_err(|error| Refused::path(&error.body_text()))
}

/// Refuses every query: one that is accepted and ignored would mislead.
pub(super) fn nothing(asked: &Asked) -> Result<(), Refused> {
    match asked.first() {
        None => Ok(()),
        Some((name, _)) => Err(Refused::query(name, "nothing is asked here")),
    }
}

/// Refuses what is said twice: only one of the two could be meant.
fn once(asked: &Asked) -> Result<(), Refused> {
    let mut seen = BTreeSet::new();
    match asked.0.iter().find(|(name, _)| !seen.insert(name.as_str())) {
        None => Ok(()),
        Some((name, _)) => Err(Refused::query(name, "it is there twice: say it once")),
    }
}

/// Which part of a long list is asked for: `limit`, and `cursor`, after which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<K> {
    pub(super) limit: usize,
    pub(super) after: Option<K>,
}

/// The part that a query asks for; the first items by default.
pub(super) fn part<K>(asked: &Asked, key: impl Fn(&str) -> Option<K>) -> Result<Part<K>, Refused> {
    once(asked)?;
    let mut part = Part { limit: DEFAULT_LIMIT, after: None };
    for (name, value) in &asked.0 {
        let number = value.parse().ok().filter(|number| (1..=MAX_LIMIT).contains(number));
        match (name.as_str(), number, key(value)) {
            ("limit", Some(number), _) => part.limit = number,
            ("cursor", _, Some(key)) => part.after = Some(key),
            _ => {
                let known = format!(
                    "only limit (1 to {MAX_LIMIT}) and cursor (the `next` of the page before) are known here"
                );
                return Err(Refused::query(&format!("{name}={value}"), &known));
            }
        }
    }
    Ok(part)
}

/// Which resources of a list are asked for: `limit`, `cursor` and `labelSelector`.
#[derive(Debug)]
pub(super) struct Page {
    limit: usize,
    after: Option<String>,
    selector: Selector,
}

/// The page that a query asks for; all of it by default.
pub(super) fn page(asked: &Asked) -> Result<Page, Refused> {
    once(asked)?;
    let mut page = Page { limit: MAX_LIMIT, after: None, selector: Selector::default() };
    for (name, value) in &asked.0 {
        let number = value.parse().ok().filter(|number| (1..=MAX_LIMIT).contains(number));
        match (name.as_str(), number, value.parse::<Selector>()) {
            ("limit", Some(limit), _) => page.limit = limit,
            // A neighbour that nobody named has its address for a name.
            ("cursor", ..) if is_name(value) || value.parse::<IpAddr>().is_ok() => {
                page.after = Some(value.clone());
            }
            ("labelSelector", _, Ok(selector)) => page.selector = selector,
            ("labelSelector", _, Err(why)) => {
                return Err(Refused::query(&format!("{name}={value}"), why));
            }
            _ => {
                let known = format!(
                    "only limit (1 to {MAX_LIMIT}), cursor (the `next` of the page before) and labelSelector are known here"
                );
                return Err(Refused::query(&format!("{name}={value}"), &known));
            }
        }
    }
    Ok(page)
}

impl Page {
    /// What of all, sorted by name, is on the page.
    pub(super) fn of<T>(self, all: Vec<T>, metadata: impl Fn(&T) -> &Metadata) -> List<T> {
        let after = self.after.unwrap_or_default();
        let wanted = |one: &T| {
            let metadata = metadata(one);
            metadata.name > after && self.selector.takes(&metadata.labels)
        };
        let mut items: Vec<T> = all.into_iter().filter(wanted).collect();
        let truncated = items.len() > self.limit;
        items.truncate(self.limit);
        let next = items.last().filter(|_| truncated).map(|last| metadata(last).name.clone());
        List { items, truncated, next }
    }
}

/// How a change is to be carried out: `dryRun`, and the preconditions of RFC 9110 §13.1.1 and §13.1.2.
pub(super) fn terms(headers: &HeaderMap, asked: &Asked) -> Result<Terms, Refused> {
    once(asked)?;
    let mut terms = Terms { expected: expected(headers)?, dry_run: false };
    for (name, value) in &asked.0 {
        terms.dry_run = match (name.as_str(), value.as_str()) {
            ("dryRun", "true") => true,
            ("dryRun", "false") => false,
            _ => {
                let known = "only dryRun is known here, true or false";
                return Err(Refused::query(&format!("{name}={value}"), known));
            }
        };
    }
    Ok(terms)
}

/// How a whole configuration is to be applied: `dryRun`, `prune` and `confirmWithin`.
pub(super) fn bulk(asked: &Asked) -> Result<Bulk, Refused> {
    const MOST: u32 = 3600;
    once(asked)?;
    let mut bulk = Bulk::default();
    for (name, value) in &asked.0 {
        let seconds = value.parse().ok().filter(|seconds| (1..=MOST).contains(seconds));
        match (name.as_str(), value.as_str(), seconds) {
            ("dryRun", "true" | "false", _) => bulk.dry_run = value == "true",
            ("prune", "true" | "false", _) => bulk.prune = value == "true",
            ("owner", owner, _) if is_name(owner) => bulk.owner = Some(owner.to_owned()),
            ("confirmWithin", _, Some(seconds)) => {
                bulk.confirm_within = Some(Duration::from_secs(seconds.into()));
            }
            _ => {
                let known = format!(
                    "only dryRun and prune (true or false), owner (a name) and confirmWithin (1 to {MOST} seconds) are known here"
                );
                return Err(Refused::query(&format!("{name}={value}"), &known));
            }
        }
    }
    Ok(bulk)
}

/// What is gone back to, and whether only to say so: `to` and `dryRun`.
pub(super) fn rollback(asked: &Asked) -> Result<(Option<u64>, bool), Refused> {
    once(asked)?;
    let (mut to, mut dry_run) = (None, false);
    for (name, value) in &asked.0 {
        match (name.as_str(), value.as_str(), value.parse().ok()) {
            ("dryRun", "true" | "false", _) => dry_run = value == "true",
            ("to", _, Some(revision)) => to = Some(revision),
            _ => {
                let known = "only to (a revision) and dryRun (true or false) are known here";
                return Err(Refused::query(&format!("{name}={value}"), known));
            }
        }
    }
    Ok((to, dry_run))
}

/// The revision of the whole configuration that a change is about.
pub(super) fn revision(headers: &HeaderMap) -> Result<Expected, Refused> {
    match expected(headers)? {
        revision @ (Expected::Any | Expected::Revision(_)) => Ok(revision),
        Expected::Nothing | Expected::Something => {
            Err(Refused::header("If-Match", "a revision in quotes, such as \"7\""))
        }
    }
}

fn expected(headers: &HeaderMap) -> Result<Expected, Refused> {
    const IF_MATCH: &str = "* or a revision in quotes, such as \"7\"";
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().trim().to_owned();
    let one_of = |name: HeaderName| match headers.get_all(&name).iter().count() {
        0 | 1 => Ok(headers.get(&name).map(text)),
        _ => Err(Refused::header(name.as_str(), "there once")),
    };
    match (one_of(header::IF_MATCH)?, one_of(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Any),
        (None, Some(new)) if new == "*" => Ok(Expected::Nothing),
        (None, Some(_)) => Err(Refused::header("If-None-Match", "* in a change")),
        (Some(there), None) if there == "*" => Ok(Expected::Something),
        (Some(revision), None) => {
            let bare = revision.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let number = bare.and_then(|text| text.parse().ok());
            number.map(Expected::Revision).ok_or_else(|| Refused::header("If-Match", IF_MATCH))
        }
        (Some(_), Some(_)) => Err(Refused::header("If-Match", "there without If-None-Match")),
    }
}

/// The header that a later `If-Match` repeats; what the file says has none.
pub(super) fn etag(metadata: &Metadata) -> HeaderMap {
    metadata.revision.map(tagged).unwrap_or_default()
}

/// The same of a revision.
pub(super) fn tagged(revision: u64) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("\"{revision}\"")).ok();
    value.map(|value| (header::ETAG, value)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use lb_api_types::view::BgpRouteSpec;

    use super::*;

    #[test]
    fn what_is_said_twice_is_refused_whatever_it_says() {
        let asked = |name: &str| {
            axum::extract::Query(vec![(name.into(), "true".into()), (name.into(), "false".into())])
        };
        assert!(terms(&HeaderMap::new(), &asked("dryRun")).is_err());
        assert!(bulk(&asked("prune")).is_err() && rollback(&asked("dryRun")).is_err());
    }

    #[test]
    fn a_part_begins_after_the_key_that_the_cursor_names() {
        let asked = |query: &[(&str, &str)]| {
            let query = query.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            let key = |text: &str| text.parse::<BgpRouteSpec>().ok();
            part(&axum::extract::Query(query.collect()), key).map_err(|_| ())
        };
        assert_eq!(asked(&[]), Ok(Part { limit: DEFAULT_LIMIT, after: None }));
        let peer = Some([192, 0, 2, 1].into());
        for (peer, path_id) in [(None, None), (peer, None), (peer, Some(7))] {
            let key = BgpRouteSpec { prefix: "10.0.0.0/8".parse().unwrap(), peer, path_id };
            let second = asked(&[("limit", "2"), ("cursor", &key.to_string())]);
            assert_eq!(second, Ok(Part { limit: 2, after: Some(key) }));
        }
        for bad in [
            ("cursor", "0"),
            ("cursor", "10.0.0.0/8@x"),
            ("cursor", "10.0.0.0/8@192.0.2.1@x"),
            ("limit", "0"),
            ("colour", "red"),
        ] {
            assert!(asked(&[bad]).is_err(), "{bad:?}");
        }
    }
}
