//! Resources beside VIPs: made, changed and removed by the task that owns the VIPs, in one change with what follows of it
//! for them.

use std::collections::BTreeSet;

use lb_api_types::event::EventKind;
use lb_api_types::peer::Group;
use lb_api_types::policy::{Policy, Set};
use lb_api_types::resource::{
    Allocation, Condition, HealthCheckStatus, NamedHealthCheck, NamedStatus, Node, NodeSpec,
    NodeStatus, Pool, PoolStatus,
};
use lb_api_types::vip::Vip;

use super::change::{Wanted, expect};
use super::task::Task;
use super::{Appliers, Expected, Refusal, Terms, admit};
use crate::resources::{Key, Kind, MAX_OF_A_KIND, Ranges, Resource, Resources, bgp};

/// What became of a change: the resource, and whether it is new.
pub(crate) type AppliedResource = (Resource, bool);

impl<A: Appliers> Task<A> {
    pub(super) fn list_resources(&self, kind: Kind) -> Vec<Resource> {
        self.resources.of(kind).map(|resource| self.with_state(resource)).collect()
    }

    pub(super) fn get_resource(&self, key: &Key) -> Option<Resource> {
        self.resources.get(key).map(|resource| self.with_state(resource))
    }

    pub(super) async fn put_resource(
        &mut self,
        mut resource: Resource,
        terms: Terms,
    ) -> Result<AppliedResource, Refusal> {
        let key = resource.key();
        self.is_not_of_the_file(&key)?;
        self.as_the_file_says(&mut resource)?;
        let old = self.resources.get(&key);
        let revision = old.map(|old| old.metadata().revision);
        // What is always there is not made yet as long as only the file says it.
        let made = revision.filter(|made| made.is_some() || terms.expected != Expected::Nothing);
        expect(&key.to_string(), made, terms.expected)?;
        if let Some(wanted) = resource.metadata().revision {
            expect(&key.to_string(), revision, Expected::Revision(wanted))?;
        }
        let created = old.is_none();
        if created && self.resources.of(key.0).count() >= MAX_OF_A_KIND {
            return Err(Refusal::TooManyOf(key.0.word(), MAX_OF_A_KIND));
        }
        let same = old.is_some_and(|old| old.asks_the_same(&resource));
        resource.forget_status();
        resource.metadata_mut().revision =
            if same { revision.flatten() } else { Some(self.revision + 1) };
        if !same {
            let mut wanted = self.as_it_is();
            wanted.resources.insert(resource.clone());
            wanted.keys.insert(key.clone());
            self.change_resources(wanted, &key, terms.dry_run).await?;
        }
        let there = if terms.dry_run { None } else { self.get_resource(&key) };
        Ok((there.unwrap_or(resource), created))
    }

    pub(super) async fn delete_resource(&mut self, key: &Key, terms: Terms) -> Result<(), Refusal> {
        self.is_not_of_the_file(key)?;
        let Some(old) = self.resources.get(key) else {
            return Err(Refusal::Unknown(key.to_string()));
        };
        expect(&key.to_string(), Some(old.metadata().revision), terms.expected)?;
        let mut wanted = self.as_it_is();
        self.take_out(&mut wanted, key);
        self.change_resources(wanted, key, terms.dry_run).await
    }

    /// Has a resource be gone; what is always there is as the file says.
    pub(super) fn take_out(&self, wanted: &mut Wanted, key: &Key) {
        match &self.global {
            Some(global) if key.0 == Kind::BgpGlobal => {
                wanted.resources.insert(Resource::BgpGlobal(global.clone()));
            }
            Some(_) | None => drop(wanted.resources.remove(key)),
        }
        wanted.keys.insert(key.clone());
    }

    /// Fills in what the file says of BGP as a whole, where that is not something else.
    pub(super) fn as_the_file_says(&self, resource: &mut Resource) -> Result<(), Refusal> {
        let (Resource::BgpGlobal(wanted), Some(file)) = (resource, &self.global) else {
            return Ok(());
        };
        if let Some((field, value)) = file.spec.differs(wanted.spec) {
            let message = format!(
                "spec.{field} is {value} in the configuration file, and only the file can change it: edit bgp.{field} there and restart lbd, or take it out there"
            );
            return Err(Refusal::Wrong { field: format!("/spec/{field}"), message });
        }
        wanted.spec = file.spec.over(wanted.spec);
        Ok(())
    }

    /// Whether it is the file's alone, and as it is there, where only the file changes it or nobody else has said anything.
    pub(super) fn is_as_the_file_says(&self, resource: &Resource) -> bool {
        let (key, mut whole) = (resource.key(), resource.clone());
        let there = self.resources.get(&key).filter(|there| there.metadata().revision.is_none());
        self.file_resources.contains(&key)
            || self.as_the_file_says(&mut whole).is_ok()
                && there.is_some_and(|there| there.asks_the_same(&whole))
    }

    fn is_not_of_the_file(&self, key: &Key) -> Result<(), Refusal> {
        match self.file_resources.contains(key) {
            true => Err(Refusal::FromFile(key.to_string())),
            false => Ok(()),
        }
    }

    async fn change_resources(
        &mut self,
        mut wanted: Wanted,
        key: &Key,
        dry_run: bool,
    ) -> Result<(), Refusal> {
        let Wanted { vips, resources, keys } = &mut wanted;
        let followed = admit::follow(self.book.vips(), vips, resources, keys);
        followed.map_err(|refusal| in_use(key, refusal))?;
        admit::fits(self.book.vips(), vips, resources, keys)?;
        self.appliers.admit(&self.resources, &wanted.resources).await?;
        if !dry_run {
            self.change(wanted, None).await?;
            tracing::info!(resource = %key, "changed");
        }
        Ok(())
    }

