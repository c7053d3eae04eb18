//! Tells who watches events which conditions of resources are other than before.
//!
//! Deliberately absent: VIPs, of which the registry tells as it happens (`registry/tell.rs`), neighbours (`sessions.rs`), and
//! paths, FIB entries and flows, of which it is told how many there are (`counts.rs`).
//!
//! Bounded: a look at everything is due at most every second, where something may have changed, and every ten otherwise; it
//! takes one part in a hundred of the time at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lb_api_types::resource::Condition;
use lb_routing::StaticsStatus;
use tokio::time::{Duration, sleep};

use super::views::Live;
use crate::access::Access;
use crate::events::Events;
use crate::http::{Views, current};
use crate::registry::Registry;
use crate::resources::{Kind, routing};

/// Between two looks at what may change conditions.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Even where nothing has: what time alone changes.
const ANYWAY_AFTER: Duration = Duration::from_secs(10);
/// How much longer the rest is than a look.
const REST: u32 = 100;

/// Follows them until the registry or the dataplane ends.
pub(super) fn spawn(live: Arc<Live>, access: Arc<Access>, events: Events) {
    tokio::spawn(async move {
        let (mut told, mut before, mut looked) = (Told::default(), None, Instant::now());
        loop {
            sleep(LOOK_EVERY).await;
            let Some(now) = Causes::of(&live, &events).await else { return };
            if before.as_ref() == Some(&now) && looked.elapsed() < ANYWAY_AFTER {
                continue;
            }
            looked = Instant::now();
            let Some(all) = all(&*live, &live.registry, &access, &now.statics).await else {
                return;
            };
            let news = all.map(|all| told.news(all)).unwrap_or_default();
            // What is told now is no cause to look again.
            let causes = now.told + news.len() as u64;
            before = Some(Causes { told: causes, ..now });
            for (path, conditions) in news {
                events.tell_conditions(path, conditions);
            }
            sleep(looked.elapsed() * REST).await;
        }
    });
}

/// What conditions follow from, in short.
#[derive(Debug, PartialEq)]
struct Causes {
    /// Events so far: changes of resources, sessions and interfaces are among them.
    told: u64,
    statics: StaticsStatus,
    /// Interfaces that the fast path is attached to.
    attached: Vec<u32>,
}

impl Causes {
    async fn of(live: &Live, events: &Events) -> Option<Self> {
        let told = events.told();
        let attached = live.dataplane.with(|owned| owned.dataplane.attached()).await.ok()?;
        let attached = attached.into_iter().map(|one| one.ifindex).collect();
        Some(Self { told, statics: live.statics().await, attached })
    }
}

/// The conditions of every resource by its path; an error where some cannot be read now, which are not gone for that. `None`
/// where the daemon ends.
async fn all(
    views: &dyn Views,
    registry: &Registry,
    access: &Access,
    statics: &StaticsStatus,
) -> Option<Result<Vec<(String, Vec<Condition>)>, String>> {
    let mut all = vec![("version".to_owned(), vec![current()])];
    let of_registry = |kind: &&Kind| !matches!(kind, Kind::Peer | Kind::BgpGlobal);
    for &kind in Kind::ALL.iter().filter(of_registry) {
        for mut resource in registry.list_resources(kind).await.ok()? {
            routing::note(&mut resource, statics);
            let path = kind.place(&resource.metadata().name);
            all.push((path, resource.conditions().to_vec()));
        }
    }
    all.push((Kind::BgpGlobal.path().to_owned(), views.global().await.conditions));
    let (interfaces, appliance) = match (views.interfaces().await, views.status().await) {
        (Ok(interfaces), Ok(appliance)) => (interfaces, appliance),
        (Err(error), _) | (_, Err(error)) => return Some(Err(error)),
    };
    let path = |name: &str| format!("interfaces/{name}");
    all.extend(interfaces.into_iter().map(|it| (path(&it.metadata.name), it.status.conditions)));
    all.push(("status".to_owned(), appliance.status.conditions));
    let tokens = access.tokens.list(SystemTime::now()).into_iter();
    all.extend(tokens.filter_map(|token| {
        Some((format!("tokens/{}", token.metadata.name), token.status?.conditions))
    }));
    Some(Ok(all))
}

