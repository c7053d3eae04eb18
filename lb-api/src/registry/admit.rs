//! What VIPs take from the resources that they name: an address of a pool, and a health check.
//!
//! Invariant: a VIP that is kept or served has an address, and its health check is what the one that it names says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_api_types::vip::{HealthCheck, Vip};

use super::Refusal;
use super::task::Changed;
use crate::control::Vips;
use crate::read::document;
use crate::resources::{Key, Kind, Misfit, Ranges, Resources, bgp, routing};
use crate::vip::{self, UNALLOCATED};

/// Completes VIPs one after the other, so that no two are given one address.
pub(super) struct Admission<'a> {
    resources: &'a Resources,
    before: &'a Vips,
    /// Addresses that VIPs have; looked for when the first VIP asks for one.
    taken: Option<BTreeSet<IpAddr>>,
    /// Those that are asked for beside these.
    asked: &'a BTreeSet<IpAddr>,
}

impl<'a> Admission<'a> {
    /// Over the VIPs that there are, and addresses that are asked for with this one.
    pub(super) fn new(
        resources: &'a Resources,
        before: &'a Vips,
        asked: &'a BTreeSet<IpAddr>,
    ) -> Self {
        Self { resources, before, taken: None, asked }
    }

    /// Gives a VIP what it lacks, or says what it names and is not there.
    pub(super) fn complete(&mut self, vip: &mut Vip) -> Result<(), Refusal> {
        take_check(vip, self.resources)?;
        let Some(name) = vip.spec.pool.clone() else { return Ok(()) };
        let ranges = ranges(vip, &name, self.resources)?;
        if vip.spec.address != UNALLOCATED {
            return is_of_pool(vip, &name, &ranges);
        }
        let old = self.before.get(&vip.metadata.name).map(|old| &old.spec);
        let kept = old.filter(|old| old.pool.as_ref() == Some(&name) && ranges.holds(old.address));
        vip.spec.address = match kept {
            Some(old) => old.address,
            None => self.next(vip, &name, &ranges)?,
        };
        // What the address decides could not be looked at before.
        let read = serde_json::to_value(&*vip).map(|value| document(&value, vip::read));
        match read {
            Ok(Err(mistakes)) => Err(mistakes.first().map_or(
                Refusal::Wrong { field: String::new(), message: "cannot be read".into() },
                |mistake| Refusal::Wrong {
                    field: mistake.path.pointer(),
                    message: format!("{} {}", mistake.path, mistake.message),
                },
            )),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    fn next(&mut self, vip: &Vip, pool: &str, ranges: &Ranges) -> Result<IpAddr, Refusal> {
        let addresses = || self.before.values().map(|vip| vip.spec.address);
        let taken = self
            .taken
            .get_or_insert_with(|| addresses().chain(self.asked.iter().copied()).collect());
        let ipv4 = vip.spec.backends.first().is_none_or(|backend| backend.address.is_ipv4());
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let free = ranges.free(ipv4, taken);
        let free = free.ok_or_else(|| Refusal::Exhausted { pool: pool.to_owned(), family })?;
        taken.insert(free);
        Ok(free)
    }
}

/// Whether these VIPs have addresses of their own, and none that the configuration gives to this host; else the name of one that has.
pub(super) fn are_no_addresses<'a>(
    vips: impl Iterator<Item = (&'a String, &'a Vip)>,
    resources: &Resources,
) -> Result<(), (&'a String, Refusal)> {
    let all = resources.addresses().map(|it| (it.spec.address.ip(), it));
    let all: BTreeMap<IpAddr, _> = all.collect();
    let mut twice = vips.filter_map(|(name, vip)| Some((name, *all.get(&vip.spec.address)?)));
    let Some((name, address)) = twice.next() else { return Ok(()) };
    let message = format!(
        "spec.address is {}, which address {} gives to {}, and a VIP is never an address of this host: choose another",
        address.spec.address.ip(),
        address.metadata.name,
        address.spec.interface
    );
    Err((name, Refusal::Wrong { field: "/spec/address".into(), message }))
}

/// Has VIPs follow what changed of the resources that they name: those that are others now are among what changes then.
pub(super) fn follow(
    vips: &Vips,
    wanted: &mut Changed,
    resources: &Resources,
    changed: &BTreeSet<Key>,
) -> Result<(), Refusal> {
    let stay = vips.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let wanted_ones = wanted.values().flatten();
    let all = stay.map(|(_, vip)| vip).chain(wanted_ones);
    let concerned = |vip: &&Vip| names(vip).iter().any(|key| changed.contains(key));
    let mut others = Changed::new();
    for vip in all.filter(concerned) {
        let mut other = vip.clone();
        take_check(&mut other, resources)?;
        if let Some(pool) = &vip.spec.pool {
            is_of_pool(vip, pool, &ranges(vip, pool, resources)?)?;
        }
        if other.spec.health_check != vip.spec.health_check {
            others.insert(vip.metadata.name.clone(), Some(other));
        }
    }
    wanted.extend(others);
    Ok(())
}

/// Resources beside VIPs name one another, or must not be alike: whether they fit together, after these have changed.
pub(super) fn fits(
    vips: &Vips,
    wanted: &Changed,
    resources: &Resources,
    changed: &BTreeSet<Key>,
) -> Result<(), Refusal> {
    let of_bgp = |key: &&Key| match key.0 {
        Kind::BgpGlobal | Kind::Set | Kind::Policy | Kind::PeerGroup | Kind::Peer => true,
        Kind::Pool | Kind::HealthCheck | Kind::Node | Kind::Address | Kind::StaticRoute => false,
    };
    let of_routing = |key: &&Key| matches!(key.0, Kind::Address | Kind::StaticRoute);
    if changed.iter().any(|key| of_routing(&key)) {
        if let Some(Misfit { field, message, .. }) = routing::misfit(resources) {
            return Err(Refusal::Wrong { field, message });
        }
        are_no_vips(vips, wanted, resources, changed)?;
    }
    let Some(first) = changed.iter().find(of_bgp) else { return Ok(()) };
    match bgp::misfit(resources) {
        None => Ok(()),
        Some(Misfit { key, field, message }) if changed.contains(&key) => {
            Err(Refusal::Wrong { field, message })
        }
        Some(Misfit { key, .. }) => {
            Err(Refusal::InUse { what: first.to_string(), by: key.to_string() })
        }
    }
}

/// A VIP is no address of this host: packets for it would end here where the fast path hands them over.
fn are_no_vips(
    vips: &Vips,
    wanted: &Changed,
    resources: &Resources,
    changed: &BTreeSet<Key>,
) -> Result<(), Refusal> {
    let stay = vips.iter().filter(|(name, _)| !wanted.contains_key(*name)).map(|(_, vip)| vip);
    let by_address: BTreeMap<IpAddr, &Vip> =
        stay.chain(wanted.values().flatten()).map(|vip| (vip.spec.address, vip)).collect();
    let all = resources.addresses();
    let mut new = all.filter(|it| changed.contains(&Key(Kind::Address, it.metadata.name.clone())));
    let twice = new.find_map(|it| Some((it, *by_address.get(&it.spec.address.ip())?)));
    match twice {
        None => Ok(()),
        Some((address, vip)) => Err(Refusal::Wrong {
            field: "/spec/address".into(),
            message: format!(
                "address {} is that of VIP {}, and a VIP is never an address of this host: choose another",
                address.spec.address, vip.metadata.name
            ),
        }),
    }
}

/// Completes a kept VIP. One that names what is not there any more, such as in the file, has the usual health check.
pub(super) fn resume(vip: &mut Vip, resources: &Resources) {
    // What is missing is said by `incomplete`.
    let _said_elsewhere = take_check(vip, resources);
}

/// What is said, by name, of those of these VIPs that name what is not there, or have an address that their pool has not.
pub(super) fn incomplete<'a>(
    vips: impl Iterator<Item = &'a Vip>,
    resources: &Resources,
) -> BTreeMap<String, String> {
    let lacks = |vip: &Vip| {
        let named = names(vip);
        if let Some(key) = named.iter().find(|key| resources.get(key).is_none()) {
            return Some(format!(
                "VIP {} names {key}, which is not there any more: create it, or change the VIP",
                vip.metadata.name
            ));
        }
        let pool = vip.spec.pool.as_ref()?;
        let held = ranges(vip, pool, resources).and_then(|ranges| is_of_pool(vip, pool, &ranges));
        held.err().map(|refusal| refusal.to_string())
    };
    vips.filter_map(|vip| Some((vip.metadata.name.clone(), lacks(vip)?))).collect()
}

