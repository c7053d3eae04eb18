//! The configuration that holds, as a whole: over REST, and by the file.

use lb_api_types::resource::Condition;
use lb_api_types::view::{Configuration, RunningConfig, RunningMetadata, RunningStatus};

use super::Appliers;
use super::task::Task;
use crate::resources::{Kind, Resource, Resources};

impl<A: Appliers> Task<A> {
    pub(super) fn running(&self) -> RunningConfig {
        let mut spec = configuration(&self.resources);
        spec.vips = self.book.vips().values().cloned().collect();
        let resources = self.file_resources.iter();
        let resources = resources.map(|key| format!("{}/{}", key.0.noun(), key.1));
        // What the file does not say of it is said by nobody then.
        let global = self.resources.global().filter(|global| global.metadata.revision.is_none());
        let global = global.map(|it| format!("{}/{}", Kind::BgpGlobal.noun(), it.metadata.name));
        let vips = self.from_file.iter().map(|name| format!("vip/{name}"));
        let status = RunningStatus {
            conditions: vec![self.confirmed(), self.complete()],
            rolled_back_in_secs: self.seconds_left(),
            of_file: resources.chain(global).chain(vips).collect(),
            hidden: Configuration {
                vips: self.shadowed.clone(),
                ..configuration(&self.shadowed_resources)
            },
        };
        let metadata = RunningMetadata { name: "running".into(), revision: self.revision };
        RunningConfig { metadata, spec, status }
    }

    fn confirmed(&self) -> Condition {
        match self.seconds_left() {
            None => Condition::new("Confirmed", true, "Kept", "it is there after a restart"),
            Some(left) => {
                let why = format!("it is rolled back in {left} s: `lbctl config confirm` keeps it");
                Condition::new("Confirmed", false, "Waiting", why)
            }
        }
    }

    fn complete(&self) -> Condition {
        match self.said().as_slice() {
            [] => Condition::new("Complete", true, "CarriedOut", "all of it is carried out"),
            [one] => Condition::new("Complete", false, "LeftOut", one.as_str()),
            [one, more @ ..] => {
                let why = format!("{one}; and {} more: `lbctl get status` lists them", more.len());
                Condition::new("Complete", false, "LeftOut", why)
            }
        }
    }
}

/// These in the lists of a whole configuration.
fn configuration(resources: &Resources) -> Configuration {
    let mut whole = Configuration::default();
    for resource in resources.all() {
        match resource.clone() {
            Resource::Pool(one) => whole.pools.push(one),
            Resource::HealthCheck(one) => whole.health_checks.push(one),
            Resource::Node(one) => whole.nodes.push(one),
            Resource::BgpGlobal(one) => whole.bgp.set_global(one),
            Resource::Set(one) => whole.bgp.sets.push(one),
            Resource::Policy(one) => whole.bgp.policies.push(one),
            Resource::PeerGroup(one) => whole.bgp.peer_groups.push(one),
            Resource::Peer(one) => whole.bgp.peers.push(one),
            Resource::Address(one) => whole.addresses.push(one),
            Resource::StaticRoute(one) => whole.static_routes.push(one),
        }
    }
    whole
}