/// What is known of each resource; nothing before the first look.
#[derive(Debug, Default)]
struct Told(Option<BTreeMap<String, Vec<Condition>>>);

impl Told {
    /// Those that are other than before: all of a resource that is new, nothing of one that is gone, and nothing of what there
    /// is at first.
    fn news(&mut self, all: Vec<(String, Vec<Condition>)>) -> Vec<(String, Vec<Condition>)> {
        let now: BTreeMap<_, _> = all.into_iter().collect();
        let news = self.0.as_ref().map(|before| {
            let other = now.iter().map(|(path, conditions)| {
                let old = before.get(path).map_or(&[][..], Vec::as_slice);
                let other = conditions.iter().filter(|now| !old.iter().any(|old| same(old, now)));
                (path.clone(), other.cloned().collect::<Vec<_>>())
            });
            other.filter(|(_, conditions)| !conditions.is_empty()).collect()
        });
        self.0 = Some(now);
        news.unwrap_or_default()
    }
}

/// Whether both say the same to programs: numbers in their words may differ.
fn same(old: &Condition, now: &Condition) -> bool {
    (&old.kind, old.status, &old.reason) == (&now.kind, now.status, &now.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Served;

    #[test]
    fn a_condition_is_told_when_it_is_another_one_and_not_for_other_words() {
        let one = |path: &str, holds: bool, words: &str| {
            let reason = if holds { "Yes" } else { "No" };
            (path.to_owned(), vec![Condition::new("Installed", holds, reason, words)])
        };
        let mut told = Told::default();
        let mut news = |all: &[(String, Vec<Condition>)]| {
            let news = told.news(all.to_vec()).into_iter();
            news.map(|(path, all)| (path, all[0].status == true.into())).collect::<Vec<_>>()
        };
        assert_eq!(news(&[one("a", true, "1")]), [], "what there is at first");
        assert_eq!(news(&[one("a", true, "2")]), [], "other words");
        assert_eq!(news(&[one("a", false, "2")]), [("a".to_owned(), false)]);
        assert_eq!(news(&[one("a", false, "2"), one("b", true, "1")]), [("b".to_owned(), true)]);
        assert_eq!(news(&[one("b", true, "1")]), [], "one that is gone");
    }

    #[tokio::test]
    async fn whatever_has_conditions_is_looked_at_and_told_when_they_are_others() {
        let served = Served::new(vec![]).await;
        served.apply_one_of_each().await;
        let (views, registry) = (served.views(), served.bench.registry.clone());
        let statics = served.statics().await;
        let look =
            || async { all(&*views, &registry, &served.access, &statics).await.unwrap().unwrap() };
        let mut told = Told::default();
        told.news(look().await);
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Peer) {
            let all = registry.list_resources(*kind).await.unwrap();
            let path = kind.place(&all[0].metadata().name);
            let conditions = look().await.into_iter().filter(|(it, _)| *it == path);
            let conditions: Vec<_> = conditions.flat_map(|(_, all)| all).collect();
            assert!(!conditions.is_empty(), "{path}");
            for which in conditions {
                let mut other = look().await;
                let found = other.iter_mut().filter(|(it, _)| *it == path);
                let mut found = found.flat_map(|(_, all)| all).filter(|it| it.kind == which.kind);
                found.next().unwrap().reason.push_str("Not");
                let news = told.news(other);
                let [(at, [now])] =
                    &news.iter().map(|(at, all)| (at, &all[..])).collect::<Vec<_>>()[..]
                else {
                    panic!("{path} {}: {news:?}", which.kind)
                };
                assert_eq!((*at, &now.kind), (&path, &which.kind));
                assert_eq!(told.news(look().await).len(), 1, "and back");
            }
        }
    }
}
