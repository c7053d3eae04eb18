//! Goes from one look at the host's links to the next: attaches, tells of VLANs, and says what is not as configured.

use std::collections::BTreeSet;
use std::time::Instant;

use lb_api_types::config;
use lb_dataplane::{Hook, HookChoice, Vlan};
use lb_routing::Link;

use super::standing::{self, Lacking, Standing};
use super::{
    DataplaneHandle, Done, Owned, Refused, Step, Trouble, carry_out, choice, is_attachable,
    left_out, load_for, plan, sentence, vlans,
};

/// What is known from one look at the host's links to the next.
#[derive(Default)]
pub(super) struct Following {
    done: Done,
    refused: Refused,
    /// The VLANs that the dataplane was told.
    told: Option<Vec<Vlan>>,
    /// The interfaces whose packets meet our tables.
    carried: BTreeSet<u32>,
    standing: Standing,
}

impl Following {
    /// Goes the steps to what is configured; what is not so, or nothing once the dataplane has ended.
    pub(super) async fn attach_and_look(
        &mut self,
        now: &[Link],
        dataplane: &DataplaneHandle,
        config: &config::Dataplane,
    ) -> Option<Vec<Trouble>> {
        let patterns = &config.interfaces;
        let look = |owned: &mut Owned| {
            owned.dataplane.forget_gone();
            owned.dataplane.attached()
        };
        let before = dataplane.with(look).await.ok()?;
        let mut found = left_out(now, patterns);
        let steps = plan(now, &before, &mut self.done, patterns);
        found.extend(load_for(dataplane, &steps, choice(config)).await.err().map(Trouble::any));
        let mut failed = self.carry_out_all(steps, dataplane, choice(config)).await;
        found.extend(self.refused.values().cloned().map(Trouble::any));
        let at_xdp = before.iter().any(|one| one.hook != Hook::Tc);
        found.extend(self.tell_vlans(now, patterns, at_xdp, dataplane).await);
        match dataplane.with(|owned| owned.dataplane.carried()).await.ok()? {
            Ok(now) => self.carried = now,
            // Until it can be looked at again, it is as it was.
            Err(error) => {
                let said = format!("what is attached cannot be looked at: {}", sentence(&error));
                found.push(Trouble::any(said));
            }
        }
        for one in &mut failed {
            if one.of.is_some_and(|of| self.carried.contains(&of)) {
                one.said.push_str("; what an earlier lbd attached there goes on meanwhile");
            }
        }
        found.extend(failed);
        Some(found)
    }

    /// What could not be done.
    async fn carry_out_all(
        &mut self,
        steps: Vec<Step>,
        dataplane: &DataplaneHandle,
        choice: HookChoice,
    ) -> Vec<Trouble> {
        let mut failed = Vec::new();
        for step in steps {
            if matches!(step, Step::Detach(..)) {
                // What the fast path knew of the interface went with that.
                self.told = None;
            }
            let of = step.ifindex();
            let carried =
                carry_out(dataplane, step, choice, &mut self.done, &mut self.refused).await;
            failed.extend(carried.err().map(|said| Trouble { of, said }));
        }
        let done = &self.done;
        self.refused.retain(|ifindex, _| done.contains_key(ifindex));
        failed
    }

    /// Tells the dataplane of VLANs where that is news; what is not as configured with them.
    async fn tell_vlans(
        &mut self,
        now: &[Link],
        patterns: &[String],
        at_xdp: bool,
        dataplane: &DataplaneHandle,
    ) -> Vec<Trouble> {
        let all = vlans::of(now, patterns);
        let mut troubles = vlans::troubles(now, &all, at_xdp);
        if self.told.as_ref() != Some(&all) {
            match vlans::tell(dataplane, all.clone()).await {
                Ok(()) => self.told = Some(all),
                Err(trouble) => troubles.push(trouble),
            }
        }
        troubles.into_iter().map(Trouble::any).collect()
    }

    /// Whether clients may be led here, and what is lacking.
    pub(super) fn judge(
        &mut self,
        now: &[Link],
        patterns: &[String],
        found: &[Trouble],
    ) -> (bool, Vec<Lacking>) {
        let lacking = standing::lacking(now, &self.carried, patterns, found);
        let is_carried = |link: &Link| {
            self.carried.contains(&link.ifindex) && is_attachable(now, link, patterns)
        };
        let is_anywhere = now.iter().any(is_carried);
        let is_whole = self.standing.judge(is_anywhere, !lacking.is_empty(), Instant::now());
        (is_whole, lacking)
    }
}
