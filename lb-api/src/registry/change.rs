//! A change: looked at, written, carried out, and taken back where something refuses it.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_api_types::vip::Vip;
use tokio::time::Instant;

use super::admit::Admission;
use super::confirm::Pending;
use super::task::{Task, blocking};
use super::{Applied, Appliers, Expected, Refusal, Terms, clash, label, protocol_name};
use crate::control::Vips;
use crate::resources::{Key, Resources, is_same_metadata};
use crate::store::{Prepared, Store};
use crate::vip::MAX_VIPS;

/// What is to be configured, and what of it differs from what there is.
pub(super) struct Wanted {
    pub(super) vips: Vips,
    pub(super) resources: Resources,
    pub(super) names: BTreeSet<String>,
    pub(super) keys: BTreeSet<Key>,
}

/// What was configured before a change.
pub(super) struct Before {
    pub(super) vips: Vips,
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
        let old = self.vips.get(&name);
        let found = old.map(|old| old.metadata.revision);
        expect(&label(&name), found, terms.expected)?;
        if let Some(revision) = vip.metadata.revision {
            expect(&label(&name), found, Expected::Revision(revision))?;
        }
        Admission::new(&self.resources, &self.vips, &BTreeSet::new()).complete(&mut vip)?;
        if let Some(other) = clash(&self.vips, &vip) {
            return Err(Refusal::Duplicate {
                other: other.metadata.name.clone(),
                address: vip.spec.address,
                port: vip.spec.port,
                protocol: protocol_name(vip.spec.protocol),
            });
        }
        let created = old.is_none();
        if created && self.vips.len() + self.shadowed.len() >= MAX_VIPS {
            return Err(Refusal::TooMany(self.vips.len() + self.shadowed.len()));
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
            wanted.vips.insert(name.clone(), vip);
            wanted.names.insert(name.clone());
            self.change(wanted, None).await?;
            tracing::info!(vip = name, created, "VIP applied");
        }
        let vip = self.get(&name).await;
        Ok(Applied { vip: vip.ok_or(Refusal::Unknown(label(&name)))?, created })
    }

    pub(super) async fn delete(&mut self, name: &str, terms: Terms) -> Result<(), Refusal> {
        if self.from_file.contains(name) {
            return Err(Refusal::FromFile(label(name)));
        }
        let shadowed = self.shadowed.iter().find(|vip| vip.metadata.name == name);
        let Some(old) = self.vips.get(name).or(shadowed) else {
            return Err(Refusal::Unknown(label(name)));
        };
        expect(&label(name), Some(old.metadata.revision), terms.expected)?;
        if terms.dry_run {
            return Ok(());
        }
        let mut wanted = self.as_it_is();
        wanted.vips.remove(name);
        wanted.names.insert(name.to_owned());
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
        let Wanted { vips, resources, names, keys } = wanted;
        let shadowed = std::mem::take(&mut self.shadowed).into_iter();
        let (go, stay): (Vec<_>, Vec<_>) =
            shadowed.partition(|vip| names.contains(&vip.metadata.name));
        self.shadowed = stay;
        let before = Before {
            vips: std::mem::replace(&mut self.vips, vips),
            resources: std::mem::replace(&mut self.resources, resources),
            shadowed: go,
        };
        match self.try_change(confirm_within.is_none()).await {
            Ok(prepared) => {
                self.revision += 1;
                self.say_shadowed();
                self.tell_of_resources(&before.resources, &keys);
                self.tell_of_vips(&before.vips, &names);
                self.tell_of_state(&before.vips);
                if let (Some(prepared), Some(within)) = (prepared, confirm_within) {
                    let until = Instant::now() + within;
                    self.pending = Some(Pending { before, names, keys, prepared, until });
                }
                Ok(())
            }
            Err(refusal) => {
                self.restore(before);
                if !matches!(refusal, Refusal::NotWritten(_))
                    && let Err(why) = self.reconcile().await
                {
                    tracing::error!(why, "the dataplane refuses what it served before");
                }
                Err(refusal)
            }
        }
    }

    /// What there is, to be changed.
    pub(super) fn as_it_is(&self) -> Wanted {
        let (vips, resources) = (self.vips.clone(), self.resources.clone());
        Wanted { vips, resources, names: BTreeSet::new(), keys: BTreeSet::new() }
    }

    /// Takes a change back.
    pub(super) fn restore(&mut self, before: Before) -> Before {
        let vips = std::mem::replace(&mut self.vips, before.vips);
        let resources = std::mem::replace(&mut self.resources, before.resources);
        self.shadowed.extend(before.shadowed);
        Before { vips, resources, shadowed: Vec::new() }
    }

    /// What was prepared comes back unless it is to be kept at once.
    async fn try_change(&mut self, keep: bool) -> Result<Option<Prepared>, Refusal> {
        let ours = |(name, _): &(&String, &Vip)| !self.from_file.contains(*name);
        let kept = self.vips.iter().filter(ours).map(|(_, vip)| vip);
        let kept: Vec<Vip> = kept.chain(&self.shadowed).cloned().collect();
        let (revision, resources) = (self.revision + 1, self.kept_resources());
        let prepare = move |store: &Store| {
            store.prepare(revision, &kept.iter().collect::<Vec<_>>(), &resources)
        };
        let prepared = blocking(&self.store, prepare).await.map_err(Refusal::NotWritten)?;
        self.reconcile().await.map_err(Refusal::Dataplane)?;
        if !keep {
            return Ok(Some(prepared));
        }
        let commit = move |store: &Store| store.commit(prepared);
        blocking(&self.store, commit).await.map_err(Refusal::Store).map(|()| None)
    }

    fn kept_resources(&self) -> Resources {
        let ours = self.resources.all().filter(|r| !self.file_resources.contains(&r.key()));
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
