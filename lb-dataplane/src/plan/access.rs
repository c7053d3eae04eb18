//! Who may begin flows of which service: the lists in `ACCESS_NODES`, each where `ACCESS_LISTS` says.

mod bounds;
#[cfg(test)]
mod tests;
mod tree;

use lb_dataplane_common::list::{List, MAX_PREFIXES, NODE_WORDS};
use lb_dataplane_common::service::{SERVICE_LISTS_CLIENTS, ServiceEntry};

use super::ring::Digest;
use super::{Held, PlanError, Served, Step};
use crate::table::{Access, Service, ServiceKey};

/// A list that is in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) list: List,
    pub(super) digest: Digest,
}

/// What the service's entry says.
pub(super) fn flags(listed: Option<Listed>) -> u8 {
    listed.map_or(0, |_| SERVICE_LISTS_CLIENTS)
}

/// Whether a service's entry says that it has a list.
pub(super) fn has_list(entry: &ServiceEntry) -> bool {
    entry.flags & SERVICE_LISTS_CLIENTS != 0
}

/// The words that are where a list is.
pub(super) fn there(list: List, word: impl Fn(u32) -> Option<u64>) -> Vec<u64> {
    let first = list.first.saturating_mul(NODE_WORDS);
    let end = first.saturating_add(list.nodes.saturating_mul(NODE_WORDS));
    (first..end).map_while(word).collect()
}

/// The words of a list of prefixes.
pub(super) fn words(access: &[Access]) -> Vec<u64> {
    tree::words(&bounds::bounds(access))
}

/// Whether a list is no longer than one may be.
pub(super) fn check(key: &ServiceKey, service: &Service) -> Result<(), PlanError> {
    let count = service.access.len();
    if count > MAX_PREFIXES {
        return Err(PlanError::TooManyPrefixes { address: key.address, port: key.port, count });
    }
    Ok(())
}

impl Served {
    /// The list of a service: the one that it has if that says the same, or a new one, written.
    pub(super) fn list(
        &mut self,
        service: u32,
        access: &[Access],
        old: Option<&Held>,
        steps: &mut Vec<Step>,
    ) -> Result<Option<Listed>, PlanError> {
        if access.is_empty() {
            return Ok(None);
        }
        // A long one is not made anew where only a backend changes.
        if let Some(Held { wanted: Some(wanted), listed, .. }) = old
            && *wanted.access == *access
        {
            return Ok(*listed);
        }
        let full = PlanError::AccessFull(self.limits.access);
        if access.len() > self.limits.access as usize {
            return Err(full);
        }
        let words = words(access);
        let digest = Digest::of(&words);
        let there = old.and_then(|held| held.listed).filter(|listed| listed.digest == digest);
        if there.is_some() {
            return Ok(there);
        }
        let nodes = words.len() as u32 / NODE_WORDS;
        let first = self.lists.take(nodes, steps).ok_or(full)?;
        let list = List { first, nodes };
        steps.push(Step::WriteList { first, words });
        steps.push(Step::PutList { service, list });
        Ok(Some(Listed { list, digest }))
    }

    /// Gives back the list that a service had, if it has another one now or none.
    pub(super) fn part_with_list(
        &mut self,
        service: u32,
        old: Option<Listed>,
        new: Option<Listed>,
        steps: &mut Vec<Step>,
    ) {
        let Some(Listed { list, .. }) = old.filter(|_| old != new) else { return };
        self.lists.give_back(list.first, list.nodes);
        if new.is_none() {
            steps.push(Step::RemoveList { service });
        }
    }
}
