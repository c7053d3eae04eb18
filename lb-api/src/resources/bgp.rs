//! BGP's neighbours, groups, policies and sets: read, and looked at as a whole, since they name one another.

use lb_api_types::bgp::Global;
use lb_api_types::config::Bgp;
use lb_api_types::peer::{BgpPeer, Group, Peer, PeerGroup};
use lb_api_types::policy::{BgpPolicy, BgpSet, Policies, Policy, Set};
use lb_api_types::resource::{Metadata, Tags};

use super::{Key, Kind, Misfit, Resource, Resources, read_metadata};
use crate::config::{bgp, policy};
use crate::read::{Cursor, Path, Segment};

/// The name of what BGP has in common for all neighbours.
pub(crate) const GLOBAL: &str = "global";

pub(super) fn read_global(cursor: &Cursor<'_>) -> Option<Global> {
    let (metadata, spec) = parts(cursor, bgp::read_global)?;
    match metadata.name.as_str() {
        GLOBAL => Some(Global { metadata, spec, status: None }),
        other => cursor.wrong(format!("has the name {other}, but there is one, {GLOBAL}")),
    }
}

pub(super) fn read_set(cursor: &Cursor<'_>) -> Option<Set> {
    let (metadata, spec) = parts(cursor, policy::sets::read)?;
    Some(Set { metadata, spec, status: None })
}

pub(super) fn read_policy(cursor: &Cursor<'_>) -> Option<Policy> {
    let (metadata, spec) = parts(cursor, policy::read)?;
    Some(Policy { metadata, spec, status: None })
}

pub(super) fn read_group(cursor: &Cursor<'_>) -> Option<Group> {
    let (metadata, spec) = parts(cursor, bgp::read_group)?;
    Some(Group { metadata, spec, status: None })
}

pub(super) fn read_peer(cursor: &Cursor<'_>) -> Option<Peer> {
    let (metadata, spec) = parts(cursor, bgp::read_peer)?;
    Some(Peer { metadata, spec, status: None })
}

