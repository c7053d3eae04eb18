//! Many resources in one change: all of them or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lb_api_types::event::EventKind;
use lb_api_types::resource::Metadata;
use lb_api_types::view::{Change, ChangeKind};
use lb_api_types::vip::Vip;

use super::admit::{self, Admission};
use super::change::{Wanted, asks_the_same, expect, not_alone};
use super::task::{Changed, Task};
use super::{Appliers, Bulk, Documents, Expected, Refusal, label};
use crate::control::{Ports, Shares};
use crate::resources::{Key, Kind, MAX_OF_A_KIND};
use crate::vip::{MAX_VIPS, UNALLOCATED};

/// A refusal, and the place in the request that it is about.
pub type RefusedAt = (Option<Place>, Refusal);

/// A place in a whole configuration; displayed as a JSON pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kind; `None`: VIPs.
    pub kind: Option<Kind>,
    /// Which of them.
    pub index: usize,
}

impl Place {
    /// Where a field of it stands: what there is one of stands in its section itself.
    pub fn pointer(self, field: &str) -> String {
        match self.kind.filter(|kind| kind.only().is_some()) {
            Some(kind) => {
                let below = ["/metadata", "/spec"].iter().find_map(|part| field.strip_prefix(part));
                format!("/{}{}", kind.section(), below.unwrap_or(field))
            }
            None => format!("{self}{field}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.kind.map_or("vips", Kind::section), self.index)
    }
}

/// What of that which is not named is removed. What the file says never is, nor what it hides: whoever names all that there is
/// does not know of it.
enum Prune<'a> {
    Nothing,
    OwnedBy(Option<&'a str>),
    Everything,
}

impl Prune<'_> {
    fn takes(&self, metadata: &Metadata) -> bool {
        match self {
            Self::Nothing => false,
            Self::OwnedBy(owner) => metadata.owner.as_deref() == *owner,
            Self::Everything => true,
        }
    }
}

impl<A: Appliers> Task<A> {
    /// Has these be there, and with `prune` no others of their owner. They all get one revision.
    pub(super) async fn apply(
        &mut self,
        mut documents: Documents,
        terms: Bulk,
    ) -> Result<Vec<Change>, RefusedAt> {
        self.is_at(terms.expected).map_err(|refusal| (None, refusal))?;
        if let Some(owner) = &terms.owner {
            // What the file says has the owner that the file says.
            let vips = documents.vips.iter_mut().filter_map(|vip| self.to_be_owned(vip));
            let others = documents.resources.iter_mut();
            let others = others.filter(|resource| !self.is_as_the_file_says(resource));
            let all = vips.chain(others.map(|resource| resource.metadata_mut()));
            all.for_each(|metadata| metadata.owner = Some(owner.clone()));
        }
        let prune = match terms.prune {
            true => Prune::OwnedBy(terms.owner.as_deref()),
            false => Prune::Nothing,
        };
        self.apply_with(documents, &terms, &prune).await
    }

