//! Going back: from a configuration that nobody confirms, and to one that was kept before.

use std::collections::BTreeSet;
use std::time::Duration;

use lb_api_types::event::EventKind;
use lb_api_types::view::{Change, ChangeKind, GenerationView, History};
use lb_api_types::vip::Vip;
use tokio::time::Instant;

use super::task::{Task, blocking};
use super::{Appliers, Bulk, Refusal};
use crate::clock::rfc3339;
use crate::control::Vips;
use crate::store::{Generation, Prepared, Store};

/// A configuration that is applied and not kept yet.
pub(super) struct Pending {
    /// What was there before.
    pub(super) before: Vips,
    /// Kept VIPs that gave way.
    pub(super) shadowed: Vec<Vip>,
    /// The VIPs that it changed.
    pub(super) names: BTreeSet<String>,
    /// Written, and waits to take the old one's place.
    pub(super) prepared: Prepared,
    /// When it is rolled back.
    pub(super) until: Instant,
}

impl<A: Appliers> Task<A> {
    /// Refuses a change while another one waits to be confirmed.
    pub(super) fn nothing_waits(&self) -> Result<(), Refusal> {
        self.seconds_left().map_or(Ok(()), |left| Err(Refusal::Unconfirmed(left)))
    }

    fn seconds_left(&self) -> Option<u32> {
        let left = self.pending.as_ref()?.until.saturating_duration_since(Instant::now());
        let rounded_up = left + Duration::from_millis(999);
        Some(u32::try_from(rounded_up.as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) async fn confirm(&mut self) -> Result<(), Refusal> {
        let Some(pending) = self.pending.take() else { return Err(Refusal::NothingToConfirm) };
        let Pending { before, shadowed, names, prepared, .. } = pending;
        let kept = blocking(&self.store, move |store| store.commit(prepared)).await;
        match kept {
            Ok(()) => {
                tracing::info!("configuration confirmed");
                self.events.tell(EventKind::ConfigConfirmed, "", "the configuration is kept");
                Ok(())
            }
            Err(why) => {
                self.back_to(before, shadowed, &names, &why).await;
                Err(Refusal::Store(why))
            }
        }
    }

    /// Undoes what waits to be confirmed, if something does.
    pub(super) async fn roll_back(&mut self, why: &str) -> Vec<Change> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        let Pending { before, shadowed, names, prepared, .. } = pending;
        let discard = move |store: &Store| {
            store.discard(prepared);
            Ok(())
        };
        if let Err(why) = blocking(&self.store, discard).await {
            tracing::warn!(why, "a file that is not needed any more stays");
        }
        let changes = self.undone(&before, &names);
        self.back_to(before, shadowed, &names, why).await;
        changes
    }

    /// What going back to `before` does to the VIPs of these names.
    fn undone(&self, before: &Vips, names: &BTreeSet<String>) -> Vec<Change> {
        let change = |name: &String| match (before.get(name), self.vips.get(name)) {
            (Some(_), None) => ChangeKind::Created,
            (None, _) => ChangeKind::Deleted,
            (Some(old), Some(new)) if old.spec == new.spec => ChangeKind::Unchanged,
            (Some(_), Some(_)) => ChangeKind::Updated,
        };
        names.iter().map(|name| Change { name: name.clone(), change: change(name) }).collect()
    }

    async fn back_to(
        &mut self,
        before: Vips,
        shadowed: Vec<Vip>,
        names: &BTreeSet<String>,
        why: &str,
    ) {
        let undone = std::mem::replace(&mut self.vips, before);
        self.shadowed.extend(shadowed);
        self.say_shadowed();
        tracing::warn!(why, "configuration rolled back");
        self.events.tell(EventKind::ConfigRolledBack, "", why);
        self.tell_of_vips(&undone, names);
        // A dataplane that refuses is asked again with every tick.
        self.follow().await;
        self.tell_of_state(&undone);
    }

    pub(super) async fn rollback(
        &mut self,
        to: Option<u64>,
        dry_run: bool,
    ) -> Result<Vec<Change>, Refusal> {
        if let (Some(pending), None) = (&self.pending, to) {
            return Ok(match dry_run {
                true => self.undone(&pending.before, &pending.names),
                false => self.roll_back("an operator asked for it").await,
            });
        }
        self.nothing_waits()?;
        let generations = self.generations().await?;
        let found = match to {
            Some(revision) => generations.into_iter().find(|g| g.revision == revision),
            None => generations.into_iter().nth(1),
        };
        let Some(Generation { revision, vips, .. }) = found else {
            let what = to.map_or("nothing".into(), |to| format!("no revision {to}"));
            return Err(Refusal::NoGeneration(what));
        };
        // Kept VIPs of a name that the file has now are not served either way.
        let vips = vips.into_iter().filter(|vip| !self.from_file.contains(&vip.metadata.name));
        let vips = vips.map(|mut vip| {
            vip.metadata.revision = None;
            vip
        });
        let bulk = Bulk { dry_run, prune: true, confirm_within: None };
        let changes = self.apply(vips.collect(), bulk).await.map_err(|(_, refusal)| refusal)?;
        if !dry_run {
            let message = format!("back to revision {revision}");
            self.events.tell(EventKind::ConfigRolledBack, "", message);
        }
        Ok(changes)
    }

    pub(super) async fn history(&mut self) -> Result<History, Refusal> {
        let view = |generation: Generation| GenerationView {
            revision: generation.revision,
            written: rfc3339(generation.written),
            vips: generation.vips.len(),
        };
        let generations = self.generations().await?;
        Ok(History {
            rolled_back_in_secs: self.seconds_left(),
            generations: generations.into_iter().map(view).collect(),
        })
    }

    async fn generations(&mut self) -> Result<Vec<Generation>, Refusal> {
        blocking(&self.store, |store| Ok(store.generations())).await.map_err(Refusal::Store)
    }
}
