//! Whether new static routes can be carried out: their next hops be reached, and the FIB have room for them.

use std::collections::BTreeSet;

use lb_routing::RouterHandle;

use super::dataplane::DataplaneHandle;
use crate::resources::{Key, Kind, Misfit, Resources, routing};

/// The first next hop of a route that is new or other than before, and that cannot be reached. Those that were there before
/// may wait for their interfaces.
pub(super) async fn admit(
    router: &RouterHandle,
    before: &Resources,
    after: &Resources,
) -> Result<(), Misfit> {
    let key = |name: &str| Key(Kind::StaticRoute, name.to_owned());
    let (mut places, mut hops) = (Vec::new(), Vec::new());
    for route in after.static_routes() {
        let old = before.static_routes().find(|old| old.metadata.name == route.metadata.name);
        if old.is_some_and(|old| old.spec == route.spec) {
            continue;
        }
        for (place, hop) in route.spec.next_hops.iter().enumerate() {
            places.push((key(&route.metadata.name), place));
            hops.push(routing::hop_of(hop));
        }
    }
    if hops.is_empty() {
        return Ok(());
    }
    let why = router.unreachable(hops, routing::statics(after).addresses).await;
    let first = places.into_iter().zip(why).find_map(|(place, why)| Some((place, why?)));
    match first {
        None => Ok(()),
        Some(((key, place), why)) => Err(Misfit {
            field: format!("/spec/next_hops/{place}"),
            message: format!("{key}: {why}"),
            key,
        }),
    }
}

/// The first route to a destination that is new, and that the FIB has no room for. Nothing is written.
pub(super) async fn room(
    dataplane: &DataplaneHandle,
    before: &Resources,
    after: &Resources,
) -> Result<(), Misfit> {
    let known: BTreeSet<_> = before.static_routes().map(|route| route.spec.prefix).collect();
    let new = after.static_routes().filter(|route| !known.contains(&route.spec.prefix));
    let new: Vec<_> = new.map(|it| (it.metadata.name.clone(), it.spec.prefix)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let refused = dataplane.with(move |owned| {
        new.into_iter().find_map(|(name, prefix)| {
            let room = owned.dataplane.fib_room_for(prefix.network(), prefix.prefix());
            Some((name, room.err()?.to_string()))
        })
    });
    let key = |name| Key(Kind::StaticRoute, name);
    match refused.await {
        // Whoever configures is told by the dataplane itself.
        Ok(None) | Err(_) => Ok(()),
        Ok(Some((name, why))) => {
            let key = key(name);
            Err(Misfit { field: "/spec/prefix".into(), message: format!("{key}: {why}"), key })
        }
    }
}
