//! A change: looked at, written, carried out, and taken back where something refuses it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::vip::{Backend, Vip};
use tokio::time::Instant;

use super::admit::{self, Admission};
use super::confirm::Pending;
use super::task::{Changed, Task, blocking};
use super::{Applied, Appliers, Expected, Refusal, Terms, label};
use crate::resources::{Key, Resource, Resources, is_same_metadata};
use crate::store::{self, Prepared, Store};
use crate::vip::MAX_VIPS;

/// What is to be configured.
#[derive(Default)]
pub(super) struct Wanted {
    /// VIPs that are to be other than they are.
    pub(super) vips: Changed,
    /// All other resources.
    pub(super) resources: Resources,
    /// Those that are to be other than they are.
    pub(super) keys: BTreeSet<Key>,
}

/// What was configured before a change.
pub(super) struct Before {
    /// The VIPs that were changed.
    pub(super) vips: Changed,
    pub(super) resources: Resources,
    /// Kept VIPs that gave way.
    pub(super) shadowed: Vec<Vip>,
}

impl<A: Appliers> Task<A> {
    pub(super) async fn put(&mut self, mut vip: Vip, terms: Terms) -> Result<Applied, Refusal> {
        let name = vip.metadata.name.clone();
        if self.from_file.contains(&name) {
            return Err(Refusal::FromFile(label(&name)));
        }
        let old = self.book.vips().get(&name);
        let found = old.map(|old| old.metadata.revision);
        expect(&label(&name), found, terms.expected)?;
        if let Some(revision) = vip.metadata.revision {
            expect(&label(&name), found, Expected::Revision(revision))?;
        }
        let none = BTreeSet::new();
        Admission::new(&self.resources, self.book.vips(), &none).complete(&mut vip)?;
        let own = admit::are_no_addresses([(&name, &vip)].into_iter(), &self.resources);
        own.map_err(|(_, refusal)| refusal)?;
        if let Some(other) = self.book.clash(&vip) {
            return Err(Refusal::Duplicate {
                other: other.metadata.name.clone(),
                address: vip.spec.address,
                what: other.spec.taken(),
            });
        }
        if let Some((other, backend)) = self.book.sharing(&vip).next() {
            return Err(not_alone(other, backend));
        }
        let created = old.is_none();
        let count = self.book.vips().len() + self.shadowed.len();
        if created && count >= MAX_VIPS {
            return Err(Refusal::TooMany(count + 1));
        }
        let changed = old.is_none_or(|old| !asks_the_same(old, &vip));
        vip.status = None;
        vip.metadata.revision = match old.filter(|_| !changed) {
            Some(old) => old.metadata.revision,
            None => Some(self.revision + 1),
        };
        if terms.dry_run {
            return Ok(Applied { vip, created });
        }
        if changed {
            let mut wanted = self.as_it_is();
            wanted.vips.insert(name.clone(), Some(vip));
            self.change(wanted, None).await?;
            tracing::info!(vip = name, created, "VIP applied");
        }
        let vip = self.get(&name).await;
        Ok(Applied { vip: vip.ok_or(Refusal::Unknown(label(&name)))?, created })
    }

    /// Removes what was made over REST: of a VIP that the file hides, that one, and the file's stays.
    pub(super) async fn delete(&mut self, name: &str, terms: Terms) -> Result<(), Refusal> {
        let hidden = self.shadowed.iter().find(|vip| vip.metadata.name == name);
        if self.from_file.contains(name) && hidden.is_none() {
            return Err(Refusal::FromFile(label(name)));
        }
        let Some(old) = hidden.or(self.book.vips().get(name)) else {
            return Err(Refusal::Unknown(label(name)));
        };
        expect(&label(name), Some(old.metadata.revision), terms.expected)?;
        if terms.dry_run {
            return Ok(());
        }
        let mut wanted = self.as_it_is();
        wanted.vips.insert(name.to_owned(), None);
        self.change(wanted, None).await?;
        tracing::info!(vip = name, "VIP removed");
        Ok(())
    }

    /// All or nothing: when the dataplane or the disk refuses, everything is as it was. The disk is asked first, so that
    /// a full one disturbs no traffic. Kept VIPs of these names that are not served give way. What has to be confirmed is
    /// not kept until it is: a crash rolls it back, too.
    pub(super) async fn change(
        &mut self,
        wanted: Wanted,
        confirm_within: Option<Duration>,
    ) -> Result<(), Refusal> {
        self.nothing_waits()?;
        let kept = self.to_be_kept(&wanted);
        let prepare = move |store: &Store| store.prepare(&kept);
        let prepared = blocking(&self.store, prepare).await.map_err(Refusal::NotWritten)?;
        let Wanted { mut vips, resources, keys } = wanted;
        let (go, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.shadowed)
            .into_iter()
            .partition(|vip| vips.contains_key(&vip.metadata.name));
        self.shadowed = stay;
        // What goes then is the kept VIP of this name; the file's stays.
        vips.retain(|name, vip| vip.is_some() || !self.from_file.contains(name));
        let before = Before {
            vips: self.set(vips),
            resources: std::mem::replace(&mut self.resources, resources),
            shadowed: go,
        };
        match self.carry_through(prepared, confirm_within.is_none()).await {
            Ok(prepared) => {
                self.revision += 1;
                self.say_shadowed(&before.vips, !keys.is_empty());
                self.tell_of_resources(&before.resources, &keys);
                self.tell_of_vips(&before.vips);
                self.tell_of_state(&before.vips);
                if let (Some(prepared), Some(within)) = (prepared, confirm_within) {
                    let until = Instant::now() + within;
                    self.pending = Some(Pending { before, keys, prepared, until });
                }
                Ok(())
            }
            Err(refusal) => {
                self.restore(before);
                if let Err(why) = self.reconcile().await {
                    tracing::error!(why, "the dataplane refuses what it served before");
                }
                Err(refusal)
            }
        }
    }

