//! Whether what is new can be carried out: keys of neighbours be read, next hops of static routes be reached, and the FIB have
//! room for them.

use std::collections::BTreeSet;

use lb_api_types::peer::{Group, Peer};
use lb_routing::RouterHandle;

use super::dataplane::DataplaneHandle;
use crate::config::keys;
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

/// The first key file that is new, of a neighbour or of a group, and that cannot be read. One that could be read once may go:
/// whoever has it keeps it.
pub(super) fn readable(before: &Resources, after: &Resources) -> Result<(), Misfit> {
    let of_peer = |peer: &Peer| peer.spec.options.md5_key_file.clone();
    let peers = after.peers().map(|peer| {
        let name = &peer.metadata.name;
        let old = before.peers().find(|old| old.metadata.name == *name).and_then(of_peer);
        (Kind::Peer, name, of_peer(peer), old)
    });
    let of_group = |group: &Group| group.spec.md5_key_file.clone();
    let groups = after.peer_groups().map(|group| {
        let name = &group.metadata.name;
        let old = before.peer_groups().find(|old| old.metadata.name == *name).and_then(of_group);
        (Kind::PeerGroup, name, of_group(group), old)
    });
    for (kind, name, file, old) in peers.chain(groups) {
        let Some(new) = file.filter(|file| old.as_ref() != Some(file)) else { continue };
        if let Err(why) = keys::read(&new) {
            let key = Key(kind, name.clone());
            let message = format!(
                "{key}: md5_key_file {why}; lbd reads files below /etc and /usr, and in folders of files that its own file names, as the user that it runs as"
            );
            return Err(Misfit { field: "/spec/md5_key_file".into(), message, key });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read::document;

    #[test]
    fn a_key_file_that_is_new_has_to_be_read_and_one_that_was_there_may_have_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let with = |kind: Kind, name: &str, spec: serde_json::Value| -> Resources {
            let value = json!({"metadata": {"name": name}, "spec": spec});
            [document(&value, |cursor| kind.read(cursor)).unwrap()].into_iter().collect()
        };
        let peer = with(
            Kind::Peer,
            "n1",
            json!({"address": "192.0.2.1", "asn": 65001, "md5_key_file": file}),
        );
        let group = with(Kind::PeerGroup, "nodes", json!({"md5_key_file": file}));
        for (all, whose) in [(&peer, "peer n1"), (&group, "peer-group nodes")] {
            let refused = readable(&Resources::default(), all).unwrap_err();
            assert_eq!(refused.field, "/spec/md5_key_file");
            let said = format!("{}: md5_key_file names {}", refused.key, file.display());
            assert!(refused.message.starts_with(&said), "{whose}: {}", refused.message);
            assert!(refused.message.contains("lbd reads files below /etc"), "{}", refused.message);
            readable(all, all).unwrap();
        }
        std::fs::write(&file, "s3cret").unwrap();
        readable(&Resources::default(), &peer).unwrap();
    }
}
