//! Resources of the file beside VIPs and BGP's, and what its VIPs say of them.

use std::collections::BTreeSet;

use lb_api_types::vip::Vip;

use crate::read::Object;
use crate::resources::{Key, Kind, MAX_OF_A_KIND, Misfit, Ranges, Resources, routing};
use crate::vip::UNALLOCATED;

/// Every resource beside VIPs that the file has.
pub(super) fn section(file: &Object<'_>) -> Resources {
    let mut all = Resources::default();
    const KINDS: [Kind; 5] =
        [Kind::Pool, Kind::HealthCheck, Kind::Node, Kind::Address, Kind::StaticRoute];
    for kind in KINDS {
        let Some(list) = file.field(kind.many()) else { continue };
        let mut seen = BTreeSet::new();
        let read = list.list(|cursor| {
            let resource = kind.read(cursor)?;
            if resource.metadata().revision.is_some() {
                return cursor.wrong(
                    "has metadata.revision, which only what is made over REST has: take it out",
                );
            }
            let name = resource.metadata().name.clone();
            if !seen.insert(name.clone()) {
                return cursor
                    .wrong(format!("has the name `{name}` of another: rename one of the two"));
            }
            Some(resource)
        });
        let read = read.unwrap_or_default();
        if read.len() > MAX_OF_A_KIND {
            list.wrong::<()>(format!("lists {}, but {MAX_OF_A_KIND} are the most", read.len()));
        }
        read.into_iter().for_each(|resource| all.insert(resource));
        if let Some(Misfit { message, .. }) = routing::misfit(&all) {
            list.wrong::<()>(format!("does not fit together: {message}"));
            return Resources::default();
        }
    }
    all
}

/// What a VIP of the file lacks: nothing of it is made up, so that it is the same after every start.
pub(super) fn lacks(vip: &Vip, resources: &Resources) -> Option<String> {
    let check = vip.spec.health_check.from.as_ref().map(|n| Key(Kind::HealthCheck, n.clone()));
    let pool = vip.spec.pool.as_ref().map(|name| Key(Kind::Pool, name.clone()));
    let named = [check, pool].into_iter().flatten();
    if let Some(key) = named.into_iter().find(|key| resources.get(key).is_none()) {
        return Some(format!("names {key}, which is not in this file: add it, or name another"));
    }
    if vip.spec.address == UNALLOCATED {
        return Some("has no address, and a VIP of the file is given none: say it".into());
    }
    let mut own = resources.addresses();
    if let Some(own) = own.find(|own| own.spec.address.ip() == vip.spec.address) {
        return Some(format!(
            "has the address {}, which address {} gives to {}, and a VIP is never an address of this host: choose another",
            vip.spec.address, own.metadata.name, own.spec.interface
        ));
    }
    let pool = resources.pool(vip.spec.pool.as_ref()?)?;
    let holds = Ranges::of(&pool.spec).holds(vip.spec.address);
    let (address, name) = (vip.spec.address, &pool.metadata.name);
    (!holds).then(|| format!("has the address {address}, which is not of pool {name}"))
}