    /// Where the owner of a VIP goes that is to get one. One that the file hides, and that stays as it is, keeps its own.
    fn to_be_owned<'a>(&self, vip: &'a mut Vip) -> Option<&'a mut Metadata> {
        let hidden = self.shadowed.iter().find(|it| it.metadata.name == vip.metadata.name);
        if let Some(hidden) = hidden {
            let owner = hidden.metadata.owner.clone();
            let asked = std::mem::replace(&mut vip.metadata.owner, owner);
            if asks_the_same(hidden, vip) {
                return None;
            }
            vip.metadata.owner = asked;
        }
        Some(&mut vip.metadata).filter(|it| !self.from_file.contains(&it.name))
    }

    /// Whether the configuration is the one that a change of the whole is about.
    pub(super) fn is_at(&self, expected: Expected) -> Result<(), Refusal> {
        match expected {
            Expected::Revision(expected) if expected != self.revision => {
                let (name, found) = ("the configuration".into(), self.revision);
                Err(Refusal::Stale { name, found, expected })
            }
            Expected::Revision(_) | Expected::Any | Expected::Nothing | Expected::Something => {
                Ok(())
            }
        }
    }

    /// Has these be there and nothing else that was made over REST.
    pub(super) async fn replace_all(
        &mut self,
        documents: Documents,
        terms: Bulk,
    ) -> Result<Vec<Change>, RefusedAt> {
        self.apply_with(documents, &terms, &Prune::Everything).await
    }

    async fn apply_with(
        &mut self,
        documents: Documents,
        terms: &Bulk,
        prune: &Prune<'_>,
    ) -> Result<Vec<Change>, RefusedAt> {
        let (wanted, changes) = self.merged(documents, prune)?;
        // What is gone back to was admitted when it came.
        if !matches!(prune, Prune::Everything) && !wanted.keys.is_empty() {
            let admitted = self.appliers.admit(&self.resources, &wanted.resources).await;
            admitted.map_err(|misfit| (None, misfit.into()))?;
        }
        let touched = wanted.vips.len() + wanted.keys.len();
        if !terms.dry_run && touched > 0 {
            let changed = self.change(wanted, terms.confirm_within).await;
            changed.map_err(|refusal| (None, refusal))?;
            tracing::info!(changed = touched, of = changes.len(), "configuration applied");
            let message = format!("{touched} resources changed");
            self.events.tell(EventKind::ConfigApplied, "", message);
        }
        Ok(changes)
    }

    /// All of it as it would be.
    fn merged(
        &self,
        documents: Documents,
        prune: &Prune<'_>,
    ) -> Result<(Wanted, Vec<Change>), RefusedAt> {
        let mut wanted = self.as_it_is();
        let mut changes = Vec::new();
        let named = self.merge_resources(&mut wanted, &mut changes, &documents)?;
        let gone: Vec<Key> = self
            .resources
            .all()
            .filter(|one| one.metadata().revision.is_some() && prune.takes(one.metadata()))
            .map(crate::resources::Resource::key)
            .filter(|key| !named.contains(key) && !self.file_resources.contains(key))
            .collect();
        // Removed at the end, so that VIPs that are removed with them don't stand in the way.
        let places = self.merge_vips(&mut wanted, &mut changes, documents)?;
        let kept = self.book.vips().values().filter(|v| !self.from_file.contains(&v.metadata.name));
        let kept = kept.filter(|vip| prune.takes(&vip.metadata));
        let out: BTreeSet<&String> = kept.map(|vip| &vip.metadata.name).collect();
        for name in out.into_iter().filter(|name| !places.contains_key(*name)) {
            wanted.vips.insert(name.clone(), None);
            changes.push(vip_change(name, ChangeKind::Deleted));
        }
        for key in gone {
            self.take_out(&mut wanted, &key);
            changes.push(change(&key, ChangeKind::Deleted));
        }
        if !wanted.keys.is_empty() {
            let Wanted { vips, resources, keys } = &mut wanted;
            let followed = admit::follow(self.book.vips(), vips, resources, keys);
            followed.map_err(|refusal| (None, refusal))?;
            let Wanted { vips, resources, keys } = &wanted;
            let fits = admit::fits(self.book.vips(), vips, resources, keys);
            fits.map_err(|refusal| (None, refusal))?;
        }
        let count = self.count_with(&wanted.vips);
        if count > MAX_VIPS {
            return Err((None, Refusal::TooMany(count)));
        }
        let changed = wanted.vips.iter().filter_map(|(name, vip)| Some((name, vip.as_ref()?)));
        admit::are_no_addresses(changed, &wanted.resources).map_err(|(name, refusal)| {
            let place = places.get(name).map(|index| Place { kind: None, index: *index });
            (place, refusal)
        })?;
        self.no_two_alike(&wanted.vips, &places)?;
        self.none_shared(&wanted.vips, &places)?;
        Ok((wanted, changes))
    }

    fn merge_resources(
        &self,
        wanted: &mut Wanted,
        changes: &mut Vec<Change>,
        documents: &Documents,
    ) -> Result<BTreeSet<Key>, RefusedAt> {
        let mut named = BTreeSet::new();
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        for resource in &documents.resources {
            let key = resource.key();
            let count = counts.entry(key.0).or_default();
            let place = Place { kind: Some(key.0), index: *count };
            *count += 1;
            let at = |refusal| (Some(place), refusal);
            if !named.insert(key.clone()) {
                return Err(at(Refusal::Twice(key.to_string())));
            }
            if self.file_resources.contains(&key) {
                let there = [self.resources.get(&key), self.shadowed_resources.get(&key)];
                if !there.into_iter().flatten().any(|old| old.asks_the_same(resource)) {
                    return Err(at(Refusal::FromFile(key.to_string())));
                }
                changes.push(change(&key, ChangeKind::Unchanged));
                continue;
            }
            let mut resource = resource.clone();
            self.as_the_file_says(&mut resource).map_err(at)?;
            let old = self.resources.get(&key);
            if let Some(revision) = resource.metadata().revision {
                let found = old.map(|old| old.metadata().revision);
                expect(&key.to_string(), found, Expected::Revision(revision)).map_err(at)?;
            }
            let kind = match old {
                None => ChangeKind::Created,
                Some(old) if old.asks_the_same(&resource) => ChangeKind::Unchanged,
                Some(_) => ChangeKind::Updated,
            };
            changes.push(change(&key, kind));
            if kind != ChangeKind::Unchanged {
                resource.forget_status();
                resource.metadata_mut().revision = Some(self.revision + 1);
                wanted.resources.insert(resource);
                if wanted.resources.of(key.0).count() > MAX_OF_A_KIND {
                    return Err(at(Refusal::TooManyOf(key.0.word(), MAX_OF_A_KIND)));
                }
                wanted.keys.insert(key);
            }
        }
        Ok(named)
    }

    /// The places of the VIPs that are named.
    fn merge_vips(
        &self,
        wanted: &mut Wanted,
        changes: &mut Vec<Change>,
        documents: Documents,
    ) -> Result<BTreeMap<String, usize>, RefusedAt> {
        let asked = documents.vips.iter().map(|vip| vip.spec.address);
        let asked = asked.filter(|&address| address != UNALLOCATED).collect();
        let mut admission = Admission::new(&wanted.resources, self.book.vips(), &asked);
        let mut places = BTreeMap::new();
        for (index, mut vip) in documents.vips.into_iter().enumerate() {
            let name = vip.metadata.name.clone();
            let at = |refusal| (Some(Place { kind: None, index }), refusal);
            if places.insert(name.clone(), index).is_some() {
                return Err(at(Refusal::Twice(label(&name))));
            }
            let hidden = self.shadowed.iter().find(|vip| vip.metadata.name == name);
            if hidden.is_some_and(|hidden| asks_the_same(hidden, &vip)) {
                changes.push(vip_change(&name, ChangeKind::Unchanged));
                continue;
            }
            let old = self.book.vips().get(&name);
            if self.from_file.contains(&name) {
                // With what it names, as the one that there is.
                let completed = admission.complete(&mut vip).is_ok();
                if !(completed && old.is_some_and(|old| asks_the_same(old, &vip))) {
                    return Err(at(Refusal::FromFile(label(&name))));
                }
                changes.push(vip_change(&name, ChangeKind::Unchanged));
                continue;
            }
            if let Some(revision) = vip.metadata.revision {
                let found = old.map(|old| old.metadata.revision);
                expect(&label(&name), found, Expected::Revision(revision)).map_err(at)?;
            }
            admission.complete(&mut vip).map_err(at)?;
            let kind = match old {
                None => ChangeKind::Created,
                Some(old) if asks_the_same(old, &vip) => ChangeKind::Unchanged,
                Some(_) => ChangeKind::Updated,
            };
            changes.push(vip_change(&name, kind));
            if kind != ChangeKind::Unchanged {
                vip.status = None;
                vip.metadata.revision = Some(self.revision + 1);
                wanted.vips.insert(name, Some(vip));
            }
        }
        Ok(places)
    }

    /// VIPs that there would be, those that are kept and not served included.
    fn count_with(&self, changed: &Changed) -> usize {
        let there = |name: &String| self.book.vips().contains_key(name);
        let gone = changed.iter().filter(|(name, new)| new.is_none() && there(name)).count();
        let new = changed.iter().filter(|(name, new)| new.is_some() && !there(name)).count();
        let shadowed = self.shadowed.iter();
        let stay = shadowed.filter(|vip| !changed.contains_key(&vip.metadata.name)).count();
        self.book.vips().len() - gone + new + stay
    }

    /// Of two VIPs with the same address and protocol and a port in common, the refusal is at the place of one that did not
    /// have it before; what was there before has no two alike.
    fn no_two_alike(
        &self,
        changed: &Changed,
        places: &BTreeMap<String, usize>,
    ) -> Result<(), RefusedAt> {
        let mut ports = Ports::default();
        for vip in changed.values().flatten() {
            let name = &vip.metadata.name;
            let mut others = self.book.overlapping(&vip.spec);
            let stays = others.find(|other| !changed.contains_key(&other.metadata.name));
            let other = match ports.add(&vip.spec, vip) {
                Err(other) => *other,
                Ok(()) => match stays {
                    Some(other) => other,
                    None => continue,
                },
            };
            let before = self.book.vips().get(name);
            let had = before.is_some_and(|before| before.spec.overlaps(&other.spec));
            let (at, other) = if had { (other, vip) } else { (vip, other) };
            let refusal = Refusal::Duplicate {
                other: other.metadata.name.clone(),
                address: other.spec.address,
                what: other.spec.taken(),
            };
            let place = places.get(&at.metadata.name).map(|&index| Place { kind: None, index });
            return Err((place, refusal));
        }
        Ok(())
    }

    /// The same of two VIPs with a backend in common of which one is to have it alone.
    fn none_shared(
        &self,
        changed: &Changed,
        places: &BTreeMap<String, usize>,
    ) -> Result<(), RefusedAt> {
        let mut shares = Shares::default();
        for vip in changed.values().flatten() {
            let mut others = self.book.sharing(vip);
            let stays = others.find(|(other, _)| !changed.contains_key(&other.metadata.name));
            let comes = || {
                let (other, backend) = shares.with(vip).next()?;
                Some((changed.get(other)?.as_ref()?, backend))
            };
            if let Some((other, backend)) = stays.or_else(comes) {
                let place = places.get(&vip.metadata.name);
                let place = place.map(|&index| Place { kind: None, index });
                return Err((place, not_alone(other, backend)));
            }
            shares.add(vip);
        }
        Ok(())
    }
}

/// What became of a resource.
pub(super) fn change(key: &Key, change: ChangeKind) -> Change {
    Change { kind: key.0.noun(), name: key.1.clone(), change }
}

/// What became of a VIP.
pub(super) fn vip_change(name: &str, change: ChangeKind) -> Change {
    Change { kind: "vip".into(), name: name.to_owned(), change }
}