    /// Tells what became of these.
    pub(super) fn tell_of_resources(&self, before: &Resources, keys: &BTreeSet<Key>) {
        for key in keys {
            let (kind, what) = match (before.get(key), self.resources.get(key)) {
                (None, Some(_)) => (EventKind::ResourceCreated, "created"),
                (Some(_), Some(_)) => (EventKind::ResourceUpdated, "changed"),
                (Some(_), None) => (EventKind::ResourceDeleted, "removed"),
                (None, None) => continue,
            };
            self.events.tell(kind, key.0.place(&key.1), format!("{key} {what}"));
        }
    }

    /// A resource with what holds of it.
    fn with_state(&self, resource: &Resource) -> Resource {
        match resource {
            Resource::Pool(pool) => Resource::Pool(self.pool_with_state(pool)),
            Resource::HealthCheck(check) => Resource::HealthCheck(self.check_with_state(check)),
            Resource::Node(node) => Resource::Node(with_drain(node)),
            Resource::Set(set) => {
                Resource::Set(Set { status: Some(self.named(&resource.key())), ..set.clone() })
            }
            Resource::Policy(policy) => {
                let status = Some(self.named(&resource.key()));
                Resource::Policy(Policy { status, ..policy.clone() })
            }
            Resource::PeerGroup(group) => {
                let status = Some(self.named(&resource.key()));
                Resource::PeerGroup(Group { status, ..group.clone() })
            }
            // The router's to tell.
            Resource::Peer(_)
            | Resource::BgpGlobal(_)
            | Resource::Address(_)
            | Resource::StaticRoute(_) => resource.clone(),
        }
    }

    fn named(&self, key: &Key) -> NamedStatus {
        let by = bgp::named_by(&self.resources, key);
        let used = Condition {
            kind: "Used".into(),
            status: (!by.is_empty()).into(),
            reason: if by.is_empty() { "NamedByNone" } else { "Named" }.into(),
            message: match by.as_slice() {
                [] => "nobody names it".into(),
                by => format!("{} name it", by.len()),
            },
        };
        NamedStatus { conditions: vec![used], by }
    }

    fn pool_with_state(&self, pool: &Pool) -> Pool {
        let ranges = Ranges::of(&pool.spec);
        let mut allocated: Vec<Allocation> = Vec::new();
        let mut inside: Vec<&Vip> =
            self.book.vips().values().filter(|vip| ranges.holds(vip.spec.address)).collect();
        inside.sort_by_key(|vip| vip.spec.address);
        for vip in inside {
            let (address, name) = (vip.spec.address, vip.metadata.name.clone());
            match allocated.last_mut().filter(|last| last.address == address) {
                Some(last) => last.vips.push(name),
                None => allocated.push(Allocation { address, vips: vec![name] }),
            }
        }
        let size = ranges.size();
        let free = size.saturating_sub(allocated.len() as u64);
        let available = Condition {
            kind: "Available".into(),
            status: (free > 0).into(),
            reason: if free > 0 { "AddressesFree" } else { "Exhausted" }.into(),
            message: match free {
                0 => "every address is given to a VIP: add addresses, or remove VIPs".into(),
                _ => format!("{free} of {size} addresses are free"),
            },
        };
        let status = PoolStatus { conditions: vec![available], size, free, allocated };
        Pool { status: Some(status), ..pool.clone() }
    }

    fn check_with_state(&self, check: &NamedHealthCheck) -> NamedHealthCheck {
        let name = Some(&check.metadata.name);
        let named =
            self.book.vips().values().filter(|vip| vip.spec.health_check.from.as_ref() == name);
        let vips: Vec<String> = named.map(|vip| vip.metadata.name.clone()).collect();
        let used = Condition {
            kind: "Used".into(),
            status: (!vips.is_empty()).into(),
            reason: if vips.is_empty() { "NamedByNone" } else { "NamedByVips" }.into(),
            message: format!("{} VIPs name it", vips.len()),
        };
        let status = HealthCheckStatus { conditions: vec![used], vips };
        NamedHealthCheck { status: Some(status), ..check.clone() }
    }
}

fn with_drain(node: &Node) -> Node {
    let NodeSpec { drain, withdraw } = node.spec;
    let condition = |kind: &str, holds: bool, asked: &str, not_asked: &str| Condition {
        kind: kind.into(),
        status: holds.into(),
        reason: if holds { "Asked" } else { "NotAsked" }.into(),
        message: if holds { asked } else { not_asked }.into(),
    };
    let conditions = vec![
        condition(
            "Drained",
            drain,
            "BGP says that this node is about to go (GRACEFUL_SHUTDOWN): `lbctl undrain --node` ends that",
            "BGP says nothing of the kind",
        ),
        condition(
            "Withdrawn",
            withdraw,
            "BGP advertises no VIP: `lbctl undrain --node` has it advertise them again",
            "BGP advertises VIPs",
        ),
    ];
    Node { status: Some(NodeStatus { conditions }), ..node.clone() }
}

/// What a VIP would lack by the change of a resource is said of the resource.
fn in_use(key: &Key, refusal: Refusal) -> Refusal {
    if let Refusal::Missing { name, .. } = refusal {
        return Refusal::InUse { what: key.to_string(), by: format!("VIP {name}") };
    }
    if let Refusal::NotOfPool { name, address, .. } = refusal {
        return Refusal::AddressInUse { pool: key.to_string(), address, by: name };
    }
    refusal
}
