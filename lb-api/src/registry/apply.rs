//! Many VIPs in one change: all of them or none.

use std::collections::{BTreeMap, BTreeSet};

use lb_api_types::event::EventKind;
use lb_api_types::view::{Change, ChangeKind};
use lb_api_types::vip::Vip;

use super::task::{Task, expect};
use super::{Appliers, Bulk, Expected, Refusal, protocol_name};
use crate::control::{self, Vips};
use crate::vip::MAX_VIPS;

/// A refusal, and the place in the request of the VIP that it is about.
pub type RefusedAt = (Option<usize>, Refusal);

impl<A: Appliers> Task<A> {
    /// Has these VIPs be there, and with `prune` no others that were made over REST. They all get one revision.
    pub(super) async fn apply(
        &mut self,
        wanted: Vec<Vip>,
        terms: Bulk,
    ) -> Result<Vec<Change>, RefusedAt> {
        let (vips, changes) = self.merged(wanted, terms.prune)?;
        let touched = |change: &&Change| change.change != ChangeKind::Unchanged;
        let touched: BTreeSet<String> =
            changes.iter().filter(touched).map(|change| change.name.clone()).collect();
        if !terms.dry_run && !touched.is_empty() {
            let changed = self.change(vips, &touched, terms.confirm_within).await;
            changed.map_err(|refusal| (None, refusal))?;
            tracing::info!(changed = touched.len(), of = changes.len(), "configuration applied");
            let message = format!("{} VIPs changed", touched.len());
            self.events.tell(EventKind::ConfigApplied, "", message);
        }
        Ok(changes)
    }

    /// The VIPs as they would be.
    fn merged(&self, wanted: Vec<Vip>, prune: bool) -> Result<(Vips, Vec<Change>), RefusedAt> {
        let mut vips = self.vips.clone();
        let mut places = BTreeMap::new();
        let mut changes = Vec::new();
        for (place, mut vip) in wanted.into_iter().enumerate() {
            let name = vip.metadata.name.clone();
            let at = |refusal| (Some(place), refusal);
            if places.insert(name.clone(), place).is_some() {
                return Err(at(Refusal::Twice(name)));
            }
            if self.from_file.contains(&name) {
                return Err(at(Refusal::FromFile(name)));
            }
            let old = self.vips.get(&name);
            if let Some(revision) = vip.metadata.revision {
                expect(&name, old, Expected::Revision(revision)).map_err(at)?;
            }
            let change = match old {
                None => ChangeKind::Created,
                Some(old) if old.spec == vip.spec => ChangeKind::Unchanged,
                Some(_) => ChangeKind::Updated,
            };
            if change != ChangeKind::Unchanged {
                vip.status = None;
                vip.metadata.revision = Some(self.revision + 1);
                vips.insert(name.clone(), vip);
            }
            changes.push(Change { name, change });
        }
        if prune {
            let kept = self.vips.keys().filter(|name| !self.from_file.contains(*name));
            let kept = kept.chain(self.shadowed.iter().map(|vip| &vip.metadata.name));
            let gone: BTreeSet<&String> = kept.filter(|name| !places.contains_key(*name)).collect();
            for name in gone {
                vips.remove(name);
                changes.push(Change { name: name.clone(), change: ChangeKind::Deleted });
            }
        }
        if vips.len() + self.shadowed.len() > MAX_VIPS {
            return Err((None, Refusal::TooMany(self.vips.len())));
        }
        no_two_alike(&self.vips, &vips, &places)?;
        Ok((vips, changes))
    }
}

/// Of two VIPs with the same address, port and protocol, the refusal is at the place of one that did not have them before;
/// what was there before has no two alike.
fn no_two_alike(
    before: &Vips,
    vips: &Vips,
    places: &BTreeMap<String, usize>,
) -> Result<(), RefusedAt> {
    let mut services = BTreeMap::new();
    for (name, vip) in vips {
        let key = control::key(&vip.spec);
        let Some(other) = services.insert(key, name) else { continue };
        let had = before.get(name).is_some_and(|old| control::key(&old.spec) == key);
        let (name, other) = if had { (other, name) } else { (name, other) };
        let refusal = Refusal::Duplicate {
            other: other.clone(),
            address: vip.spec.address,
            port: vip.spec.port,
            protocol: protocol_name(vip.spec.protocol),
        };
        return Err((places.get(name).copied(), refusal));
    }
    Ok(())
}