    /// What there is, to be changed.
    pub(super) fn as_it_is(&self) -> Wanted {
        Wanted { resources: self.resources.clone(), ..Wanted::default() }
    }

    /// Takes a change back.
    pub(super) fn restore(&mut self, before: Before) -> Before {
        let vips = self.set(before.vips);
        let resources = std::mem::replace(&mut self.resources, before.resources);
        self.shadowed.extend(before.shadowed);
        Before { vips, resources, shadowed: Vec::new() }
    }

    /// Has VIPs be as they are to be; returns what was there.
    fn set(&mut self, changed: Changed) -> Changed {
        let set = |(name, vip): (String, Option<Vip>)| {
            let before = self.book.set(&name, vip);
            (name, before)
        };
        changed.into_iter().map(set).collect()
    }

    /// The change as the store has it; VIPs of the file are none of its.
    fn to_be_kept(&self, wanted: &Wanted) -> store::Change {
        let ours = wanted.vips.iter().filter(|(name, _)| !self.from_file.contains(*name));
        let gone = wanted.vips.iter().filter(|(_, vip)| vip.is_none());
        store::Change {
            revision: self.revision + 1,
            put: ours.filter_map(|(_, vip)| vip.clone()).collect(),
            removed: gone.map(|(name, _)| name.clone()).collect(),
            resources: (!wanted.keys.is_empty()).then(|| self.kept_resources(&wanted.resources)),
        }
    }

    /// Changes the world and keeps the change; what was prepared comes back where it is not to be kept at once.
    async fn carry_through(
        &mut self,
        prepared: Prepared,
        keep: bool,
    ) -> Result<Option<Prepared>, Refusal> {
        self.reconcile().await.map_err(Refusal::Dataplane)?;
        if !keep {
            // People see the revision before it is kept, and another one after it was rolled back, also by a restart.
            let revision = self.revision + 2;
            let reserve = move |store: &Store| store.reserve(revision);
            blocking(&self.store, reserve).await.map_err(Refusal::Store)?;
            return Ok(Some(prepared));
        }
        self.keep(prepared).await.map_err(Refusal::Store)?;
        Ok(None)
    }

    /// Keeps what was prepared, and folds the journal aside when it has grown long.
    pub(super) async fn keep(&mut self, prepared: Prepared) -> Result<(), String> {
        blocking(&self.store, move |store| store.commit(prepared)).await?;
        if self.store.is_long() {
            let store = Arc::clone(&self.store);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.fold_if_long() {
                    tracing::warn!(%error, "the journal of changes goes on growing");
                }
            });
        }
        Ok(())
    }

    fn kept_resources(&self, wanted: &Resources) -> Resources {
        let is_ours = |r: &&Resource| {
            r.metadata().revision.is_some() && !self.file_resources.contains(&r.key())
        };
        let ours = wanted.all().filter(is_ours);
        ours.chain(self.shadowed_resources.all()).cloned().collect()
    }
}

/// Whether what is found is what a change expects: nothing, or something with a revision of its own.
pub(super) fn expect(
    what: &str,
    found: Option<Option<u64>>,
    expected: Expected,
) -> Result<(), Refusal> {
    let what = || what.to_owned();
    match (expected, found) {
        (Expected::Any, _) | (Expected::Nothing, None) | (Expected::Something, Some(_)) => Ok(()),
        (Expected::Nothing, Some(_)) => Err(Refusal::Exists(what())),
        (Expected::Something | Expected::Revision(_), None) => Err(Refusal::Gone(what())),
        (Expected::Revision(expected), Some(found)) => match found.unwrap_or(0) {
            found if found == expected => Ok(()),
            found => Err(Refusal::Stale { name: what(), found, expected }),
        },
    }
}

/// Whether two VIPs ask for the same, whatever their revisions are.
pub(super) fn asks_the_same(a: &Vip, b: &Vip) -> bool {
    a.spec == b.spec && is_same_metadata(&a.metadata, &b.metadata)
}

/// Why a VIP cannot have a backend that another one has.
pub(super) fn not_alone(other: &Vip, backend: &Backend) -> Refusal {
    let backend = SocketAddr::new(backend.address, backend.port);
    Refusal::NotAlone { other: other.metadata.name.clone(), backend }
}
