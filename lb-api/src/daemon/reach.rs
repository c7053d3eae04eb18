//! Whether the next hops of new static routes can be reached.

use lb_routing::RouterHandle;

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
