//! Going back: from a configuration that nobody confirms, and to one that was kept before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lb_api_types::event::EventKind;
use lb_api_types::view::{Change, ChangeKind, GenerationView, History};
use lb_api_types::vip::Vip;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::change::{Before, asks_the_same};
use super::task::{Task, blocking};
use super::{Appliers, Bulk, Documents, Refusal, Terms};
use crate::clock::rfc3339;
use crate::resources::Key;
use crate::store::{Generation, Prepared, Store};

/// VIPs at most that a rollback names as left alone; of more it says how many, and the status has them all.
const MAX_NAMED: usize = 16;

/// A configuration that is applied and not kept yet.
pub(super) struct Pending {
    /// What was there before.
    pub(super) before: Before,
    /// What else than VIPs it changed.
    pub(super) keys: BTreeSet<Key>,
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

    pub(super) fn seconds_left(&self) -> Option<u32> {
        let left = self.pending.as_ref()?.until.saturating_duration_since(Instant::now());
        let rounded_up = left + Duration::from_millis(999);
        Some(u32::try_from(rounded_up.as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) async fn confirm(&mut self) -> Result<(), Refusal> {
        let Some(pending) = self.pending.take() else { return Err(Refusal::NothingToConfirm) };
        let Pending { before, keys, prepared, .. } = pending;
        match self.keep(prepared).await {
            Ok(()) => {
                tracing::info!("configuration confirmed");
                self.events.tell(EventKind::ConfigConfirmed, "", "the configuration is kept");
                Ok(())
            }
            Err(why) => {
                self.back_to(before, &keys, &why).await;
                Err(Refusal::Store(why))
            }
        }
    }

    /// Undoes what waits to be confirmed, if something does.
    pub(super) async fn roll_back(&mut self, why: &str) -> Vec<Change> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        let Pending { before, keys, .. } = pending;
        let changes = self.undone(&before, &keys);
        self.back_to(before, &keys, why).await;
        changes
    }

    /// What going back to `before` does to its VIPs and the resources of these keys.
    fn undone(&self, before: &Before, keys: &BTreeSet<Key>) -> Vec<Change> {
        let resources = keys.iter().map(|key| {
            let change = match (before.resources.get(key), self.resources.get(key)) {
                (Some(_), None) => ChangeKind::Created,
                (None, _) => ChangeKind::Deleted,
                (Some(old), Some(new)) if old.asks_the_same(new) => ChangeKind::Unchanged,
                (Some(_), Some(_)) => ChangeKind::Updated,
            };
            super::apply::change(key, change)
        });
        let vips = before.vips.iter().map(|(name, old)| {
            let change = match (old, self.book.vips().get(name)) {
                (Some(_), None) => ChangeKind::Created,
                (None, _) => ChangeKind::Deleted,
                (Some(old), Some(new)) if asks_the_same(old, new) => ChangeKind::Unchanged,
                (Some(_), Some(_)) => ChangeKind::Updated,
            };
            super::apply::vip_change(name, change)
        });
        resources.chain(vips).collect()
    }

    async fn back_to(&mut self, before: Before, keys: &BTreeSet<Key>, why: &str) {
        let undone = self.restore(before);
        // Who has seen what is undone has not seen this; its revision is reserved.
        self.revision += 1;
        self.say_shadowed(&undone.vips, !keys.is_empty());
        tracing::warn!(why, "configuration rolled back");
        self.events.tell(EventKind::ConfigRolledBack, "", why);
        self.tell_of_resources(&undone.resources, keys);
        self.tell_of_vips(&undone.vips);
        // A dataplane that refuses is asked again with every tick.
        self.follow().await;
        self.tell_of_state(&undone.vips);
    }

    pub(super) async fn rollback(
        &mut self,
        to: Option<u64>,
        Terms { expected, dry_run }: Terms,
    ) -> Result<Vec<Change>, Refusal> {
        self.is_at(expected)?;
        if let (Some(pending), None) = (&self.pending, to) {
            return Ok(match dry_run {
                true => self.undone(&pending.before, &pending.keys),
                false => self.roll_back("an operator asked for it").await,
            });
        }
        self.nothing_waits()?;
        let generations = generations(&self.store).await?;
        let found = match to {
            Some(revision) => generations.into_iter().find(|g| g.revision == revision),
            None => generations.into_iter().nth(1),
        };
        let Some(Generation { revision, vips, resources, .. }) = found else {
            let what = to.map_or("nothing".into(), |to| format!("no revision {to}"));
            return Err(Refusal::NoGeneration(what));
        };
        // Those that the file would hide are not served either way, and stay what they are.
        let (left, vips): (Vec<_>, Vec<_>) =
            vips.into_iter().partition(|vip| self.would_stay_hidden(vip));
        let left: Vec<_> = left.iter().map(|vip| vip.metadata.name.clone()).collect();
        let vips = vips.into_iter().map(|vip| {
            let mut vip = Arc::unwrap_or_clone(vip);
            vip.metadata.revision = None;
            vip
        });
        let ours = resources.all().filter(|r| !self.file_resources.contains(&r.key())).cloned();
        let resources = ours.map(|mut resource| {
            resource.metadata_mut().revision = None;
            resource
        });
        let documents = Documents { vips: vips.collect(), resources: resources.collect() };
        let terms = Bulk { dry_run, ..Bulk::default() };
        let changes = self.replace_all(documents, terms).await.map_err(|(_, refusal)| refusal)?;
        if !dry_run {
            let mut message = format!("back to revision {revision}");
            if !left.is_empty() {
                let (many, named) = (left.len(), &left[..left.len().min(MAX_NAMED)]);
                let mut names = named.join(", ");
                if many > named.len() {
                    names.push_str(&format!(" and {} more", many - named.len()));
                }
                tracing::warn!(vips = names, "left as they are, since the file hides them");
                message.push_str(&format!(", but for VIPs that the file hides: {names}"));
            }
            self.events.tell(EventKind::ConfigRolledBack, "", message);
        }
        Ok(changes)
    }

    /// Whether a VIP of a generation has a name that the file has, or is hidden now and would clash with the file's again.
    fn would_stay_hidden(&self, vip: &Vip) -> bool {
        let name = &vip.metadata.name;
        let is_hidden = self.shadowed.iter().any(|hidden| hidden.metadata.name == *name);
        let clashes = || {
            let mut others = self.book.overlapping(&vip.spec);
            others.any(|other| self.from_file.contains(&other.metadata.name))
        };
        self.from_file.contains(name) || (is_hidden && clashes())
    }

    /// Answers with what is and was kept, while changes go on: to read it takes longer than a change.
    pub(super) fn history(&self, answer: oneshot::Sender<Result<History, Refusal>>) {
        let (store, rolled_back_in_secs) = (Arc::clone(&self.store), self.seconds_left());
        let view = |generation: Generation| GenerationView {
            revision: generation.revision,
            written: rfc3339(generation.written),
            vips: generation.vips.len(),
        };
        tokio::spawn(async move {
            let history = generations(&store).await.map(|generations| History {
                rolled_back_in_secs,
                generations: generations.into_iter().map(view).collect(),
            });
            let _gone = answer.send(history);
        });
    }
}

async fn generations(store: &Arc<Store>) -> Result<Vec<Generation>, Refusal> {
    blocking(store, |store| Ok(store.generations())).await.map_err(Refusal::Store)
}