/// What a VIP names.
fn names(vip: &Vip) -> Vec<Key> {
    let pool = vip.spec.pool.iter().map(|name| Key(Kind::Pool, name.clone()));
    let check = vip.spec.health_check.from.iter();
    pool.chain(check.map(|name| Key(Kind::HealthCheck, name.clone()))).collect()
}

/// Fills in what a named health check says; the name stays.
fn take_check(vip: &mut Vip, resources: &Resources) -> Result<(), Refusal> {
    let Some(name) = vip.spec.health_check.from.clone() else { return Ok(()) };
    let Some(check) = resources.health_check(&name) else {
        return Err(missing(vip, "/spec/health_check/from", format!("health check {name}")));
    };
    vip.spec.health_check = HealthCheck::of(name, check.spec);
    Ok(())
}

fn ranges(vip: &Vip, pool: &str, resources: &Resources) -> Result<Ranges, Refusal> {
    let found = resources.pool(pool).map(|pool| Ranges::of(&pool.spec));
    found.ok_or_else(|| missing(vip, "/spec/pool", format!("pool {pool}")))
}

fn is_of_pool(vip: &Vip, pool: &str, ranges: &Ranges) -> Result<(), Refusal> {
    let address = vip.spec.address;
    if ranges.holds(address) {
        return Ok(());
    }
    let (name, pool) = (vip.metadata.name.clone(), pool.to_owned());
    Err(Refusal::NotOfPool { name, address, pool })
}