fn parts<T>(
    cursor: &Cursor<'_>,
    read: impl FnOnce(&Cursor<'_>) -> Option<T>,
) -> Option<(Metadata, T)> {
    let object = cursor.object(&["metadata", "spec", "status"])?;
    let metadata = object.required("metadata").and_then(|metadata| read_metadata(&metadata));
    let spec = object.required("spec").and_then(|spec| read(&spec));
    Some((metadata?, spec?))
}

/// What the file says, as resources.
pub(crate) fn of_file(section: &Bgp) -> impl Iterator<Item = Resource> {
    let named = |name: &str, tags: &Tags| tags.clone().named(name);
    let sets = section.sets.iter().map(move |set| {
        let (metadata, spec) = (named(&set.name, &set.tags), set.members.clone());
        Resource::Set(Set { metadata, spec, status: None })
    });
    let policies = section.policies.iter().map(move |policy| {
        let (metadata, spec) = (named(&policy.name, &policy.tags), policy.spec.clone());
        Resource::Policy(Policy { metadata, spec, status: None })
    });
    let groups = section.peer_groups.iter().map(move |group| {
        let (metadata, spec) = (named(&group.name, &group.tags), group.options.clone());
        Resource::PeerGroup(Group { metadata, spec, status: None })
    });
    let peers = section.peers.iter().map(move |peer| {
        let (metadata, spec) = (named(&peer.title(), &peer.tags), peer.spec.clone());
        Resource::Peer(Peer { metadata, spec, status: None })
    });
    let tags = Tags { labels: section.labels.clone(), owner: section.owner.clone() };
    let global = Global { metadata: tags.named(GLOBAL), spec: section.global(), status: None };
    let global = std::iter::once(Resource::BgpGlobal(global));
    global.chain(sets).chain(policies).chain(groups).chain(peers)
}

/// The section with exactly these.
pub(crate) fn section(base: &Bgp, resources: &Resources) -> Bgp {
    let name = |metadata: &Metadata| metadata.name.clone();
    let sets = resources.sets().map(|Set { metadata, spec, .. }| BgpSet {
        name: name(metadata),
        tags: Tags::of(metadata),
        members: spec.clone(),
    });
    let policies = resources.policies().map(|Policy { metadata, spec, .. }| BgpPolicy {
        name: name(metadata),
        tags: Tags::of(metadata),
        spec: spec.clone(),
    });
    let groups = resources.peer_groups().map(|Group { metadata, spec, .. }| PeerGroup {
        name: name(metadata),
        tags: Tags::of(metadata),
        options: spec.clone(),
    });
    let peers = resources.peers().map(|Peer { metadata, spec, .. }| BgpPeer {
        name: Some(name(metadata)),
        tags: Tags::of(metadata),
        spec: spec.clone(),
    });
    let said = resources.global().map_or_else(|| base.global(), |global| global.spec);
    let section = Bgp {
        sets: sets.collect(),
        policies: policies.collect(),
        peer_groups: groups.collect(),
        peers: peers.collect(),
        ..Bgp::default()
    };
    section.with_global(said)
}

/// The first thing of these resources that does not fit together, such as a name of what is not there.
pub(crate) fn misfit(resources: &Resources) -> Option<Misfit> {
    let mistake = bgp::mistakes(&section(&Bgp::default(), resources)).into_iter().next()?;
    let [Segment::Field(list), Segment::Index(index), rest @ ..] = mistake.path.segments() else {
        return None;
    };
    let kind = Kind::ALL.iter().copied().find(|kind| kind.many() == list.as_str())?;
    let key = resources.of(kind).nth(*index)?.key();
    let field = match rest {
        [Segment::Field(name)] if name == "name" => Path::default().field("metadata"),
        _ => Path::default().field("spec"),
    };
    let field = rest.iter().fold(field, |path, segment| match segment {
        Segment::Field(name) => path.field(name),
        Segment::Index(index) => path.index(*index),
    });
    let message = match rest {
        [] => format!("{key} {}", mistake.message),
        [..] => format!("{key}: {field} {}", mistake.message),
    };
    let field = field.pointer();
    Some(Misfit { key, field, message })
}

/// The section with what fits together of these, and what is said of the rest: after a start the file can be another one
/// than that which resources made over REST were made for.
pub(crate) fn usable(base: &Bgp, mut resources: Resources) -> (Bgp, Vec<String>) {
    let mut said = Vec::new();
    // Each round takes one away.
    while let Some(Misfit { key, message, .. }) = misfit(&resources) {
        said.push(format!("{message}; it is left out until then"));
        if resources.remove(&key).is_none() {
            break;
        }
    }
    (section(base, &resources), said)
}

/// Who names a resource, as `policy from-upstream`.
pub(crate) fn named_by(resources: &Resources, key: &Key) -> Vec<String> {
    let name = key.1.as_str();
    let is = |said: &Option<String>| said.as_deref() == Some(name);
    let lists =
        |said: &Option<Policies>| said.iter().any(|names| names.0.iter().any(|n| n == name));
    let names = |resource: &&Resource| match (key.0, resource) {
        (Kind::Set, Resource::Policy(policy)) => policy.spec.statements.iter().any(|statement| {
            let of = &statement.conditions;
            is(&of.prefix_set)
                || is(&of.as_path_set)
                || is(&of.community_set)
                || is(&of.neighbor_set)
                || is(&of.next_hop_set)
        }),
        (Kind::Policy, Resource::Peer(peer)) => {
            lists(&peer.spec.options.import) || lists(&peer.spec.options.export)
        }
        (Kind::Policy, Resource::PeerGroup(group)) => {
            lists(&group.spec.import) || lists(&group.spec.export)
        }
        (Kind::PeerGroup, Resource::Peer(peer)) => is(&peer.spec.group),
        (
            Kind::Pool
            | Kind::HealthCheck
            | Kind::Node
            | Kind::BgpGlobal
            | Kind::Set
            | Kind::Policy
            | Kind::PeerGroup
            | Kind::Peer
            | Kind::Address
            | Kind::StaticRoute,
            Resource::Pool(_)
            | Resource::HealthCheck(_)
            | Resource::Node(_)
            | Resource::BgpGlobal(_)
            | Resource::Set(_)
            | Resource::Policy(_)
            | Resource::PeerGroup(_)
            | Resource::Peer(_)
            | Resource::Address(_)
            | Resource::StaticRoute(_),
        ) => false,
    };
    resources.all().filter(names).map(|resource| resource.key().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read::document;

    fn resource(kind: Kind, name: &str, spec: &serde_json::Value) -> Resource {
        let value = json!({"metadata": {"name": name}, "spec": spec});
        document(&value, |cursor| kind.read(cursor)).unwrap()
    }

    fn all() -> Resources {
        let accept = json!([{"match": {"prefix_set": "pods"}, "action": "accept"}]);
        let peer = json!({"address": "192.0.2.1", "group": "nodes", "import": ["p", "none"]});
        [
            resource(Kind::Set, "pods", &json!({"prefixes": ["10.0.0.0/8"]})),
            resource(Kind::Policy, "p", &json!({"statements": accept})),
            resource(Kind::PeerGroup, "nodes", &json!({"asn": 65001})),
            resource(Kind::Peer, "node1", &peer),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn what_is_named_has_to_be_there() {
        assert_eq!(misfit(&all()), None);
        let cases = [
            (Kind::Set, "pods", "policy p", "/spec/statements/0/match/prefix_set"),
            (Kind::Policy, "p", "peer node1", "/spec/import/0"),
            (Kind::PeerGroup, "nodes", "peer node1", "/spec/group"),
        ];
        for (kind, name, whose, field) in cases {
            let key = Key(kind, name.into());
            assert_eq!(named_by(&all(), &key), [whose]);
            let mut lacking = all();
            lacking.remove(&key);
            let found = misfit(&lacking).unwrap();
            assert_eq!((found.key.to_string().as_str(), found.field.as_str()), (whose, field));
            let words = found.message;
            assert!(words.contains(name) && words.contains("which is not there"), "{words}");
            let named = field.trim_start_matches('/').replace("/0", "[0]").replace('/', ".");
            assert!(words.starts_with(&format!("{whose}: {named} ")), "{words}");
        }
    }

    #[test]
    fn after_a_start_what_lacks_something_is_left_out_and_said() {
        let mut lacking = all();
        lacking.remove(&Key(Kind::Set, "pods".into()));
        let (section, said) = usable(&Bgp::default(), lacking);
        assert_eq!(
            (section.policies.len(), section.peers.len(), said.len()),
            (0, 0, 2),
            "{said:?}"
        );
        let (section, said) = usable(&Bgp { asn: Some(65009), ..Bgp::default() }, all());
        assert_eq!((section.asn, section.peers.len(), said.len()), (Some(65009), 1, 0));
    }

    #[test]
    fn the_file_s_neighbours_are_resources_too() {
        let base = Bgp { asn: Some(65009), ..Bgp::default() };
        let mut of_file: Resources = of_file(&section(&base, &all())).collect();
        let global = of_file.remove(&Key(Kind::BgpGlobal, GLOBAL.into())).unwrap();
        assert_eq!(of_file, all());
        let Resource::BgpGlobal(global) = global else { unreachable!("it has that key") };
        assert_eq!(global.spec, base.global());
    }

    #[test]
    fn a_ready_made_policy_s_name_is_taken() {
        let named = [resource(Kind::Policy, "all", &json!({}))].into_iter().collect();
        let found = misfit(&named).unwrap();
        assert_eq!(found.field, "/metadata/name");
        assert!(found.message.contains("ready-made"), "{}", found.message);
    }
}