fn missing(vip: &Vip, field: &'static str, what: String) -> Refusal {
    Refusal::Missing { name: vip.metadata.name.clone(), field, what }
}

#[cfg(test)]
mod tests {
    use lb_api_types::resource::{HealthCheckSpec, Metadata, NamedHealthCheck, Pool, PoolSpec};

    use super::*;
    use crate::registry::tests::vip;
    use crate::resources::Resource;

    fn resources() -> Resources {
        let metadata = |name: &str| Metadata { name: name.into(), ..Metadata::default() };
        let addresses = vec!["203.0.113.0/30".into(), "2001:db8::/64".into()];
        let pool = Pool { metadata: metadata("p"), spec: PoolSpec { addresses }, status: None };
        let spec = HealthCheckSpec { rise: 7, ..HealthCheckSpec::default() };
        let check = NamedHealthCheck { metadata: metadata("fast"), spec, status: None };
        [Resource::Pool(pool), Resource::HealthCheck(check)].into_iter().collect()
    }

    fn pooled(name: &str) -> Vip {
        let mut vip = vip(name, 99);
        (vip.spec.address, vip.spec.pool) = (UNALLOCATED, Some("p".into()));
        vip
    }

    #[test]
    fn vips_are_given_addresses_one_after_the_other_and_keep_them() {
        let (resources, none) = (resources(), BTreeSet::new());
        let vips: Vips = [("a".into(), vip("a", 1))].into();
        let asked = [[203, 0, 113, 2].into()].into();
        let mut admission = Admission::new(&resources, &vips, &asked);
        let mut given = Vec::new();
        for name in ["b", "c"] {
            let mut vip = pooled(name);
            admission.complete(&mut vip).unwrap();
            given.push(vip);
        }
        let addresses: Vec<_> = given.iter().map(|vip| vip.spec.address.to_string()).collect();
        assert_eq!(addresses, ["203.0.113.0", "203.0.113.3"], "1 and 2 are others'");
        let full = admission.complete(&mut pooled("d"));
        assert!(matches!(full, Err(Refusal::Exhausted { family: "IPv4", .. })), "{full:?}");
        let vips = given.into_iter().map(|vip| (vip.metadata.name.clone(), vip)).collect();
        let mut again = pooled("c");
        Admission::new(&resources, &vips, &none).complete(&mut again).unwrap();
        assert_eq!(again.spec.address.to_string(), "203.0.113.3");
    }

    #[test]
    fn the_first_backend_says_of_which_family_the_address_is() {
        let (resources, none, vips) = (resources(), BTreeSet::new(), Vips::new());
        let mut vip = pooled("six");
        vip.spec.backends[0].address = "2001:db8:1::1".parse().unwrap();
        Admission::new(&resources, &vips, &none).complete(&mut vip).unwrap();
        assert_eq!(vip.spec.address.to_string(), "2001:db8::");
        let mut mixed = pooled("mixed");
        mixed.spec.access.allow = vec!["2001:db8::/32".parse().unwrap()];
        let wrong = Admission::new(&resources, &vips, &none).complete(&mut mixed);
        let Err(Refusal::Wrong { field, .. }) = wrong else { panic!("{wrong:?}") };
        assert_eq!(field, "/spec/access/allow/0");
    }

    #[test]
    fn what_a_vip_names_has_to_be_there_and_is_followed() {
        let (resources, none) = (resources(), BTreeSet::new());
        let mut web = vip("web", 1);
        web.spec.health_check.from = Some("fast".into());
        Admission::new(&resources, &Vips::new(), &none).complete(&mut web).unwrap();
        assert_eq!((web.spec.health_check.rise, web.spec.health_check.fall), (7, 3));
        web.spec.health_check.rise = 1;
        let mut vips: Vips = [("web".into(), web)].into();
        let fast = [Key(Kind::HealthCheck, "fast".into())].into();
        let followed = |vips: &Vips, resources: &Resources, keys: &BTreeSet<Key>| {
            let mut wanted = Changed::new();
            follow(vips, &mut wanted, resources, keys).map(|()| wanted)
        };
        assert_eq!(followed(&vips, &resources, &BTreeSet::new()), Ok(Changed::new()));
        let others = followed(&vips, &resources, &fast).unwrap();
        let web = others["web"].clone().unwrap();
        assert_eq!(web.spec.health_check.rise, 7);
        vips.insert("web".into(), web);
        assert_eq!(followed(&vips, &resources, &fast), Ok(Changed::new()));
        let gone = followed(&vips, &Resources::default(), &fast);
        assert!(matches!(gone, Err(Refusal::Missing { .. })), "{gone:?}");
        let said = incomplete(vips.values(), &Resources::default());
        assert!(said["web"].contains("VIP web names health check fast"), "{said:?}");
        assert_eq!(incomplete(vips.values(), &resources), BTreeMap::new());
    }
}
